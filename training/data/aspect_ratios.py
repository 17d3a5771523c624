"""The frame sizes that Open-Sora is trained on: by resolution, one for each ratio of height to width.

The tables are the original's (https://github.com/hpcaitech/Open-Sora, datasets/aspect.py): those of videos, which
`model.sizes` has by their names, and PixArt's of images. The original writes ratios as text, and that text names a
bucket; 1.3 writes PixArt's with two digits, the others as Python does.
"""

import difflib
import functools

from ...model.sizes import SIZES

VIDEO_RATIOS = "0.38 0.43 0.48 0.50 0.53 0.54 0.56 0.62 0.67 0.75 1.00 1.33 1.50 1.78 1.89 2.00 2.08".split()
LARGE = {
    "2k": (
        "1176x3136 1256x2930 1330x2770 1358x2716 1398x2640 1412x2612 1440x2560 1518x2428 1568x2352 "
        "1662x2216 1920x1920 2218x1664 2352x1568 2560x1440 2638x1396 2716x1358 2772x1330"
    ),
    "4k": (
        "1764x4704 1886x4400 1996x4158 2036x4072 2096x3960 2118x3918 2160x3840 2276x3642 2352x3528 "
        "2494x3326 2880x2880 3326x2494 3528x2352 3840x2160 3958x2096 4072x2036 4156x1994"
    ),
}
# PixArt's sizes at 256 pixels; at 512, 1024 and 2048 they are multiples of these.
PIXART_RATIOS = (
    "0.25 0.26 0.27 0.28 0.32 0.33 0.35 0.40 0.42 0.48 0.50 0.52 0.57 0.60 0.68 0.72 0.78 0.82 0.88 0.94 "
    "1.00 1.07 1.13 1.21 1.29 1.38 1.46 1.67 1.75 2.00 2.09 2.40 2.50 2.89 3.00 3.11 3.62 3.75 3.88 4.00"
).split()
PIXART_SIZES = (
    "128x512 128x496 128x480 128x464 144x448 144x432 144x416 160x400 160x384 176x368 176x352 176x336 192x336 192x320 "
    "208x304 208x288 224x288 224x272 240x272 240x256 256x256 256x240 272x240 272x224 288x224 288x208 304x208 320x192 "
    "336x192 352x176 368x176 384x160 400x160 416x144 432x144 448x144 464x128 480x128 496x128 512x128"
)
PIXART_2880_RATIOS = (
    "0.25 0.26 0.27 0.28 0.32 0.33 0.34 0.40 0.42 0.47 0.49 0.51 0.55 0.59 0.68 0.72 0.78 0.83 0.89 0.93 "
    "1.00 1.07 1.12 1.21 1.28 1.39 1.47 1.70 1.82 2.03 2.13 2.39 2.50 2.92 3.00 3.12 3.68 3.82 3.95 4.00"
).split()
PIXART_2880_SIZES = (
    "1408x5760 1408x5568 1408x5376 1408x5184 1600x4992 1600x4800 1600x4672 1792x4480 1792x4288 1920x4096 "
    "1920x3904 1920x3776 2112x3840 2112x3584 2304x3392 2304x3200 2496x3200 2496x3008 2688x3008 2688x2880 "
    "2880x2880 2880x2688 3008x2688 3008x2496 3200x2496 3200x2304 3392x2304 3584x2112 3840x2112 3904x1920 "
    "4096x1920 4288x1792 4480x1792 4672x1600 4800x1600 4992x1600 5184x1408 5376x1408 5568x1408 5760x1408"
)
MULTIPLES = {"256": 1, "512": 2, "1024": 4, "2048": 8}
RESOLUTIONS = (*SIZES, *LARGE, *MULTIPLES, "2880")
VERSIONS = ("1.1", "1.2", "1.3")
SINCE_1_2 = ("2k", "2048", "2880")
MULTIPLE_OF_16 = "_16d"  # behind the name of a resolution, in 1.3: sizes rounded down to multiples of 16


@functools.cache
def sizes(resolution: str, version: str = "1.2") -> dict[str, tuple[int, int]]:
    """{ratio as text: (height, width) in pixels} of a resolution ("240p", "512", "360p_16d" …), in the table's order.

    Raises ValueError for a resolution that this version does not have, naming the nearest.
    """
    known = resolutions(version)
    if resolution not in known:
        near = difflib.get_close_matches(str(resolution), known, 1, 0) or known[:1]
        raise ValueError(
            f"resolution is {resolution!r}; Open-Sora {version} has {', '.join(known)}; the nearest is {near[0]}"
        )
    plain = resolution.removesuffix(MULTIPLE_OF_16)
    table = _table(plain)
    if plain not in (*SIZES, *LARGE) and version != "1.3":
        table = {str(float(ratio)): size for ratio, size in table.items()}
    if plain != resolution:
        table = {ratio: (height // 16 * 16, width // 16 * 16) for ratio, (height, width) in table.items()}
    return table


def _table(resolution):
    if resolution in MULTIPLES:
        factor = MULTIPLES[resolution]
        return {r: (h * factor, w * factor) for r, (h, w) in zip(PIXART_RATIOS, _parsed(PIXART_SIZES))}
    if resolution == "2880":
        return dict(zip(PIXART_2880_RATIOS, _parsed(PIXART_2880_SIZES)))
    table = dict(zip(VIDEO_RATIOS, _parsed({**SIZES, **LARGE}[resolution])))
    if resolution == "4k":  # the original has these two in the other order, which decides ties
        order = [*VIDEO_RATIOS[:6], "0.62", "0.56", *VIDEO_RATIOS[8:]]
        table = {ratio: table[ratio] for ratio in order}
    return table


def _parsed(text):
    return [tuple(map(int, size.split("x"))) for size in text.split()]


def resolutions(version: str = "1.2") -> tuple[str, ...]:
    """The names of all resolutions that a version has. Raises ValueError for a version without buckets."""
    if version not in VERSIONS:
        raise ValueError(f"version is {version!r}; buckets are those of {', '.join(VERSIONS)}; the newest is 1.3")
    plain = [name for name in RESOLUTIONS if version != "1.1" or name not in SINCE_1_2]
    return (*plain, *(name + MULTIPLE_OF_16 for name in plain)) if version == "1.3" else tuple(plain)


def area(resolution: str, version: str = "1.2") -> int:
    """Pixels of a frame, which a clip's own area is held against: of 16:9, for PixArt's tables of the square."""
    table = sizes(resolution.removesuffix(MULTIPLE_OF_16), version)
    height, width = table["0.56"] if "0.56" in table else table.get("1.00") or table["1.0"]
    return height * width


def nearest_ratio(height: float, width: float, resolution: str, version: str = "1.2") -> str:
    """The ratio, as text, closest to height/width; of two equally close ones the first in the table."""
    wanted = height / width
    return min(sizes(resolution, version), key=lambda ratio: abs(float(ratio) - wanted))
