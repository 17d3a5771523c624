"""What artists see: one file a family of nodes, and the list ComfyUI registers."""

from .codec import OpenSoraVAEDecode, OpenSoraVAEEncode
from .empty_latent import OpenSoraEmptyLatent
from .keyframe import OpenSoraKeyframe
from .loaders import OpenSoraLoadModel, OpenSoraLoadVAE
from .sampler import OpenSoraModelSampling, OpenSoraSampler, OpenSoraScheduler
from .text import OpenSoraLoadTextEncoder, OpenSoraNullPrompt, OpenSoraTextEncode
from .v1_3_options import OpenSoraV13Options

NODES = [
    OpenSoraLoadModel,
    OpenSoraLoadTextEncoder,
    OpenSoraLoadVAE,
    OpenSoraTextEncode,
    OpenSoraNullPrompt,
    OpenSoraEmptyLatent,
    OpenSoraKeyframe,
    OpenSoraSampler,
    OpenSoraScheduler,
    OpenSoraModelSampling,
    OpenSoraVAEEncode,
    OpenSoraVAEDecode,
    OpenSoraV13Options,
]
