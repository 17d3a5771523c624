"""The colours of latents, for previews: the linear map from a latent to the colour that it decodes to, or a network."""

import base64
from collections.abc import Sequence

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Against latents of unit scale: sampled ones lie a little off those of every clip, and colours must bear it.
RIDGE = 0.01


def colors_behind(latents: Tensor, video: Tensor, groups: Sequence[range]) -> Tensor:
    """The mean colour [B, 3, T, h, w] of the frames and pixels behind each latent; arguments as `fit_colors`."""
    colors = torch.stack([video[:, :, group.start : group.stop].mean(dim=2) for group in groups], dim=2)
    return F.interpolate(colors.float().clamp(-1, 1), size=latents.shape[2:], mode="area")


def fit_colors(latents: Tensor, video: Tensor, groups: Sequence[range]) -> tuple[list, list, list | None]:
    """Ridge regression from latents to the mean colour of the frames and pixels behind each.

    A decoder's group norms see the whole clip, so a small VAE's colours hang on the clip's mean too. With several clips
    to fit, `mixing` says how: colour = (latent + mean · mixing) · factors + bias.

    Args:
        latents: [B, C, T, h, w], normalised, as the transformer sees them; C is 3 or more.
        video: [B, 3, frames, H, W] in -1…1, what they decode to or were encoded from.
        groups: the frames behind each latent, T ranges: a VAE's `groups(frames)`.

    Returns:
        (factors [C, 3], bias [3], mixing [C, C]) as nested lists, for colours in -1…1; of one clip, whose mean tells
        nothing, mixing is None.
    """
    C, several = latents.shape[1], len(latents) > 1
    colors = colors_behind(latents, video, groups)
    means = latents.mean(dim=(2, 3, 4), keepdim=True).expand_as(latents)
    one = torch.ones_like(latents[:, :1])
    known = torch.cat([latents, means, one] if several else [latents, one], dim=1)
    rows, wanted = (values.float().cpu().movedim(1, -1).flatten(0, -2) for values in (known, colors))
    penalty = RIDGE * torch.eye(rows.shape[1])
    penalty[-1, -1] = 0  # the bias is free
    solution = torch.linalg.solve(rows.T @ rows / len(rows) + penalty, rows.T @ wanted / len(rows))
    factors, bias = solution[:C], solution[-1]
    mixing = (solution[C : 2 * C] @ torch.linalg.pinv(factors)).tolist() if several else None
    return factors.tolist(), bias.tolist(), mixing


class ColorNetwork(nn.Module):
    """Latents of a VAE with group norms, as latents whose colours by `fit_colors`' factors are the decoded ones.

    A small VAE's colours hang on the whole clip, and not in a straight line: beside a latent and its neighbours in its
    frame it looks at the clip's mean and covariance.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.near = nn.Conv3d(channels, hidden, (1, 3, 3), padding=(0, 1, 1), padding_mode="replicate")
        self.clip = nn.Linear(channels * (channels + 3) // 2, hidden, bias=False)
        self.mix = nn.Conv3d(hidden, hidden, 1)
        self.out = nn.Conv3d(hidden, channels, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, C, T, h, w] to the same shape; the clip is all of T."""
        C = latents.shape[1]
        mean = latents.mean(dim=(2, 3, 4), keepdim=True)
        off = (latents - mean).flatten(2)
        pairs = torch.triu_indices(C, C)
        covariance = (off @ off.mT / off.shape[2])[:, pairs[0], pairs[1]]
        clip = self.clip(torch.cat([mean.flatten(1), covariance], dim=1))
        hidden = F.silu(self.near(latents) + clip[:, :, None, None, None])
        return self.out(F.silu(self.mix(hidden)))

    def to_text(self) -> str:
        """The weights for a file's metadata: a safetensors file of half precision in base64."""
        weights = {key: value.detach().half().cpu().contiguous() for key, value in self.state_dict().items()}
        return base64.b64encode(safetensors.torch.save(weights)).decode()

    @classmethod
    def from_text(cls, text: str, channels: int) -> "ColorNetwork":
        """The network that `to_text` wrote for latents of so many channels. ValueError for any other text."""
        try:
            weights = safetensors.torch.load(base64.b64decode(text, validate=True))
            network = cls(channels, len(weights["near.weight"]))
            network.load_state_dict({key: value.float() for key, value in weights.items()})
        except Exception as error:
            raise ValueError(f"latent_rgb_network is no network of preview colours: {error}") from error
        return network.requires_grad_(False)
