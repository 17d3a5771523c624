"""Frame sizes by resolution and aspect ratio: those Open-Sora 1.1 to 1.3 were trained on, in the artist's width:height.

The three generations share one table; Open-Sora 1.0 was trained on squares.
"""

import math

# Width:height of the columns of SIZES. (The original writes its ratios height:width.)
COLUMNS = "8:3 21:9 25:12 2:1 17:9 50:27 16:9 8:5 3:2 4:3 1:1 3:4 2:3 9:16 9:17 1:2 12:25".split()
# Tall ratios that the original has only in the wide form: their sizes are the wide ones turned. (It gives what it calls
# 50:27, height:width, the sizes of 25:12. Names say here what a size is: those are 12:25, and 27:50 is 50:27 turned.)
TURNED = {"5:8": "8:5", "27:50": "50:27", "9:21": "21:9", "3:8": "8:3"}
# Height x width in pixels.
SIZES = {
    "144p": (
        "117x312 125x291 133x277 135x270 139x262 141x260 144x256 151x241 156x234 "
        "166x221 192x192 221x165 235x156 256x144 263x139 271x135 277x132"
    ),
    "240p": (
        "196x522 210x490 222x462 226x452 232x438 236x436 240x426 252x404 262x393 "
        "276x368 320x320 370x278 392x262 426x240 440x232 452x226 462x222"
    ),
    "360p": (
        "294x784 314x732 332x692 340x680 350x662 352x652 360x640 380x608 392x588 "
        "416x554 480x480 554x416 588x392 640x360 660x350 678x340 692x332"
    ),
    "480p": (
        "392x1046 420x980 444x925 452x904 466x880 470x870 480x854 506x810 522x784 "
        "554x738 640x640 740x555 784x522 854x480 880x466 906x454 924x444"
    ),
    "720p": (
        "588x1568 628x1466 666x1388 678x1356 698x1318 706x1306 720x1280 758x1212 784x1176 "
        "832x1110 960x960 1108x832 1176x784 1280x720 1320x698 1358x680 1386x666"
    ),
    "1080p": (
        "882x2352 942x2198 998x2080 1018x2036 1048x1980 1058x1958 1080x1920 1138x1820 1176x1764 "
        "1248x1664 1440x1440 1662x1246 1764x1176 1920x1080 1980x1048 2036x1018 2078x998"
    ),
}

# Side in pixels of the square sizes of Open-Sora 1.0 and PixArt; another ratio keeps their area.
SQUARES = {"256": 256, "512": 512, "1024": 1024}


def _ratio(name):
    width, height = name.split(":")
    return int(width) / int(height)


RESOLUTIONS = tuple(SIZES)
ASPECT_RATIOS = tuple(sorted([*COLUMNS, *TURNED], key=_ratio, reverse=True))


def frame_size(resolution: str, aspect_ratio: str) -> tuple[int, int]:
    """(height, width) in pixels for one of RESOLUTIONS or SQUARES and one of ASPECT_RATIOS."""
    if resolution in SQUARES:
        return same_area(SQUARES[resolution], SQUARES[resolution], aspect_ratio)
    if aspect_ratio in TURNED:
        width, height = frame_size(resolution, TURNED[aspect_ratio])
        return height, width
    sides = SIZES[resolution].split()[COLUMNS.index(aspect_ratio)].split("x")
    return int(sides[0]), int(sides[1])


def same_area(height: int, width: int, aspect_ratio: str, multiple: int = 16) -> tuple[int, int]:
    """(height, width) with about the area of height x width in another shape, in multiples of `multiple` pixels."""
    ratio = _ratio(aspect_ratio)
    area = height * width
    down, across = (
        max(multiple, round(side / multiple) * multiple) for side in (math.sqrt(area / ratio), math.sqrt(area * ratio))
    )
    return down, across


def nearest_aspect_ratio(height: int, width: int) -> str:
    """The entry of ASPECT_RATIOS closest to height x width."""
    return min(ASPECT_RATIOS, key=lambda name: abs(math.log(_ratio(name) * height / width)))
