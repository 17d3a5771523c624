"""What belongs to a template and is made from it: its app, and its moving card from the video of a run.

In the prepared environment (Pillow, PyAV), in the repository's folder:
    python -m runner.templates                       writes workflows/NAME.app.json for every template of the tiny model
    python -m runner.templates NAME VIDEO            draws workflows/NAME.jpg and NAME.app.jpg from a video of its run
"""

import json
import sys
from pathlib import Path

import av
from PIL import Image as pil
from PIL import ImageDraw, ImageFont
from PIL.Image import Image

WORKFLOWS = Path(__file__).resolve().parent.parent / "workflows"
INPUTS = WORKFLOWS / "inputs"
OFFICIAL = "(official files)"
# What an app shows of each kind of node, from top to bottom; a drawing's height in pixels.
SHOWN = (
    ("LoadImage", "image", {}),
    ("LoadVideo", "file", {}),
    ("OpenSoraTimeline", "timeline", {"height": 480}),
    ("OpenSoraPrepareClips", "folder", {}),
    ("OpenSoraPrepareClips", "captions", {"height": 80}),
    ("OpenSoraFilterClips", "min_motion", {}),
    ("OpenSoraFilterClips", "min_sharpness", {}),
    ("OpenSoraDataset", "folder", {}),
    ("OpenSoraTrain", "name", {}),
    ("OpenSoraTrain", "branches", {}),
    ("OpenSoraTrain", "steps", {}),
    ("OpenSoraTextEncode", "prompt", {"height": 120}),
    ("OpenSoraSampler", "seed", {}),
    ("OpenSoraExtend", "seed", {}),
    ("OpenSoraConnect", "seed", {}),
    ("OpenSoraLoop", "seed", {}),
)
CARD, CLIP, EDGE, STRIP, APP = 384, 288, 16, 44, 240
PAPER, QUIET, GIVEN, NOW, PALE = (24, 26, 29), (62, 66, 72), (54, 178, 164), (240, 170, 70), (230, 232, 235)
# What the card says where there is nothing to show but words.
WORDS = {
    "1": "an orange triangle moves to the right", "8": "a blue circle", "9": "before, and with the LoRA",
    "10": "from footage, by a LoRA",
}  # fmt: skip
# Where in the clip the card marks what the artist gave: (file, place as a part of the clip), or (from, to) of a clip.
MARKS = {
    "2": [("opensora_first_frame.png", 0)],
    "3": [("opensora_first_frame.png", 0), ("opensora_last_frame.png", 1)],
    "4": [("opensora_first_frame.png", 0), ("opensora_middle_frame.png", 0.5), ("opensora_last_frame.png", 1)],
    "5": [(0, 1 / 2)],
    "6": [(0, 1 / 3), (2 / 3, 1)],
    "7": [(0, 1 / 2)],
}


def templates() -> list[Path]:
    """The templates of the tiny model, in their order."""
    names = [path for path in WORKFLOWS.glob("*.json") if OFFICIAL not in path.name]
    return sorted(
        (path for path in names if not path.name.endswith(".app.json")), key=lambda path: int(number_of(path))
    )


def number_of(path: Path) -> str:
    """The number that a template's name begins with."""
    return path.stem.split(" ")[0]


def app_of(workflow: dict) -> dict:
    """The same graph as an app: what it shows of the nodes, and the saved video as its result."""
    extra = workflow["extra"] | {"linearMode": True, "linearData": {"inputs": [], "outputs": []}}
    for kind, widget, looks in SHOWN:
        for node in workflow["nodes"]:
            if node["type"] == kind:
                extra["linearData"]["inputs"].append([node["id"], widget, *([looks] if looks else [])])
    extra["linearData"]["outputs"] = [node["id"] for node in workflow["nodes"] if node["type"] == "SaveVideo"]
    return workflow | {"extra": extra}


def write_apps() -> None:
    """Write NAME.app.json beside every template of the tiny model, in the form of the template."""
    for path in templates():
        app = app_of(json.loads(path.read_text(encoding="utf-8")))
        text = json.dumps(app, indent=1, ensure_ascii=False) + "\n"
        path.with_suffix(".app.json").write_text(text, encoding="utf-8")


