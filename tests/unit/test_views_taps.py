"""Sums along one axis and then the other are products with matrices that hold the weights at their places."""

from __future__ import annotations

import pytest
import torch

from tacit.views import taps as taps_room
from tacit.views.blur import gaussian_blur
from tacit.views.geometry import resample
from tacit.views.taps import Taps, separable


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_taps(batch: int, out: int, length: int, taps: int, dtype: torch.dtype = torch.float64) -> Taps:
    place = torch.randint(0, length, (batch, out, taps), generator=generator(out))
    return Taps(place, torch.rand(batch, out, taps, generator=generator(taps), dtype=dtype) - 0.3)


def matrix(taps: Taps, length: int) -> torch.Tensor:
    """`[B, out, length]`; weights of the same place add up."""
    batch, out, _ = taps.place.shape
    return torch.zeros(batch, out, length, dtype=taps.weight.dtype).scatter_add_(2, taps.place, taps.weight)


@pytest.mark.parametrize("sparse_on", [{"cpu"}, set()], ids=["taps", "matrices"])
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (32, 32), (70, 33)])
@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_sums_of_taps_are_products_with_matrices(monkeypatch, sparse_on, size, channels):
    monkeypatch.setattr(taps_room, "SPARSE_ON", sparse_on)
    image = torch.rand(4, channels, *size, generator=generator(), dtype=torch.float64)
    rows, columns = some_taps(4, 11, size[0], 5), some_taps(4, 6, size[1], 3)
    expected = torch.einsum("bhy,bcyx,bwx->bchw", matrix(rows, size[0]), image, matrix(columns, size[1]))
    found = separable(image, rows, columns)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous()


@pytest.mark.parametrize("piece", [1, 3 * 8 * 9, 2 * 3 * 8 * 9])
def test_in_pieces_every_sample_is_what_it_is_in_one(monkeypatch, piece):
    image = torch.rand(5, 3, 8, 9, generator=generator())
    rows, columns = some_taps(5, 4, 8, 5, torch.float32), some_taps(5, 6, 9, 3, torch.float32)
    whole = separable(image, rows, columns)
    monkeypatch.setattr(taps_room, "PIECE", piece)
    assert torch.equal(separable(image, rows, columns), whole)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_the_result_has_the_precision_of_the_weights(dtype):
    image = (torch.rand(2, 3, 8, 9, generator=generator()) * 255).to(dtype)
    rows, columns = some_taps(2, 4, 8, 5, torch.float32), some_taps(2, 6, 9, 3, torch.float32)
    expected = torch.einsum("bhy,bcyx,bwx->bchw", matrix(rows, 8), image.float(), matrix(columns, 9))
    torch.testing.assert_close(separable(image, rows, columns), expected)


@pytest.mark.parametrize("sparse_on", [{"cpu"}, set()], ids=["taps", "matrices"])
def test_no_samples_give_no_samples(monkeypatch, sparse_on):
    monkeypatch.setattr(taps_room, "SPARSE_ON", sparse_on)
    image = torch.rand(0, 3, 8, 9)
    rows, columns = some_taps(0, 4, 8, 5, torch.float32), some_taps(0, 6, 9, 3, torch.float32)
    assert separable(image, rows, columns).shape == (0, 3, 4, 6)


def test_taps_and_matrices_give_the_same_crops_and_blurs(monkeypatch):
    image, sigma = torch.rand(3, 2, 40, 50, generator=generator()), torch.tensor([0.1, 1.0, 2.0])
    sizes, boxes = torch.tensor([[40, 50], [30, 40], [7, 9]]), torch.tensor([[0.0, 0, 40, 50], [3, 4, 20, 31], [1, 2, 5, 5]])
    flips, both = torch.tensor([True, False, True]), []
    for sparse_on in ({"cpu"}, set()):
        monkeypatch.setattr(taps_room, "SPARSE_ON", sparse_on)
        crops = resample(image, sizes, boxes, (32, 24), flips, ~flips)
        both.append((crops, gaussian_blur(crops, 9, sigma)))
    torch.testing.assert_close(both[0], both[1], rtol=0, atol=2e-6)


@pytest.mark.parametrize("side", [16, 96])
def test_a_sample_alone_is_cropped_and_blurred_bit_by_bit_as_in_a_batch(side):
    image, half = torch.rand(5, 3, 40, 50, generator=generator()), torch.rand(5, 2, generator=generator(1))
    sizes, boxes = torch.tensor([[40, 50]] * 5), torch.cat([half * 20, 5 + half * 10], dim=1)
    crops, sigma = resample(image, sizes, boxes, (side, side)), 0.1 + 2 * half[:, 0]
    blurred = gaussian_blur(crops, side // 10, sigma)
    for i in range(5):
        one = slice(i, i + 1)
        alone = resample(image[one], sizes[one], boxes[one], (side, side))
        assert torch.equal(alone, crops[one])
        assert torch.equal(gaussian_blur(alone, side // 10, sigma[one]), blurred[one])
