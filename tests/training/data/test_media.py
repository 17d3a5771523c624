"""Frames by their number, whatever a file says of itself."""

import contextlib
import sys
from pathlib import Path

import av
import made_clips
import numpy
import pytest
import torch
from opensora_comfy.training.data import h264, media
from PIL import Image
from videos import numbered, numbers, turned, uneven, video


def test_what_is_written_is_read(tmp_path):
    path = video(tmp_path / "clip.mp4", 20, fps=23.976)
    assert media.probe(path) == (20, 48, 64, pytest.approx(23.976))
    clip = media.read(path, range(20))
    assert clip.dtype == torch.uint8 and clip.shape == (20, 3, 48, 64)
    assert numbers(clip) == list(range(20))
    assert (clip.movedim(1, -1).float() - torch.from_numpy(numbered(20)).float()).abs().mean() < 3
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


def test_frames_come_as_they_are_asked_for(tmp_path):
    path = video(tmp_path / "clip.mp4", 20)
    assert numbers(media.read(path, [7, 3, 3, 19])) == [7, 3, 3, 19]
    with pytest.raises(ValueError, match=r"clip.mp4: frame 20 is asked for, and it has 20; the last is 19"):
        media.read(path, [0, 20])
    for indices in ([], [-1, 3]):
        with pytest.raises(ValueError, match="indices are .*; they must be one number or more, from 0 on"):
            media.read(path, indices)


def test_odd_sides_are_made_even(tmp_path):
    path = h264.write(tmp_path / "odd.mp4", numbered(3, 45, 63), 24)
    assert media.probe(path)[:3] == (3, 46, 64)
    clip = media.read(path, [2])[0].float()
    assert (clip[:, -1] - clip[:, -2]).abs().max() < 12  # shown twice


def test_a_writer_that_fails_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"frames are float32 \[3, 8, 8, 3\]; they must be uint8"):
        h264.write(tmp_path / "clip.mp4", numpy.zeros((3, 8, 8, 3), numpy.float32), 24)
    for fps in (0, float("nan"), 1e6):
        with pytest.raises(ValueError, match="fps is .*; it must be above 0"):
            h264.write(tmp_path / "clip.mp4", numbered(4), fps)

    def replace(path, target):
        raise PermissionError(f"{target} is open elsewhere")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(PermissionError):
        h264.write(tmp_path / "clip.mp4", numbered(4), 24)
    assert list(tmp_path.iterdir()) == []


def test_uneven_time_stamps(tmp_path):
    times = [0, 40, 50, 200, 210, 600, 610, 640, 900]
    path = uneven(tmp_path / "phone.mp4", times)
    frames, _, _, fps = media.probe(path)
    assert frames == len(times) and fps == pytest.approx(8 / 0.9, rel=0.01)
    assert numbers(media.read(path, range(9))) == list(range(9))


