"""A picture of what training will see, before it begins: each clip with its crop and frames, and what is left out."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from ...model.images import covering
from .cache import Cut
from .dataset import Clip, LeftOut
from .lettering import shortened, wrapped, write
from .panels import (
    CARD,
    GAP,
    MARGIN,
    MUTED,
    PADDING,
    TEXT,
    TRACK,
    USED,
    WARNING,
    blank,
    counted,
    heading,
    left_out_line,
    stacked,
    text_line,
)  # fmt: skip

MOST_CLIPS, MOST_LEFT_OUT = 60, 40  # that are drawn; the rest is counted
COLUMN = 240  # the least width of a clip, in pixels
OTHER = "#a37a1f"  # stretches that take turns
CUT_OFF = 0.35  # how bright stays what the crop takes away


class Row(NamedTuple):
    """A clip, the name of its bucket, which part of it is used, a word on it where there is one, and `others`.

    `others`: parts that are used in the stead of the first in some epochs; each epoch takes one.
    """

    clip: Clip
    bucket: str
    cut: Cut
    note: str = ""
    others: tuple[Cut, ...] = ()


def picture(
    rows: Sequence[Row], left_out: Sequence[LeftOut], width: int = 1400, lines: Sequence[str] = ()
) -> Image.Image:
    """The clips by bucket, in their order, then what is left out and why: an RGB picture, `width` pixels wide.

    Of each clip the middle one of its frames, what the crop takes away darkened, and a bar of its frames with those
    that are used. At most MOST_CLIPS are drawn, of each bucket some.

    Args:
        lines: what else to say above, such as time and memory.
    """
    buckets: dict[str, list[Row]] = {}
    for row in rows:
        buckets.setdefault(row.bucket, []).append(row)
    shares = _shares([len(group) for group in buckets.values()], MOST_CLIPS)
    parts = [_header(rows, buckets, left_out, width, lines)]
    for (name, group), share in zip(buckets.items(), shares):
        sizes = {f", {row.cut.width} x {row.cut.height} pixels" for row in group}
        parts.append(heading(name, _counted(group) + (sizes.pop() if len(sizes) == 1 else ""), width))
        parts += _cards(group[:share], width)
        if share < len(group):
            more = f"and {len(group) - share} more" if share else f"{len(group)} that are not drawn here"
            parts.append(text_line(more, 16, MUTED, width))
    if left_out:
        parts.append(heading("Left out", counted(len(left_out), "file"), width, WARNING))
        parts += [left_out_line(one.name, one.reason, width) for one in left_out[:MOST_LEFT_OUT]]
        if len(left_out) > MOST_LEFT_OUT:
            parts.append(text_line(f"and {len(left_out) - MOST_LEFT_OUT} more", 16, MUTED, width))
    return stacked([*parts, blank(width, MARGIN)])


def crop_of(height: int, width: int, cut: Cut, single: bool) -> tuple[float, float, float, float]:
    """What `clips.fit` leaves of height x width pixels: (left, top, right, bottom) in those pixels.

    `single`: a picture, whose odd rest is cut otherwise than a clip's.
    """
    if cut.mode == "center":
        factor, size = cut.width / min(height, width), (cut.width, cut.width)
        whole = round if single or cut.version == "1.3" else int
        scaled = tuple(whole(side * factor) for side in (height, width))
        offsets = [(long - short) // 2 if single else round((long - short) / 2) for long, short in zip(scaled, size)]
        down, across = (1 / factor, 1 / factor) if whole is int else (height / scaled[0], width / scaled[1])
    else:
        size = (cut.height, cut.width)
        scaled = covering(height, width, *size)
        offsets = [round((long - short) / 2) if single else (long - short) // 2 for long, short in zip(scaled, size)]
        down, across = height / scaled[0], width / scaled[1]
    top, left = offsets[0] * down, offsets[1] * across
    return left, top, left + size[1] * across, top + size[0] * down


def _shares(counts: Sequence[int], most: int) -> list[int]:
    """How many of each bucket are drawn: one of each in turn, until there are `most`."""
    shares = [0] * len(counts)
    while sum(shares) < min(most, sum(counts)):
        for index, count in enumerate(counts):
            if shares[index] < count and sum(shares) < most:
                shares[index] += 1
    return shares


def _header(rows, buckets, left_out, width, lines):
    said = f"{_counted(rows)} in {counted(len(buckets), 'bucket')}"
    said += f"; {counted(len(left_out), 'file')} left out" if left_out else "; nothing is left out"
    parts = [blank(width, MARGIN - 10), text_line("Before training", 40, TEXT, width), blank(width, 6)]
    parts += [text_line(said, 20, TEXT, width)]
    parts += [text_line(line, 18, MUTED, width) for line in lines]
    return stacked([*parts, _key(width, any(row.others for row in rows))])


def _key(width, others):
    """What the colours mean; `others`: of stretches that take turns, too."""
    image = blank(width, 40)
    draw, x = ImageDraw.Draw(image), MARGIN
    draw.rectangle((x, 15, x + 22, 29), outline=USED, width=2)
    x = write(draw, x + 32, 12, "what is trained on; darker around it: cut off", 16, MUTED) + 36
    draw.rectangle((x, 19, x + 60, 24), fill=TRACK)
    draw.rectangle((x + 12, 19, x + 36, 24), fill=USED)
    x = write(draw, x + 70, 12, "the clip's frames, and those that are used", 16, MUTED) + 36
    if others:
        draw.rectangle((x, 19, x + 24, 24), fill=OTHER)
        write(draw, x + 34, 12, "used in other epochs", 16, MUTED)
    return image


def _cards(rows: Sequence[Row], width: int) -> Iterable[Image.Image]:
    """The clips of a bucket, line by line; each line as high as its highest clip."""
    room = width - 2 * MARGIN
    columns = max(1, (room + GAP) // (COLUMN + GAP))
    side = (room - (columns - 1) * GAP) // columns
    # As high as the upright ones of a bucket need, and no higher than wide.
    tallest = max((row.clip.height / row.clip.width for row in rows), default=1)
    height = round(side * min(max(tallest, 0.4), 1))
    for start in range(0, len(rows), columns):
        cards = [_card(row, side, height) for row in rows[start : start + columns]]
        line = blank(width, max(card.height for card in cards) + GAP)
        for index, card in enumerate(cards):
            line.paste(CARD, (x := MARGIN + index * (side + GAP), 0, x + side, line.height - GAP))
            line.paste(card, (x, 0))
        yield line


def _card(row, side, height):
    clip, room = row.clip, side - 2 * PADDING
    shown = Image.new("RGB", (side, height), CARD)
    thumbnail = _thumbnail(row, side, height)
    shown.paste(thumbnail, ((side - thumbnail.width) // 2, (height - thumbnail.height) // 2))
    name = clip.source.replace("\\", "/").rpartition("/")[2]
    said = [
        (shortened(name, 17, room, middle=True), 17, TEXT),
        *([(shortened(f"the shot from frame {clip.start} on", 14, room), 14, MUTED)] if clip.start else []),
        (shortened(_size_said(clip), 14, room), 14, MUTED),
        (shortened(_frames_said(row), 14, room), 14, MUTED),
        *((line, 14, MUTED) for line in _turns_said(row, room)),
        *((line, 15, TEXT) for line in wrapped(clip.caption, 15, room, 3)),
        *((line, 15, USED) for line in wrapped(row.note, 15, room, 2)),
    ]
    words = Image.new("RGB", (side, 30 + sum(size + 6 for _, size, _ in said)), CARD)
    draw, y = ImageDraw.Draw(words), 22
    if clip.frames > 1:
        _bar(draw, row, PADDING, room)
    for text, size, color in said:
        write(draw, PADDING, y, text, size, color)
        y += size + 6
    return stacked([shown, words])


def _size_said(clip):
    return f"{clip.width} x {clip.height}" + (f", {clip.fps:.4g} fps" if clip.frames > 1 else "")


def _frames_said(row):
    frames, clip = row.cut.frames, row.clip
    if clip.frames == 1:
        return "picture"
    if len(frames) == 1:
        return f"frame {frames[0]} of {clip.frames}"
    step = (frames[-1] - frames[0]) / (len(frames) - 1)
    every = "" if step == 1 else f", every {step:.3g}"
    return f"frames {frames[0]} to {frames[-1]} of {clip.frames}{every}"


def _turns_said(row, room):
    if not row.others:
        return []
    return [shortened(f"an epoch takes one of {len(row.others) + 1} stretches", 14, room)]


def _bar(draw, row, left, room):
    """All frames of the clip as a bar, those that are used marked; at least a pixel each."""
    draw.rectangle((left, 10, left + room - 1, 15), fill=TRACK)
    for cut, color in (*((other, OTHER) for other in row.others), (row.cut, USED)):
        for frame in cut.frames:
            start, end = (round(room * at / row.clip.frames) for at in (frame, frame + 1))
            start = min(start, room - 1)
            draw.rectangle((left + start, 10, left + max(start, end - 1), 15), fill=color)


def _thumbnail(row, width, height):
    """The middle of the frames that are used, within width x height pixels, with its crop."""
    clip, cut = row.clip, row.cut
    scale = min(width / clip.width, height / clip.height)
    size = (max(1, round(clip.width * scale)), max(1, round(clip.height * scale)))
    try:
        frame = clip.read([cut.frames[len(cut.frames) // 2]])[0].movedim(0, -1).contiguous().numpy()
    except ValueError:
        image = Image.new("RGB", size, CARD)
        write(ImageDraw.Draw(image), PADDING, PADDING, "cannot be read any more", 14, WARNING)
        return image
    image = Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)
    left, top, right, bottom = crop_of(clip.height, clip.width, cut, single=len(cut.frames) == 1)
    box = (round(left * scale), round(top * scale), round(right * scale), round(bottom * scale))
    dark = image.point(lambda value: int(value * CUT_OFF))
    dark.paste(image.crop(box), box)
    ImageDraw.Draw(dark).rectangle(
        (box[0], box[1], min(box[2], size[0]) - 1, min(box[3], size[1]) - 1), outline=USED, width=2
    )
    return dark


def _counted(rows):
    """ "3 clips and 1 picture"."""
    pictures = sum(row.clip.frames == 1 for row in rows)
    counts = ((len(rows) - pictures, "clip"), (pictures, "picture"))
    return " and ".join(counted(count, what) for count, what in counts if count) or "no clips"
