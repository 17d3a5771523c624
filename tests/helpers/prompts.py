"""Prompts in the server's own form, of the bundled model, for the tests that queue graphs of their own."""

BUNDLED = "tiny (bundled)"


def text_to_latent(prompt, frames):
    """The nodes "model", "clip", "vae", "text" and "empty" (64 x 64, 24 frames a second): name -> (class, inputs)."""
    words = {"aesthetic_score": 0.0, "motion_score": 0.0, "camera_motion": "none", "clean_caption": True}
    size = {"resolution": "auto", "aspect_ratio": "auto", "width": 64, "height": 64, "batch_size": 1}
    return {
        "model": ("OpenSoraLoadModel", {"model_name": BUNDLED, "weight_dtype": "auto"}),
        "clip": ("OpenSoraLoadTextEncoder", {"text_encoder_name": BUNDLED, "device": "default"}),
        "vae": ("OpenSoraLoadVAE", {"vae_name": BUNDLED}),
        "text": ("OpenSoraTextEncode", {"clip": ["clip", 0], "prompt": prompt, **words}),
        "empty": ("OpenSoraEmptyLatent", {"vae": ["vae", 0], "frames": frames, "fps": 24.0, **size}),
    }


def shown(source):
    """The nodes "decode" and "show", which preview what node `source` makes."""
    return {
        "decode": ("OpenSoraVAEDecode", {"vae": ["vae", 0], "samples": [source, 0]}),
        "show": ("PreviewImage", {"images": ["decode", 0]}),
    }


def as_prompt(nodes):
    """What the server's /prompt takes."""
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}
