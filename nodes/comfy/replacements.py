"""Nodes of two other Open-Sora packs, for which a ComfyUI that can do so puts ours where those are not installed.

Only nodes that one of ours stands for: docs/old-workflows.md has the others. The page's own translation of whole
workflows is web/old_workflows.js.
"""

import logging

from .versions import node_replacement

# Their node: ours, the widgets of theirs as workflows count them, inputs of ours from theirs, values of ours,
# and the outputs of theirs that ours has, in order.
REPLACEMENTS = {
    "OpenSoraDecoder": ("OpenSoraVAEDecode", ["dtype"], {"vae": "vae", "samples": "latents"}, {}, [0]),
    "OpenSoraRun": ("OpenSoraVAEDecode", ["dtype"], {"vae": "vae", "samples": "samples"}, {}, [0]),
    "OpenSoraEncoder": ("OpenSoraVAEEncode", ["dtype"], {"vae": "vae", "pixels": "image"}, {"fps": 24.0}, [0]),
    "OpenSoraTextEncoder": (
        "OpenSoraTextEncode",
        [
            "positive_prompt", "negative_prompt", "camera_motion", "enable_motion_strength", "motion_strength",
            "enable_aesthetic_score", "aesthetic_score",
        ],
        {"clip": "text_encoder", "prompt": "positive_prompt", "camera_motion": "camera_motion"},
        # Theirs count only where they are switched on, which a mapping cannot ask.
        {"aesthetic_score": 0.0, "motion_score": 0.0, "clean_caption": True},
        [0],
    ),
}  # fmt: skip


async def offer_replacements() -> None:
    """Tell ComfyUI of REPLACEMENTS, where it knows replacements."""
    found = node_replacement()
    if found is None:
        return
    register, replacement = found
    try:
        for theirs, (ours, widgets, inputs, values, outputs) in REPLACEMENTS.items():
            mapping = [{"new_id": new, "old_id": old} for new, old in inputs.items()]
            mapping += [{"new_id": new, "set_value": value} for new, value in values.items()]
            await register(
                replacement(
                    new_node_id=ours,
                    old_node_id=theirs,
                    old_widget_ids=widgets,
                    input_mapping=mapping,
                    output_mapping=[{"new_idx": new, "old_idx": old} for new, old in enumerate(outputs)],
                )
            )
    except Exception as error:  # whatever this young interface will be: our nodes come first
        logging.warning("Open-Sora: nodes of other packs cannot be replaced in this ComfyUI: %s", error)
