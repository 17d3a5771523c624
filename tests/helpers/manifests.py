"""Rows of a manifest for tests, with files behind them or without."""

import random

import numpy
from videos import LEVEL, video

CAPTIONS = [
    "A beach at sunset.",
    "A dog runs.",
    None,
    '</script><script>window.evil = 1</script> "quoted" & <b>bold</b>',
]


def shot(path="clip.mp4", number=0, start=0, frames=50, **values):
    """A row of a shot that is kept, unless told otherwise."""
    return {
        "path": path, "text": "A dog runs.", "num_frames": frames, "height": 48, "width": 64, "aspect_ratio": 0.75,
        "resolution": 3072, "fps": 25.0, "shot": number, "start": start, "kept": True, "reason": "", **values,
    }  # fmt: skip


def left_out(path="broken.mp4", reason="it breaks off after 12 of 30 frames; export it again"):
    """A row of a file that gave no shot."""
    return {"path": path, "shot": -1, "kept": False, "reason": f"{path}: {reason}"}


def many(count, seed=0, files=20):
    """Rows of shots with scores by chance: some left out, some without a score, some pictures."""
    draw = random.Random(seed)
    rows, ends = [], {}
    for number in range(count):
        path = f"clips/clip {number % files}.mp4"
        frames = 1 if number % 11 == 10 else draw.randint(10, 200)
        start, place = ends.get(path, (0, 0))
        ends[path] = start + frames, place + 1
        about = {
            "flow_dis": None if frames == 1 else draw.lognormvariate(0.8, 1),
            "aes": draw.gauss(5.2, 0.7),
            "sharpness": None if number % 17 == 5 else draw.random(),
            "ocr": draw.choice([0, 0, 0, 1, 4]),
            "cmotion": None if frames == 1 else draw.choice(["static", "pan left", "zoom in"]),
            "duplicate_of": "" if number % 13 else "clips/clip 1.mp4#0",
            "text": CAPTIONS[number % len(CAPTIONS)],
        }
        rows.append(shot(path, place, start, frames, **about))
        if number % 9 == 3:
            rows[-1] |= {"kept": False, "reason": f"it lasts {frames / 25:.2f} s; the least is 2 s"}
    return rows


def footage(folder):
    """Rows of two videos of numbered frames in `folder`, one of three shots, one of one, and of a file that is broken."""
    video(folder / "long.mp4", 40)
    video(folder / "short.mp4", 12, height=64, width=36)
    scores = [(0.3, 0.9), (4.5, 0.2), (2.0, 0.5), (9.0, 0.7)]
    places = [("long.mp4", 0, 0, 10), ("long.mp4", 1, 10, 25), ("long.mp4", 2, 35, 5), ("short.mp4", 0, 0, 12)]
    rows = [
        shot(path, number, start, frames, flow_dis=flow, sharpness=sharp, duplicate_of="")
        for (path, number, start, frames), (flow, sharp) in zip(places, scores)
    ]
    rows[2] |= {"kept": False, "reason": "it lasts 0.2 s; the least is 2 s"}
    rows[3] |= {"height": 64, "width": 36}
    return [*rows, left_out()]


def told(image):
    """The number of the frame of `footage` that a small picture shows."""
    pixels = numpy.asarray(image, float)
    return round((pixels[-4:, -4:].mean() - 10) / LEVEL)