@pytest.mark.parametrize(
    "matrix, corner",
    [
        ((1, 0, 0, 1), "left top"),
        ((0, 1, -1, 0), "right top"),
        ((-1, 0, 0, -1), "right bottom"),
        ((0, -1, 1, 0), "left bottom"),
        ((-1, 0, 0, 1), "right top"),
        ((1, 0, 0, -1), "left bottom"),
    ],
)
def test_turned_videos_are_upright(tmp_path, matrix, corner):
    """The white quarter is left and top in the file; by hand, a phone's 90° (0, 1, -1, 0) takes it right and top."""
    path = turned(video(tmp_path / "phone.mp4", 4, 48, 64), matrix)
    upright = matrix[0] != 0
    assert media.probe(path)[1:3] == ((48, 64) if upright else (64, 48))
    clip = media.read(path, [0])[0].float().mean(0)
    assert clip.shape == ((48, 64) if upright else (64, 48))
    halves = {"top": slice(None, clip.shape[0] // 2 - 3), "bottom": slice(clip.shape[0] // 2 + 3, None)}
    sides = {"left": slice(None, clip.shape[1] // 2 - 3), "right": slice(clip.shape[1] // 2 + 3, None)}
    bright = {f"{side} {half}": clip[halves[half], sides[side]].mean() for half in halves for side in sides}
    assert max(bright, key=bright.get) == corner


def streamed(path):
    """The frames of a file, and what the generator says at its end."""
    holds = []

    def keep():
        holds.append((yield from media.frames(path)))

    return list(keep()), holds[0]


@pytest.mark.parametrize("make", made_clips.WHOLE)
def test_frames_come_one_by_one(tmp_path, make):
    """As `read` has them, and with what `probe` says, of every kind of file."""
    path = make(tmp_path / "a.mp4")
    frames, holds = streamed(path)
    assert holds == media.probe(path) and len(frames) == holds.frames
    assert frames[0].shape == (holds.height, holds.width, 3)
    assert torch.equal(torch.from_numpy(numpy.stack(frames)).movedim(-1, 1), media.read(path, range(holds.frames)))
    assert 0 < media.promised_rate(path) <= 1000


def test_what_kinds_hold(tmp_path):
    files = made_clips.every_kind(tmp_path)
    assert media.probe(files["rotated"])[:3] == media.probe(files["portrait"])[:3] == (24, 160, 96)
    assert media.probe(files["four_high"]).height == 4 and media.probe(files["one_frame"]).frames == 1
    assert media.probe(files["variable_rate"]).fps == pytest.approx(21, abs=0.1)
    with av.open(str(files["ten_bit"])) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p10le"
    with pytest.raises(UnicodeEncodeError) if sys.platform == "linux" else contextlib.nullcontext():
        files["unreadable_name"].name.encode()


@pytest.mark.parametrize("make", made_clips.BROKEN)
def test_broken_files_end_with_a_reason(tmp_path, make):
    path = make(tmp_path / "a.mp4")
    for use in (media.probe, streamed):
        with pytest.raises(ValueError, match=r"a.mp4: it (breaks off|is damaged|cannot be read|has no pictures)"):
            use(path)


def test_a_picture_is_one_frame(tmp_path):
    Image.new("RGB", (40, 30), "white").save(tmp_path / "a.png")
    frames, holds = streamed(tmp_path / "a.png")
    assert [frame.shape for frame in frames] == [(30, 40, 3)] and holds == media.probe(tmp_path / "a.png")
    assert media.promised_rate(tmp_path / "a.png") == holds.fps


def test_files_that_break_off_are_told(tmp_path):
    path = made_clips.truncated(tmp_path / "clip.mp4")
    for use in (media.probe, lambda path: media.read(path, [39])):
        with pytest.raises(ValueError, match=r"clip.mp4: it breaks off after \d+ of 40 frames; export or download"):
            use(path)
    made_clips.not_a_video(path)
    with pytest.raises(ValueError, match=r"clip.mp4: it cannot be read \(Invalid data.*\); export or download"):
        media.probe(path)
    made_clips.zero_length(path)
    with pytest.raises(ValueError, match="clip.mp4: it cannot be read"):
        media.probe(path)
    with pytest.raises(ValueError, match="none.mp4: there is no such file"):
        media.probe(tmp_path / "none.mp4")


def test_sound_alone_is_no_video(tmp_path):
    path = made_clips.sound_only(tmp_path / "song.mp4")
    with pytest.raises(ValueError, match="song.mp4: it has no pictures, only audio"):
        media.probe(path)


@pytest.mark.parametrize("name, codec, of", [("a.avi", "mpeg4", "file"), ("a.mkv", "mpeg4", "stream")])
def test_titles_may_be_in_any_encoding(tmp_path, name, codec, of):
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        (container if of == "file" else stream).metadata["title"] = "A caf*, summer"
        for frame in numbered(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    assert b"caf*" in content
    path.write_bytes(content.replace(b"caf*", b"caf\xe9"))
    assert media.probe(path) == (6, 48, 64, 24) and media.promised_rate(path) == 24
    assert numbers(media.read(path, [0, 1, 2])) == [0, 1, 2]


def test_pictures_are_upright_and_black_behind(tmp_path):
    picture = Image.new("RGB", (40, 30), "black")
    picture.paste("white", (0, 0, 20, 15))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    assert media.probe(tmp_path / "turned.png") == (1, 40, 30, 120.0)
    pixels = media.read(tmp_path / "turned.png", [0])
    assert pixels.shape == (1, 3, 40, 30) and pixels[0, :, 5, 25].tolist() == [255] * 3 and not pixels[0, :, 5, 5].any()

    Image.new("RGBA", (8, 8), (200, 100, 50, 128)).save(tmp_path / "glass.png")
    assert media.read(tmp_path / "glass.png", [0])[0, :, 3, 3].tolist() == [100, 50, 25]
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([255, 255, 255, 10, 20, 30])
    palette.save(tmp_path / "palette.png", transparency=1)
    assert not media.read(tmp_path / "palette.png", [0]).any()
    Image.fromarray(numpy.full((8, 8), 51400, numpy.uint16)).save(tmp_path / "deep.png")
    assert media.read(tmp_path / "deep.png", [0])[0, :, 0, 0].tolist() == [200] * 3
    with pytest.raises(ValueError, match="deep.png: frame 1 is asked for, and it has 1"):
        media.read(tmp_path / "deep.png", [1])


def test_broken_pictures_are_told(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(numpy.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(numpy.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(ValueError, match=r"picture.png: it cannot be read \(.*\); export or download it again"):
        media.probe(path)


def test_frames_that_change_size_are_told(tmp_path):
    path = tmp_path / "joined.ts"
    for number, (height, width) in enumerate([(48, 64), (64, 96)]):
        with av.open(str(tmp_path / f"{number}.ts"), "w") as container:
            stream = container.add_stream("libx264", rate=24)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for frame in numbered(5, height, width):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    path.write_bytes((tmp_path / "0.ts").read_bytes() + (tmp_path / "1.ts").read_bytes())
    with pytest.raises(ValueError, match="its frames change size after 5, from 64×48 to 96×64 pixels"):
        media.probe(path)


def coded(path, codec, count, rate=24, **options):
    """A video of `count` frames whose grey tells their number, key frames 50 apart."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"g": "50", **options})
        stream.width, stream.height, stream.bit_rate = 64, 48, 2_000_000
        stream.pix_fmt = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
        for number in range(count):
            pixels = numpy.full((48, 64, 3), 20 + number % 25 * 8, numpy.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


FAR_INTO = [
    ("a.mp4", "libx264", {}, True),
    ("a.mkv", "libx264", {"x264-params": "open-gop=1:bframes=5"}, True),
    ("a.mov", "prores_ks", {}, True),
    ("a.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}, False),
    ("a.avi", "mpeg4", {"bf": "2"}, False),
    ("a.ts", "libx264", {}, False),
]


@pytest.mark.parametrize("name, codec, options, sought", FAR_INTO)
def test_frames_far_into_a_file(tmp_path, monkeypatch, name, codec, options, sought):
    """The same with a key frame sought as from the start; and sought where packets tell the numbers."""
    path, wanted = coded(tmp_path / name, codec, 260, **options), [231, 205, 249, 231]
    from_key_frame = media.read(path, wanted)
    assert (media._sought(path, set(wanted)) is not None) == sought
    monkeypatch.setattr(media, "FAR", 10**9)
    assert torch.equal(from_key_frame, media.read(path, wanted))
    levels = from_key_frame.float().mean((1, 2, 3))
    assert ((levels - 20) / 8).round().int().tolist() == [number % 25 for number in wanted]


@pytest.mark.parametrize("wanted", [[231, 205, 249], [251]])
def test_doubtful_time_stamps_are_counted_from_the_start(tmp_path, wanted):
    """Matroska counts milliseconds: where two frames, such as 250 and 251, have the same, only counting parts them."""
    path = coded(tmp_path / "fast.mkv", "libx264", 260, rate=1900, bf="0")
    assert media._sought(path, set(wanted)) is None
    levels = media.read(path, wanted).float().mean((1, 2, 3))
    assert ((levels - 20) / 8).round().int().tolist() == [number % 25 for number in wanted]


class Losing:
    """An open video whose decoder swallows a frame."""

    def __init__(self, container, lost):
        self.container, self.lost = container, lost

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.container.close()

    def __getattr__(self, name):
        return getattr(self.container, name)

    def decode(self, stream):
        return (frame for frame in self.container.decode(stream) if round(frame.time * 24) != self.lost)


@pytest.mark.parametrize("lost", [0, 220])
def test_packets_without_a_frame_are_doubtful(tmp_path, monkeypatch, lost):
    path, opened = coded(tmp_path / "a.mp4", "libx264", 260), media._open
    assert media._sought(path, {231}) is not None
    monkeypatch.setattr(media, "_open", lambda path: Losing(opened(path), lost))
    assert media._sought(path, {231}) is None


def test_damage_in_the_middle_is_told(tmp_path):
    path = made_clips.corrupt(tmp_path / "clip.mp4")
    with pytest.raises(ValueError, match=r"clip.mp4: it (is damaged after \d+ frames|cannot be read)"):
        media.probe(path)
