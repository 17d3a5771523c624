"""Images brought to the size of a clip."""

import torch
from opensora_comfy.model.images import resize_to_fill as resize
from pins import picture


def test_resize_covers_and_crops_the_middle():
    # Three vertical stripes, 60 wide: a square target keeps the middle one.
    image = torch.zeros(1, 20, 60, 3)
    image[:, :, 20:40] = 1
    square = resize(image, 40, 40)
    assert square.shape == (1, 40, 40, 3) and square[:, :, 3:-3].min() > 0.99
    for size in ((64, 48), (48, 80), (33, 17), (20, 60)):
        for frames in (1, 5):
            result = resize(picture(frames, 50, 37), *size)
            assert result.shape == (frames, *size, 3) and 0 <= result.min() and result.max() <= 1
    same = picture()
    assert resize(same, 64, 48) is same
