"""Where images land that are pinned to a clip, and what is encoded for them."""

from opensora_comfy.model.frames import CHUNKS, OVERLAPPING
from opensora_comfy.model.pins import pieces, pinned


def test_latent_of_every_frame():
    """Frame f lives in latent 5 (f // 17) + (f mod 17 + 3) // 4 wherever its chunk is whole."""
    for frame in range(51):
        assert pinned(CHUNKS.groups(51), frame, 1) == [5 * (frame // 17) + (frame % 17 + 3) // 4]


def test_a_short_last_chunk_has_no_lone_first_frame():
    """Of 21 frames, the last 4 are one latent: the VAE pads only what is no multiple of 4."""
    assert [pinned(CHUNKS.groups(21), frame, 1) for frame in range(15, 21)] == [[4], [4], [5], [5], [5], [5]]
    assert [pinned(CHUNKS.groups(20), frame, 1) for frame in (16, 17, 19)] == [[4], [5], [5]]


def what(counting, total, frame, count):
    """`pieces` with the images as a list."""
    found = pieces(counting.groups(total), frame, count, counting.chunk_latents)
    return [(images.tolist(), wanted) for images, wanted in found]


def test_a_lone_image_fills_its_chunk_unless_it_is_a_latent_of_its_own():
    assert what(CHUNKS, 34, 17, 1) == [([0], {5: 0})]
    assert what(CHUNKS, 34, 20, 1) == [([0] * 17, {6: 1})]
    assert what(OVERLAPPING, 33, 16, 1) == [([0] * 17, {4: 4}), ([0], {5: 0})]  # two chunks share the frame


def test_a_clip_is_encoded_chunk_by_chunk_with_its_ends_repeated():
    assert what(CHUNKS, 34, 13, 8) == [([*[0] * 14, 1, 2, 3], {4: 4}), ([4, 5, 6, *[7] * 14], {5: 0})]
