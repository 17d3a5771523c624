"""Encoded clips on disk: made once, never mistaken for another, whole or made anew."""

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
import torch.nn.functional as F
from averaging import AveragingVAE, LetterEncoder
from opensora_comfy.model.frames import EACH_FRAME, OVERLAPPING
from opensora_comfy.training.data.cache import Cache, Cut, read_latents, read_text
from opensora_comfy.training.data.clips import fit
from opensora_comfy.training.data.dataset import Clip, clip_of_images, file_key
from PIL import Image
from videos import video

CUT = Cut(tuple(range(34)), 32, 48)


def noise(frames=34, height=40, width=70, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return clip_of_images(torch.rand(frames, height, width, 3, generator=generator), "A clip.")


def test_latents_and_stills(tmp_path):
    """The averaging VAE's: each latent the mean of its frames, each still the last of its frames alone."""
    cache, vae, clip = Cache(tmp_path), AveragingVAE(), noise()
    found = read_latents(cache.latents(clip, CUT, vae))
    pixels = fit(clip.pixels, 32, 48)
    small = F.avg_pool2d(pixels, 8).movedim(0, 1)
    groups = vae.counting.groups(34)
    assert found["latents"].shape == found["stills"].shape == (3, 10, 4, 6)
    for at, group in enumerate(groups):
        assert torch.allclose(found["latents"][:, at], small[:, group.start : group.stop].mean(1), atol=1e-6)
    places = found["has_still"].nonzero().flatten().tolist()
    assert len(places) == 3 and places[0] == 0 and places[-1] == 9
    for at in range(10):
        known = small[:, groups[at].stop - 1] if at in places else torch.zeros(3, 4, 6)
        assert torch.allclose(found["stills"][:, at], known, atol=1e-6)


def test_another_latent_in_the_middle_of_each_clip(tmp_path):
    cache, vae = Cache(tmp_path), AveragingVAE()
    files = [cache.latents(noise(seed=seed), CUT, vae) for seed in range(8)]
    middles = {read_latents(path)["has_still"].nonzero().flatten().tolist()[1] for path in files}
    assert len(middles) > 2 and middles <= set(range(1, 9))


@pytest.mark.parametrize("counting", [EACH_FRAME, OVERLAPPING])
def test_other_ways_of_counting(tmp_path, counting):
    vae, clip = AveragingVAE(counting=counting), noise(33)
    found = read_latents(Cache(tmp_path).latents(clip, replace(CUT, frames=tuple(range(33))), vae))
    assert found["latents"].shape[1] == counting.latent_frames(33)
    small = F.avg_pool2d(fit(clip.pixels, 32, 48), 8).movedim(0, 1)
    for at in found["has_still"].nonzero().flatten().tolist():
        last = counting.groups(33)[at].stop - 1
        assert torch.allclose(found["stills"][:, at], small[:, last], atol=1e-6)


def test_a_picture_is_scaled_as_one_and_has_no_stills(tmp_path):
    pixels = numpy.random.default_rng(0).integers(0, 255, (41, 73, 3)).astype(numpy.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    clip = Clip(str(tmp_path / "picture.png"), "", 1, 41, 73, 120.0, file_key(tmp_path / "picture.png"))
    found = read_latents(Cache(tmp_path / "cache").latents(clip, replace(CUT, frames=(0,)), AveragingVAE()))
    assert torch.allclose(found["latents"][:, 0], F.avg_pool2d(fit(pixels, 32, 48)[None], 8)[0], atol=1e-6)
    assert not found["has_still"].any() and found["stills"].shape == (3, 1, 4, 6)


def test_the_frames_of_the_cut_are_taken(tmp_path):
    cache, vae, clip = Cache(tmp_path), AveragingVAE(counting=EACH_FRAME), noise()
    found = read_latents(cache.latents(clip, replace(CUT, frames=(3, 30)), vae))
    small = F.avg_pool2d(fit(clip.pixels[[3, 30]], 32, 48), 8).movedim(0, 1)
    assert torch.allclose(found["latents"], small, atol=1e-6)


def test_nothing_is_encoded_twice(tmp_path):
    cache, vae, t5, clip = Cache(tmp_path), AveragingVAE(), LetterEncoder(), noise()
    assert not cache.has_latents(clip, CUT, vae) and not cache.has_text("A cat.", t5)
    first = cache.latents(clip, CUT, vae), cache.text("A cat.", t5)
    calls = vae.calls, t5.calls
    assert calls == (4, 1)
    assert cache.has_latents(clip, CUT, vae) and cache.has_text("A cat.", t5)
    renamed = replace(clip, path="moved.mp4", caption="Another caption.")
    assert (Cache(tmp_path).latents(renamed, CUT, vae), cache.text("A cat.", t5)) == first
    assert (vae.calls, t5.calls) == calls
    for path, kind in zip(first, ("latents", "text")):
        assert path.parent.parent == tmp_path / kind and path.name.startswith(path.parent.name)


def test_no_change_meets_a_file_of_before(tmp_path):
    cache, clip, vae = Cache(tmp_path), noise(), AveragingVAE()
    files = [
        cache.latents(clip, CUT, vae),
        cache.latents(noise(seed=1), CUT, vae),
        cache.latents(clip, CUT, AveragingVAE("other")),
        cache.latents(clip, replace(CUT, height=40), vae),
        cache.latents(clip, replace(CUT, width=40), vae),
        cache.latents(clip, replace(CUT, frames=tuple(range(17))), vae),
        cache.latents(clip, replace(CUT, height=32, width=32, mode="center"), vae),
        cache.latents(clip, replace(CUT, height=32, width=32, mode="center", version="1.3"), vae),
        cache.latents(clip, replace(CUT, height=32, width=32), vae),
        cache.text("A cat.", LetterEncoder()),
        cache.text("A cat!", LetterEncoder()),
        cache.text("A cat.", LetterEncoder("other")),
    ]
    assert len(set(files)) == len(files)
    assert torch.equal(read_text(files[10])["features"][5], ord("!") * torch.tensor([1.0, 2.0, 3.0]))


def test_another_content_or_range_of_a_file_is_another_clip(tmp_path):
    cache, vae, path = Cache(tmp_path / "cache"), AveragingVAE(counting=EACH_FRAME), video(tmp_path / "a.mp4", 20)
    cut = Cut((0, 1), 32, 48)
    clip = Clip(str(path), "", 20, 48, 64, 24.0, file_key(path))
    later = replace(clip, start=10, frames=10)
    video(tmp_path / "b.mp4", 12)
    shutil.copyfile(tmp_path / "b.mp4", path)
    changed = replace(clip, key=file_key(path))
    files = {cache.latents(one, cut, vae) for one in (clip, later, changed)}
    assert len(files) == 3


def test_captions(tmp_path):
    cache, t5 = Cache(tmp_path), LetterEncoder()
    path = cache.text("Día 日", t5)
    found = read_text(path)
    features, mask = t5("Día 日")
    assert torch.equal(found["mask"], mask) and torch.equal(found["features"], features * mask[:, None])
    assert path.stat().st_size < features.numel() * 4 + 500  # padding is not kept
    assert read_text(cache.text("", t5))["features"].shape == (12, 3)


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_broken_file_is_made_anew(tmp_path, damage):
    cache, vae, clip = Cache(tmp_path), AveragingVAE(), noise()
    path = cache.latents(clip, CUT, vae)
    known = read_latents(path)
    path.write_bytes(path.read_bytes()[:-8] if damage is None else damage)
    with pytest.raises(ValueError, match="is no readable file of the cache .*; delete it, and the next start"):
        read_latents(path)
    assert not cache.has_latents(clip, CUT, vae)
    again = read_latents(cache.latents(clip, CUT, vae))
    assert all(torch.equal(again[name], known[name]) for name in known)


FILL = """
import sys, time
sys.path[:0] = sys.argv[2:]
import conftest
from averaging import AveragingVAE, LetterEncoder
from test_cache import CUT, Cache, noise
class Slow(AveragingVAE):
    def __call__(self, video):
        time.sleep(0.01)
        return super().__call__(video)
for seed in range(12):
    Cache(sys.argv[1]).latents(noise(seed=seed), CUT, Slow())
    Cache(sys.argv[1]).text(f"clip {seed}", LetterEncoder())
"""


def test_two_processes_fill_one_cache(tmp_path):
    here = Path(__file__).parent
    tests = [str(here.parents[1]), str(here.parents[1] / "helpers"), str(here)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FILL, str(tmp_path), *tests]
    running = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        assert process.communicate(timeout=300)[1] == "" and process.returncode == 0
    cache, vae = Cache(tmp_path), AveragingVAE()
    assert all(cache.has_latents(noise(seed=seed), CUT, vae) for seed in range(12))
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 24


def test_temporary_files_have_names_of_their_own(tmp_path, monkeypatch):
    """So that two processes that write the same file never write into each other's."""
    names = []
    replace_file = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, to: (names.append(path.name), replace_file(path, to))[1])
    for folder in ("a", "b"):
        Cache(tmp_path / folder).text("A cat.", LetterEncoder())
    assert len(set(names)) == 2


def test_a_full_disk_is_told_and_leaves_no_rest(tmp_path, monkeypatch):
    def write_bytes(path, content):
        with open(path, "wb") as file:
            file.write(content[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1500000))
    with pytest.raises(
        OSError, match="the cache .*full cannot be written .No space left.*: the next file needs 0.0 MB"
    ) as told:
        Cache(tmp_path / "full").latents(noise(), CUT, AveragingVAE())
    assert "1.5 MB are free; make room, or choose another folder" in str(told.value)
    assert told.value.errno == errno.ENOSPC
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="the cache .*file cannot be written .Not a directory.* choose another folder"):
        Cache(tmp_path / "file").text("A cat.", LetterEncoder())

    def mkdir(path, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(PermissionError, match="the cache .*locked cannot be written .Permission denied"):
        Cache(tmp_path / "locked").text("A cat.", LetterEncoder())


def test_what_another_process_made_meanwhile_is_taken(tmp_path, monkeypatch):
    """Windows does not replace a file that is open elsewhere."""
    cache = Cache(tmp_path)
    original = Path.replace

    def replace_file(path, target):
        shutil.copyfile(path, target)
        raise PermissionError(errno.EACCES, "in use", str(target))

    monkeypatch.setattr(Path, "replace", replace_file)
    path = cache.text("A cat.", LetterEncoder())
    monkeypatch.setattr(Path, "replace", original)
    assert read_text(path)["mask"].sum() == 6 and not list(tmp_path.rglob("*.tmp"))


def test_an_encoder_that_counts_otherwise_is_refused(tmp_path):
    called = AveragingVAE()
    wrong = type("Wrong", (), {"key": "k", "counting": EACH_FRAME, "__call__": lambda self, x: called(x)})()
    with pytest.raises(ValueError, match="num_frames is 34, which makes 34 latents, but there are 10"):
        Cache(tmp_path).latents(noise(), CUT, wrong)
