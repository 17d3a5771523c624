"""Training of small networks on made-up clips, by encoders that load nothing: what the trainer's tests run."""

import hashlib

import torch
import torch.nn.functional as F
from families import small_family
from opensora_comfy.model.frames import CHUNKS, EACH_FRAME, OVERLAPPING
from opensora_comfy.training.config import SaveConfig, TrainConfig
from opensora_comfy.training.data.batches import Shapes
from opensora_comfy.training.data.cache import Cache
from opensora_comfy.training.data.dataset import clip_of_images
from opensora_comfy.training.data.examples import Examples
from opensora_comfy.training.objective import Objective
from opensora_comfy.training.setup import make_trainable
from opensora_comfy.training.trainer.trainer import Trainer
from small import CAPTION_CHANNELS, CAPTION_LENGTH

COUNTING = {
    "stdit": EACH_FRAME,
    "stdit2": EACH_FRAME,
    "stdit3": CHUNKS,
    "stdit3_v1_3": OVERLAPPING,
    "pixart": EACH_FRAME,
}
VERSIONS = {"stdit": "1.0", "stdit2": "1.1", "stdit3": "1.2", "stdit3_v1_3": "1.3"}
MASKS = {"image_head": 0.2, "quarter_tail": 0.1, "random": 0.2}
CONDITIONS = {"i2v_head": 0.3, "i2v_loop": 0.2, "v2v_head": 0.2}
MIXED = {"32x32": {1: 3, 17: 2}, "16x32": {17: 2}}


class MixingVAE:
    """A latent is the mean of its frames, every 8 x 8 pixels of them, in as many channels as are wanted."""

    def __init__(self, channels=4, counting=CHUNKS):
        self.key, self.counting, self.channels = f"vae {channels} {counting}", counting, channels

    def __call__(self, video):
        small = F.avg_pool3d(video, (1, 8, 8))
        groups = self.counting.groups(video.shape[2])
        small = torch.stack([small[:, :, group.start : group.stop].mean(2) for group in groups], dim=2)
        waves = torch.arange(3 * self.channels).sin().view(self.channels, 3)
        return torch.einsum("ck, bkthw -> bcthw", waves, small)


class WordEncoder:
    """A token is a word, its features follow from its letters."""

    key = "words"

    def __call__(self, caption):
        words = caption.split()[: CAPTION_LENGTH - 1]
        features = torch.zeros(CAPTION_LENGTH, CAPTION_CHANNELS)
        for place, word in enumerate([*words, "</s>"]):
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:6], "big")
            features[place] = torch.randn(CAPTION_CHANNELS, generator=torch.Generator().manual_seed(seed))
        return features, (torch.arange(CAPTION_LENGTH) <= len(words)).long()


def network(family="stdit3"):
    """A small random network of a family."""
    module, weights = small_family(family)
    module.load_state_dict(weights)
    return module


def clip(number, frames=17, height=32, width=32):
    """A clip in which a wave of colour runs."""
    at = torch.arange(frames)[:, None, None, None] / 5 + torch.arange(width)[None, None, :, None] / 9
    rows, colors = torch.arange(height)[None, :, None, None] / 7, torch.arange(3)[None, None, None] * 2.0
    images = 0.5 + 0.5 * torch.sin(at + rows * (1 + number % 3) + colors + number)
    return clip_of_images(images, f"wave number {number} runs" + " on" * (number % 4), name=f"clip {number}")


def mixed_clips():
    """Nine clips of three shapes: videos, wide videos and pictures."""
    return [
        *(clip(n) for n in range(4)), *(clip(n, height=16) for n in (4, 5)), *(clip(n, frames=1) for n in (6, 7, 8))
    ]  # fmt: skip


def prepared(folder, clips, buckets=MIXED, family="stdit3", way="buckets", **options):
    """Examples whose cache is filled."""
    counting = COUNTING[family]
    shapes = Shapes(buckets, counting, way, VERSIONS[family])
    found = Examples(clips, shapes, Cache(folder), **options)
    found.prepare(MixingVAE(16 if family == "stdit3_v1_3" else 4, counting), WordEncoder())
    return found


def objective(family="stdit3", **options):
    """With masks (in 1.3 conditions) and captions that are dropped."""
    ratios = CONDITIONS if family == "stdit3_v1_3" else MASKS
    return Objective(
        **{"version": VERSIONS[family], "ratios": ratios, "caption_dropout": 0.3, "stills": 0.5, **options}
    )


def in_double(module):
    """The network in fp64, whatever it is given: what then differs is no rounding."""

    def widen(_, args, named):
        def wide(value):
            return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

        return tuple(map(wide, args)), {name: wide(value) for name, value in named.items()}

    module.double().register_forward_pre_hook(widen, with_kwargs=True)
    return module


def trainer(folder, examples, family="stdit3", saving=None, train=None, double=False, **options):
    """A trainer of all weights of a small network; `train`, `saving`: fields of TrainConfig and SaveConfig."""
    settings = TrainConfig(
        **{"kind": "full", "steps": 10, "warmup": 2, "learning_rate": 1e-3, "ema": 0.9, **(train or {})}
    )
    kept = SaveConfig(**{"folder": str(folder), "every_steps": 4, "validate_every": 5, **(saving or {})})
    module = make_trainable(network(family), settings)
    module = in_double(module) if double else module
    options = {"objective": objective(family), "say": lambda words: None, **options}
    return Trainer(module, examples, options.pop("objective"), settings, kept, **options)
