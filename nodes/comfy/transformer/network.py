"""The transformer as ComfyUI calls it: its arguments, its wrappers, its blocks, its direction of the prediction."""

import functools
from collections.abc import Callable, Sequence

import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor

from ....model.transformers.kernels import use
from ....model.transformers.layers import CrossAttention
from ....model.transformers.skeleton import ClipSizes, VideoTransformer
from ..versions import has_anchor
from .attention import Call, HostAttention
from .kernels import HostKernels
from .low_memory import Pieces
from .windows import TIME

VARIANCE = "opensora_variance"  # the transformer option under which a sampler asks for the variance half
LOOK_AT_BLOCKS = ("patches_replace", "patches", "optimized_attention_override")  # options whose users ask for the block


class Hosted:
    """The half of a hosted transformer that knows ComfyUI; `hosted` joins it with a family of model/.

    Built on the meta device: the loader puts the weights in place, so none is ever allocated twice. The family's
    modules keep their names, so a LoRA's keys are those of the checkpoint.
    """

    def __init__(
        self, config: object, dtype: torch.dtype | None = None, device: object = None, operations: type | None = None
    ) -> None:
        call = Call()
        with torch.device("meta"):
            super().__init__(config, operations=operations, attention=HostAttention("attn1", call), dtype=dtype)
        for module in self.modules():
            if isinstance(module, CrossAttention):
                module.attention = HostAttention("attn2", call)
        use(self, HostKernels())
        self.call = call
        self.pieces = Pieces()
        self.variance = None  # of the last call, where a sampler asked for it
        self.dtype = dtype

    def forward(
        self, x: Tensor, timestep: Tensor, context: Tensor, attention_mask: Tensor | None = None,
        frame_mask: Tensor | None = None, fps: float | None = None, height: float | None = None,
        width: float | None = None, num_frames: float | None = None, transformer_options: dict | None = None,
        condition: Tensor | None = None, condition_mask: Tensor | None = None,
        condition_frames: Sequence[int] | None = None, **kwargs: object,
    ) -> Tensor:  # fmt: skip
        """What ComfyUI's sampling expects of x, [B, C, T, H, W]: noise minus data for flow, the noise for epsilon.

        x [B, C, T, H, W]; timestep [B]; context [B, L, caption_channels]; attention_mask [B, L]; frame_mask [B, T],
        not 0 where a frame is told the timestep; fps, height, width and num_frames are numbers, the same for the whole
        batch; the condition of Open-Sora 1.3 as its network takes it.
        """
        transformer_options, clip = transformer_options or {}, ClipSizes(fps, height, width, num_frames)
        given = {"condition": condition, "condition_mask": condition_mask, "condition_frames": condition_frames}
        given = {} if condition is None else given  # the other families take none
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, transformer_options)
        if wrappers:
            x = x.clone()  # EasyCache writes into it, and where nothing had to be cast it is the sampler's own
        return WrapperExecutor.new_class_executor(self._forward, self, wrappers).execute(
            x, timestep, context, attention_mask, frame_mask, clip, given, transformer_options
        )

    def _forward(self, x, timestep, context, attention_mask, frame_mask, clip, given, transformer_options, **kwargs):
        C = x.shape[1]
        self.call.options = transformer_options
        try:
            frame_mask = None if frame_mask is None else frame_mask != 0
            out = self.pieces.run(self, x, timestep.float(), context, attention_mask, frame_mask, clip, **given)
        finally:
            self.call.options = {}
        if transformer_options.get(VARIANCE) is not None and out.shape[1] > C:
            self.variance = out[:, C:]
        out = out[:, :C].float()
        return -out if self.prediction == "flow" else out

    def run_block(self, index: int, block: Callable, x: Tensor, caption: Tensor | list[Tensor], t: Tensor) -> Tensor:
        """The block, or what users' patches put in its place: those of "double_block" `index` for DiTs.

        They see tokens [B, N, C] as `img`, the projected caption as `txt` (in 1.3 a list, by groups of frames) and the
        modulation [B, T or 1, 6, C] as `vec`.
        """
        options = self.call.options
        if not any(options.get(name) for name in LOOK_AT_BLOCKS):
            return block(x, caption, t)
        options.update(
            block=("double_block", index), block_index=index, block_type="double", total_blocks=self.config.depth
        )
        grid = x.shape[1:3]

        def original(args):
            return {"img": block(args["img"].unflatten(1, grid), args["txt"], args["vec"]).flatten(1, 2)}

        replacement = (options.get("patches_replace") or {}).get("dit", {}).get(("double_block", index))
        if replacement is None:
            return block(x, caption, t)
        args = {"img": x.flatten(1, 2), "txt": caption, "vec": t, "transformer_options": options}
        return replacement(args, {"original_block": original})["img"].unflatten(1, grid)


class Variance:
    """Carries the variance half of a network's output to the sampler that asked for it, past ComfyUI's guidance.

    The conditional half's counts, as in the original. What a skipped call (EasyCache) leaves out stays as it was.
    """

    def __init__(self, shape: torch.Size, device: torch.device) -> None:
        self.value = torch.full(shape, -1.0, device=device)  # the smallest variance, should none ever come
        self.started = False

    def start(self) -> None:
        """Before each step: several conditional calls of one step (prompts side by side, windows) are averaged."""
        self.started = False

    def take(self, variance: Tensor, transformer_options: dict) -> None:
        """variance [n · B, C, T, h, w] of a call; its n parts belong to the prompts `cond_or_uncond` (0: positive)."""
        window = transformer_options.get("context_window")
        frames = slice(None) if window is None or window.dim != TIME else list(window.index_list)
        parts = transformer_options.get("cond_or_uncond") or [0]
        if window is not None and has_anchor(window):
            variance = variance[:, :, 1:]
        for part, which in zip(variance.float().chunk(len(parts)), parts):
            if which != 0 or part.shape[3:] != self.value.shape[3:]:  # an area of the picture says nothing of the rest
                continue
            if not self.started:
                self.total, self.count, self.started = torch.zeros_like(self.value), torch.zeros_like(self.value), True
            self.total[:, :, frames] += part.to(self.total.device)
            self.count[:, :, frames] += 1
            self.value = torch.where(self.count > 0, self.total / self.count.clamp(min=1), self.value)


@functools.cache
def hosted(network: type[VideoTransformer]) -> type[Hosted]:
    """A class of model/'s transformers as a ComfyUI diffusion model."""
    return type(f"Hosted{network.__name__}", (Hosted, network), {"__doc__": f"{network.__name__} inside ComfyUI."})
