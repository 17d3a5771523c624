"""The colours of latents: the linear map from a latent to the colour that it decodes to, for previews."""

import torch
import torch.nn.functional as F

# Against latents of unit scale: sampled ones lie a little off those of every clip, and colours must bear it.
RIDGE = 0.01


def fit_colors(latents, video, groups):
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
    colors = torch.stack([video[:, :, group.start : group.stop].mean(dim=2) for group in groups], dim=2)
    colors = F.interpolate(colors.float().clamp(-1, 1), size=latents.shape[2:], mode="area")
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
