from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from tacit.core.picture import png


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_picture_keeps_its_values_to_the_nearest_of_256_levels():
    image = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(pixels(png(image)), np.rint(image.numpy() * 255).astype(np.uint8).transpose(1, 2, 0))


def test_values_outside_are_clipped_and_missing_ones_black():
    assert pixels(png(torch.tensor([[[-1.0, 2.0, float("nan")]]]))).tolist() == [[0, 255, 0]]
