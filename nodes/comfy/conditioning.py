"""The learned null caption as CONDITIONING: what "no prompt" means to these models."""

from .sampling import base_model_of


def null_conditioning(model, positive):
    """CONDITIONING for the unconditional half of guidance.

    The checkpoint's null caption [1, L, C] takes the place of every caption in `positive`, whose attention mask (and
    anything else an entry carries) stays: the null half reads as many tokens as the prompt has.

    Raises ValueError where `model` is no Open-Sora model or `positive` is longer than its null caption.
    """
    null = base_model_of(model).diffusion_model.null_caption
    entries = []
    for caption, extra in positive:
        length = caption.shape[1]
        if length > null.shape[0]:
            raise ValueError(
                f"positive has {length} tokens, this model takes at most {null.shape[0]}; connect the model to "
                "Open-Sora Text Encode too, so that it pads prompts to the right length"
            )
        rows = null[:length].to(device=caption.device, dtype=caption.dtype)
        entries.append([rows.unsqueeze(0).repeat(caption.shape[0], 1, 1), dict(extra)])
    return entries