def draw_cards(name: str, video: str) -> None:
    """Write the card of the template (the clip over its timeline) and of its app (the clip alone) as moving WebP."""
    frames = frames_of(video)
    given = frames_of(INPUTS / "opensora_clip.mp4") if name.split(" ")[0] == "8" else None
    if name.split(" ")[0] == "9":  # both stand side by side in the video
        given, frames = zip(*(halves(frame) for frame in frames))
    cards = [card(name, frames, i, given) for i in range(len(frames))]
    write(cards, WORKFLOWS / f"{name}.jpg")
    write([frame.resize((APP, APP), 1) for frame in frames], WORKFLOWS / f"{name}.app.jpg")


def halves(picture: Image) -> tuple[Image, Image]:
    """The squares at the left and the right end of a picture."""
    side = picture.height
    return picture.crop((0, 0, side, side)), picture.crop((picture.width - side, 0, picture.width, side))


def write(pictures: list[Image], path: Path) -> None:
    """A WebP that moves and repeats; browsers go by what it is, not its name. The last picture fades to the first."""
    fade = [pil.blend(pictures[-1], pictures[0], part / 5) for part in range(1, 5)]
    durations = [80] * (len(pictures) - 1) + [400] + [60] * 4
    durations[0] = 300
    options = {"save_all": True, "append_images": [*pictures[1:], *fade], "duration": durations, "loop": 0}
    pictures[0].save(path, "WEBP", quality=64, method=6, **options)


def card(name: str, frames: list[Image], index: int, given: list[Image] | None) -> Image:
    """One picture of the card: the clip, and under it where it is and what was given."""
    number, picture = name.split(" ")[0], pil.new("RGB", (CARD, CARD), PAPER)
    draw = ImageDraw.Draw(picture)
    if given:
        side = (CARD - 3 * EDGE) // 2
        high = (CARD - STRIP - EDGE - side) // 2
        picture.paste(given[index].resize((side, side), 1), (EDGE, high))
        picture.paste(frames[index].resize((side, side), 1), (2 * EDGE + side, high))
    else:
        picture.paste(frames[index].resize((CLIP, CLIP), 1), ((CARD - CLIP) // 2, EDGE))
    top, last = CARD - EDGE - STRIP, len(frames) - 1
    left, width = EDGE, CARD - 2 * EDGE
    draw.rounded_rectangle((left, top, left + width, top + STRIP), 6, fill=QUIET)
    if number in WORDS:
        draw.text((CARD // 2, top + STRIP // 2), WORDS[number], PALE, ImageFont.load_default(17), "mm")
    for what, place in MARKS.get(number, []):
        if isinstance(what, str):
            x = left + round(place * (width - STRIP))
            draw.rounded_rectangle((x, top, x + STRIP, top + STRIP), 6, fill=GIVEN)
            picture.paste(pil.open(INPUTS / what).convert("RGB").resize((STRIP - 8, STRIP - 8), 1), (x + 4, top + 4))
        else:
            draw.rounded_rectangle((left + what * width, top, left + place * width, top + STRIP), 6, fill=GIVEN)
            begin, end = round(what * last), round(place * last)
            for part in range(count := max(1, round((place - what) * width / (STRIP + 6)))):
                small = frames[begin + (end - begin) * part // count].resize((STRIP - 8, STRIP - 8), 1)
                picture.paste(small, (round(left + what * width) + 4 + part * (STRIP + 6), top + 4))
    x = left + round(width * index / last)
    draw.rectangle((x - 1, top - 6, x + 1, top + STRIP + 6), fill=NOW)
    draw.polygon([(x - 6, top - 12), (x + 6, top - 12), (x, top - 4)], fill=NOW)
    return picture


def frames_of(video: str | Path) -> list[Image]:
    """The pictures of a video file."""
    with av.open(str(video)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


if __name__ == "__main__":
    draw_cards(*sys.argv[1:]) if len(sys.argv) > 1 else write_apps()
