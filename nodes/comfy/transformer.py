"""The transformer as ComfyUI calls it: its arguments, its attention, its wrappers, its direction of the prediction."""

import functools

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers

VARIANCE = "opensora_variance"  # the transformer option under which a sampler asks for the variance half


class HostAttention:
    """Attention by whichever backend the user chose for ComfyUI; knows the options of the call that is running."""

    def __init__(self):
        self.transformer_options = {}

    def __call__(self, q, k, v, mask=None):
        """q, k, v [B, heads, N, head_dim]; mask bool, broadcasts to [B, heads, N, M], True where a query may attend."""
        heads = q.shape[1]
        if mask is not None:  # every backend adds its mask to the scores, some cannot take a bool one
            mask = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill_(~mask, torch.finfo(q.dtype).min)
        out = optimized_attention(
            q, k, v, heads, mask=mask, skip_reshape=True, skip_output_reshape=True,
            transformer_options=self.transformer_options,
        )  # fmt: skip
        if out.ndim == 3:  # the path for very large batches ignores skip_output_reshape
            out = out.unflatten(-1, (heads, -1)).transpose(1, 2)
        return out


class Hosted:
    """The half of a hosted transformer that knows ComfyUI; `hosted` joins it with a family of model/.

    Built on the meta device: the loader puts the weights in place, so none is ever allocated twice. The family's
    modules keep their names, so a LoRA's keys are those of the checkpoint.
    """

    def __init__(self, sizes, dtype=None, device=None, operations=None):
        host_attention = HostAttention()
        with torch.device("meta"):
            super().__init__(sizes, operations=operations, attention=host_attention, dtype=dtype)
        self.host_attention = host_attention
        self.dtype = dtype

    def forward(
        self,
        x,
        timestep,
        context,
        attention_mask=None,
        frame_mask=None,
        fps=None,
        height=None,
        width=None,
        num_frames=None,
        transformer_options=None,
        condition=None,
        condition_mask=None,
        condition_frames=None,
        **kwargs,
    ):
        """What ComfyUI's sampling expects of x, [B, C, T, H, W]: noise minus data for flow, the noise for epsilon.

        x [B, C, T, H, W]; timestep [B]; context [B, L, caption_channels]; attention_mask [B, L]; frame_mask [B, T],
        not 0 where a frame is told the timestep; fps, height, width and num_frames are numbers, the same for the whole
        batch; the condition of Open-Sora 1.3 as its network takes it.
        """
        transformer_options = transformer_options or {}
        given = {"condition": condition, "condition_mask": condition_mask, "condition_frames": condition_frames}
        given = {} if condition is None else given  # the other families take none
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, transformer_options)
        return WrapperExecutor.new_class_executor(self._forward, self, wrappers).execute(
            x, timestep, context, attention_mask, frame_mask, fps, height, width, num_frames, given, transformer_options
        )

    def _forward(
        self, x, timestep, context, attention_mask, frame_mask, fps, height, width, num_frames, given,
        transformer_options, **kwargs,
    ):  # fmt: skip
        B, C, T = x.shape[:3]
        window = transformer_options.get("context_window")
        if window is not None:  # masks and conditions may still cover the whole clip
            frame_mask, given = _in_window(frame_mask, given, T, window.index_list)

        def row(value):
            return None if value is None else torch.full((B,), value, dtype=torch.float32, device=x.device)

        self.host_attention.transformer_options = transformer_options
        try:
            out = self.run(
                x,
                timestep.float(),
                context,
                caption_mask=attention_mask,
                frame_mask=None if frame_mask is None else frame_mask != 0,
                fps=row(fps),
                height=row(height),
                width=row(width),
                num_frames=row(num_frames),
                **given,
            )
        finally:
            self.host_attention.transformer_options = {}
        variance = transformer_options.get(VARIANCE)
        if variance is not None and out.shape[1] > C:
            variance.take(out[:, C:], transformer_options)
        out = out[:, :C].float()
        return -out if self.prediction == "flow" else out


def _in_window(frame_mask, given, length, frames):
    """The part of a frame mask and of a condition that belongs to the latent `frames` of a context window."""
    if frame_mask is not None and frame_mask.shape[1] != length:
        frame_mask = frame_mask[:, frames]
    if given:
        kept = given["condition_frames"]
        given = {
            **{
                name: value if value.shape[2] == length else value[:, :, frames]
                for name, value in given.items()
                if name != "condition_frames"
            },
            "condition_frames": [index for index, frame in enumerate(frames) if frame in kept],
        }
    return frame_mask, given


class Variance:
    """Carries the variance half of a network's output to the sampler that asked for it, past ComfyUI's guidance.

    The conditional half's counts, as in the original. What a skipped call (EasyCache) leaves out stays as it was.
    """

    def __init__(self, shape, device):
        self.value = torch.full(shape, -1.0, device=device)  # the smallest variance, should none ever come
        self.started = False

    def start(self):
        """Before each step: several conditional calls of one step (prompts side by side, windows) are averaged."""
        self.started = False

    def take(self, variance, transformer_options):
        """variance [n · B, C, T, h, w] of one call, whose n parts belong to the prompts `cond_or_uncond` (0: positive)."""
        window = transformer_options.get("context_window")
        frames = slice(None) if window is None else list(window.index_list)
        parts = transformer_options.get("cond_or_uncond") or [0]
        for part, which in zip(variance.float().chunk(len(parts)), parts):
            if which != 0 or part.shape[3:] != self.value.shape[3:]:  # an area of the picture says nothing of the rest
                continue
            if not self.started:
                self.total, self.count, self.started = torch.zeros_like(self.value), torch.zeros_like(self.value), True
            self.total[:, :, frames] += part
            self.count[:, :, frames] += 1
            self.value = torch.where(self.count > 0, self.total / self.count.clamp(min=1), self.value)


@functools.cache
def hosted(family):
    """The class of `family`'s transformers (a class of model/) as a ComfyUI diffusion model."""
    return type(f"Hosted{family.__name__}", (Hosted, family), {"__doc__": f"{family.__name__} inside ComfyUI."})
