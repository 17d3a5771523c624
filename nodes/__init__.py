"""What artists see: one file a family of nodes, and the list ComfyUI registers."""

from .cache import OpenSoraCache
from .codec import OpenSoraVAEDecode, OpenSoraVAEEncode
from .dataset import OpenSoraDataset
from .empty_latent import OpenSoraEmptyLatent
from .fit_image import OpenSoraFitImage
from .footage import OpenSoraFilterClips, OpenSoraPrepareClips
from .frame_strength import OpenSoraFrameStrength
from .keyframe import OpenSoraKeyframe
from .loaders import OpenSoraLoadModel, OpenSoraLoadTextEncoder, OpenSoraLoadVAE
from .long_video import OpenSoraConnect, OpenSoraExtend, OpenSoraLoop
from .mask_strategy import OpenSoraMaskStrategy
from .prompt_schedule import OpenSoraPromptSchedule
from .region import OpenSoraMaskRegion
from .sampler import OpenSoraModelSampling, OpenSoraSampler, OpenSoraScheduler
from .text import OpenSoraNullPrompt, OpenSoraTextEncode
from .timeline import OpenSoraTimeline
from .training import OpenSoraTrain, OpenSoraTrainingReport
from .v1_3_options import OpenSoraV13Options

NODES = [
    OpenSoraLoadModel,
    OpenSoraLoadTextEncoder,
    OpenSoraLoadVAE,
    OpenSoraTextEncode,
    OpenSoraNullPrompt,
    OpenSoraPromptSchedule,
    OpenSoraEmptyLatent,
    OpenSoraKeyframe,
    OpenSoraTimeline,
    OpenSoraMaskStrategy,
    OpenSoraFrameStrength,
    OpenSoraMaskRegion,
    OpenSoraFitImage,
    OpenSoraSampler,
    OpenSoraScheduler,
    OpenSoraModelSampling,
    OpenSoraExtend,
    OpenSoraConnect,
    OpenSoraLoop,
    OpenSoraVAEEncode,
    OpenSoraVAEDecode,
    OpenSoraV13Options,
    OpenSoraDataset,
    OpenSoraTrain,
    OpenSoraTrainingReport,
    OpenSoraPrepareClips,
    OpenSoraFilterClips,
    OpenSoraCache,
]
