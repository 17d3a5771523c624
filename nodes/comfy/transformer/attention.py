"""Attention by ComfyUI's backends, and what users' patches of attention are given and give back."""

import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor


class Call:
    """The transformer options of the call that is running, which all attentions of a network look up."""

    def __init__(self) -> None:
        self.options = {}
        self._masks = (None, None, None)

    def additive(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """A bool mask as what is added to scores: every backend adds it, some cannot take a bool one. Made once."""
        if torch.compiler.is_compiling():  # which would compile anew for what is kept here
            return _additive(mask, dtype)
        given, of, made = self._masks
        if given is not mask or of != dtype:
            made = _additive(mask, dtype)
            self._masks = (mask, dtype, made)
        return made


def _additive(mask, dtype):
    made = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return made.masked_fill_(~mask, torch.finfo(dtype).min)


class HostAttention:
    """Attention by whichever backend the user chose for ComfyUI, between the patches that sit on it.

    `name` is ComfyUI's: attn1 for self-attention, attn2 for cross-attention.
    """

    def __init__(self, name: str, call: Call) -> None:
        self.name, self.call = name, call

    @property
    def patched(self) -> bool:
        """Whether users' patches look at this attention; they are to see all of it at once."""
        return bool(self.call.options.get("patches") or self.call.options.get("optimized_attention_override"))

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """q, k, v [B, heads, N, head_dim]; mask bool, broadcasts to [B, heads, N, M], True where a query may attend."""
        heads, options = q.shape[1], self.call.options
        patches = options.get("patches") or {}
        if mask is not None:
            mask = self.call.additive(mask, q.dtype)
        extra = {**options, "n_heads": heads, "dim_head": q.shape[-1]} if patches else None
        for patch in patches.get(f"{self.name}_patch", ()):
            changed = _inputs(patch, q, k, v, mask, extra)
            q, k, v = (changed.get(name, own) for name, own in (("q", q), ("k", k), ("v", v)))
            mask = changed.get("attn_mask", mask)
        out = optimized_attention(
            q, k, v, heads, mask=mask, skip_reshape=True, skip_output_reshape=True, transformer_options=options
        )
        if out.ndim == 3:  # the path for very large batches ignores skip_output_reshape
            out = _split(out, heads)
        output_patches = self._output_patches(patches)
        if output_patches:
            out = out.transpose(1, 2).flatten(2)
            for patch in output_patches:
                out = patch(out, extra)
            out = _split(out, heads)
        return out

    def _output_patches(self, patches):
        """Those that sit here, but normalised attention guidance where the text enters.

        ComfyUI's node for it knows attn1 alone: in models that attend to text and video together that is the place.
        """
        own, of_self = (patches.get(f"{name}_output_patch", ()) for name in (self.name, "attn1"))
        if self.name == "attn1":
            return [patch for patch in own if not _is_nag(patch)]
        return [*own, *filter(_is_nag, of_self)]


def _is_nag(patch):
    return getattr(patch, "__name__", "").startswith("nag")


def _inputs(patch, q, k, v, mask, extra):
    """What a patch makes of an attention's inputs, called as ComfyUI's own DiTs call it: some of q, k, v, attn_mask."""
    try:
        return patch(q, k, v, pe=None, attn_mask=mask, extra_options=extra)
    except TypeError as error:
        raise ValueError(
            f"model carries the attention patch {getattr(patch, '__qualname__', patch)}, which does not run on "
            f"Open-Sora ({error}); it may be made for UNets such as SDXL: leave its node out"
        ) from error


def _split(out, heads):
    """[B, N, heads · head_dim] to [B, heads, N, head_dim]."""
    return out.unflatten(-1, (heads, -1)).transpose(1, 2)
