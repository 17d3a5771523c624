"""Encoders for tests of what is around them: a VAE that averages frames and pixels, a T5 that counts letters."""

import torch
import torch.nn.functional as F
from opensora_comfy.model.frames import CHUNKS


class AveragingVAE:
    """A latent is the mean of its frames, every 8 x 8 pixels of them. `calls` counts."""

    def __init__(self, key="vae", counting=CHUNKS):
        self.key, self.counting, self.calls = key, counting, 0

    def __call__(self, video):
        self.calls += 1
        small = F.avg_pool3d(video, (1, 8, 8))
        groups = self.counting.groups(video.shape[2])
        return torch.stack([small[:, :, group.start : group.stop].mean(2) for group in groups], dim=2)


class LetterEncoder:
    """A token is a letter. `calls` counts."""

    def __init__(self, key="t5", max_length=12):
        self.key, self.max_length, self.calls = key, max_length, 0

    def __call__(self, caption):
        self.calls += 1
        letters = torch.tensor([float(ord(letter)) for letter in caption[: self.max_length]])
        features = torch.full((self.max_length, 3), 7.0)  # ComfyUI's T5 leaves something in the padding too
        features[: len(letters)] = letters[:, None] * torch.tensor([1.0, 2.0, 3.0])
        return features, (torch.arange(self.max_length) < len(letters)).long()
