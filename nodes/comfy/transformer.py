"""The transformer as ComfyUI calls it: its arguments, its attention, its wrappers, its direction of the velocity."""

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers

from ...model.stdit3 import STDiT3


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


class OpenSoraTransformer(STDiT3):
    """STDiT3 behind the signature of a ComfyUI diffusion model.

    Built on the meta device: the loader puts the weights in place, so none is ever allocated twice.
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
        fps=None,
        height=None,
        width=None,
        transformer_options=None,
        **kwargs,
    ):
        """Velocity in ComfyUI's direction (noise minus data), [B, C, T, H, W].

        x [B, C, T, H, W]; timestep [B], or [B, T] where a kept frame's is 0; context [B, L, caption_channels];
        attention_mask [B, L]; fps, height and width are numbers, the same for the whole batch.
        """
        transformer_options = transformer_options or {}
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, transformer_options)
        return WrapperExecutor.new_class_executor(self._forward, self, wrappers).execute(
            x, timestep, context, attention_mask, fps, height, width, transformer_options, **kwargs
        )

    def _forward(self, x, timestep, context, attention_mask, fps, height, width, transformer_options, **kwargs):
        B, C, T = x.shape[:3]
        frame_mask = None
        if timestep.ndim == 2:
            if timestep.shape[1] != T:  # a context window: the mask still covers the whole clip
                timestep = timestep[:, transformer_options["context_window"].index_list]
            frame_mask = timestep > 0
            timestep = timestep.amax(dim=1)

        def row(value):
            return None if value is None else torch.full((B,), value, dtype=torch.float32, device=x.device)

        self.host_attention.transformer_options = transformer_options
        try:
            velocity = self.run(
                x, timestep.float(), context, attention_mask, frame_mask, row(fps), row(height), row(width)
            )
        finally:
            self.host_attention.transformer_options = {}
        return -velocity[:, :C].float()
