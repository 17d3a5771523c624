"""Workflows in the form that two other Open-Sora packs gave them, small: their nodes, inputs and places of values."""

TINY = "tiny (bundled)"


def workflow(nodes, links):
    """A page workflow: nodes are (id, type, inputs, outputs, values), links (id, from, slot, to, slot, type)."""
    made = []
    for number, kind, inputs, outputs, values in nodes:
        entries = [
            {
                "name": name,
                "type": type_,
                "link": next((link[0] for link in links if link[3:5] == (number, slot)), None),
            }
            | ({"widget": {"name": name}} if type_ in ("INT", "FLOAT") else {})
            for slot, (name, type_) in enumerate(inputs)
        ]
        leaving = [
            {"name": name, "type": type_, "links": [link[0] for link in links if link[1:3] == (number, slot)]}
            for slot, (name, type_) in enumerate(outputs)
        ]
        made.append({
            "id": number, "type": kind, "pos": [40 * number, 30 * number], "size": {"0": 300, "1": 100}, "flags": {},
            "order": number, "mode": 0, "inputs": entries, "outputs": leaving, "properties": {},
            "widgets_values": values,
        })  # fmt: skip
    return {"nodes": made, "links": [list(link) for link in links], "groups": [], "config": {}, "extra": {},
            "version": 0.4, "last_node_id": 90, "last_link_id": 90}  # fmt: skip


SAVE = (9, "SaveImage", [("images", "IMAGE")], [], ["old"])
PIPE = [("pipe", "PIPE"), ("steps", "INT"), ("guidance", "FLOAT"), ("text_encoder", "CLIP"), ("vae", "VAE"),
        ("num_frames", "INT"), ("width", "INT"), ("height", "INT"), ("fps", "FLOAT")]  # fmt: skip
# The pack with a PIPE, image to video, 1.2.
WITH_PIPE = workflow(
    [
        (1, "OpenSoraLoader", [], PIPE, ["opensora-v1-2/inference/sample.py", "4s", "480p", "9:16", TINY, TINY, TINY]),
        (2, "OpenSoraTextEncoder", [("text_encoder", "CLIP")],
         [("positive", "CONDITIONING"), ("negative", "CONDITIONING")],
         ["a red disc moves to the right", "a square", "zoom out", "enabled", 20, "disabled", 6.5]),
        (3, "EmptyImage", [], [("IMAGE", "IMAGE")], [64, 64, 1, 0xFF0000]),
        (4, "ImageScale", [("image", "IMAGE"), ("width", "INT"), ("height", "INT")], [("IMAGE", "IMAGE")],
         ["nearest-exact", 512, 512, "center"]),
        (5, "OpenSoraEncoder", [("vae", "VAE"), ("image", "IMAGE")], [("latent", "LATENT")], ["fp16"]),
        (6, "OpenSoraSampler",
         [("pipe", "PIPE"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING"), ("reference", "LATENT"),
          ("steps", "INT"), ("guidance", "FLOAT")],
         [("samples", "LATENT")], [771, "fixed", "fp16", 100, 4.5]),
        (7, "OpenSoraDecoder", [("vae", "VAE"), ("latents", "LATENT")], [("images", "IMAGE")], ["fp16"]),
        SAVE,
    ],
    [
        (1, 1, 0, 6, 0, "PIPE"), (2, 1, 3, 2, 0, "CLIP"),
        (3, 2, 0, 6, 1, "CONDITIONING"), (4, 2, 1, 6, 2, "CONDITIONING"),
        (5, 3, 0, 4, 0, "IMAGE"), (6, 1, 6, 4, 1, "INT"), (7, 1, 7, 4, 2, "INT"), (8, 4, 0, 5, 1, "IMAGE"),
        (9, 1, 4, 5, 0, "VAE"), (10, 5, 0, 6, 3, "LATENT"), (11, 1, 1, 6, 4, "INT"), (12, 1, 4, 7, 0, "VAE"),
        (13, 6, 0, 7, 1, "LATENT"), (14, 7, 0, 9, 0, "IMAGE"),
    ],
)  # fmt: skip
# The pack with a SCHEDULER, Open-Sora 1.0.
WITH_SCHEDULER = workflow(
    [
        (1, "OpenSoraLoader", [],
         [("model", "MODEL"), ("text_encoder", "CLIP"), ("vae", "VAE"), ("scheduler", "SCHEDULER")],
         ["OpenSora-v1-HQ-16x512x512.pth", "16x512x512.py", 16, 512, 512, "fp16", 60]),
        (2, "OpenSoraSampler",
         [("model", "MODEL"), ("text_encoder", "CLIP"), ("vae", "VAE"), ("scheduler", "SCHEDULER")],
         [("samples", "LATENT")], ["a cat", "fp16", 42, "fixed", 16, 256, 512]),
        (3, "OpenSoraRun", [("vae", "VAE"), ("samples", "LATENT")], [("IMAGE", "IMAGE")], ["fp16"]),
        SAVE,
    ],
    [
        (1, 1, 0, 2, 0, "MODEL"), (2, 1, 1, 2, 1, "CLIP"), (3, 1, 2, 2, 2, "VAE"), (4, 1, 3, 2, 3, "SCHEDULER"),
        (5, 1, 2, 3, 0, "VAE"), (6, 2, 0, 3, 1, "LATENT"), (7, 3, 0, 9, 0, "IMAGE"),
    ],
)  # fmt: skip
