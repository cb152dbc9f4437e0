"""What doctor says of data agrees with how the data was made."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from tacit.data.kinds import image
from tacit.data.open import measure, open_data
from tacit.data.survey import survey

RANDOM = np.random.default_rng(4)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))


def surveyed(data, **options):
    collection = open_data(data)
    return survey(collection, measure(collection), **options)


def smooth(count: int, side: int = 32, channels: int = 3) -> np.ndarray:
    """Pictures with large soft blobs, as photographs have."""
    coarse = RANDOM.random((count, 6, 6, channels)).astype(np.float32)
    planes = [
        [Image.fromarray(p[..., c]).resize((side, side), Image.Resampling.BICUBIC) for c in range(channels)] for p in coarse
    ]
    return (np.array([np.stack([np.asarray(c) for c in p], axis=2) for p in planes]).clip(0, 1) * 255).astype(np.uint8)


def test_copies_and_near_copies_are_counted_and_strangers_are_not():
    strangers = smooth(100)
    assert surveyed(strangers).duplicates == 0
    near = (strangers[:10].astype(int) + RANDOM.integers(-3, 4, (10, 32, 32, 3))).clip(0, 255).astype(np.uint8)
    found = surveyed(np.concatenate([strangers, near, strangers[20:25]]))
    assert found.duplicates == pytest.approx((20 + 10) / 115)
    assert found.copies == pytest.approx(10 / 115)
    assert any("near-duplicate" in note for note in found.notes)


def test_a_recompressed_and_resized_copy_is_a_near_duplicate(tmp_path):
    for i, array in enumerate(smooth(30, 64)):
        Image.fromarray(array).save(tmp_path / f"{i}.png")
        if i < 5:
            Image.fromarray(array).resize((80, 80)).save(tmp_path / f"copy{i}.jpg", quality=70)
    assert surveyed(tmp_path).duplicates == pytest.approx(10 / 35)


def test_a_sample_without_values_is_broken_whatever_a_kind_makes_of_it(monkeypatch):
    whole = image.decode

    def nothing_of_black(payload, *more, **named):
        decoded = whole(payload, *more, **named)
        return decoded if decoded.any() else decoded[:0]

    pictures = smooth(12)
    pictures[3] = 0
    monkeypatch.setattr(image, "decode", nothing_of_black)
    found = surveyed(pictures)
    assert found.broken == {"ndarray/3": "it holds no values: 0 x 32 x 3"}


def test_glyphs_are_sparse_and_noise_is_not():
    glyphs = np.zeros((20, 32, 32), dtype=np.uint8)
    glyphs[:, 8:12, 4:20] = 255
    glyphs[np.arange(20), 20, np.arange(20)] = 255
    found = surveyed(glyphs)
    assert found.sparse == pytest.approx(1 - 65 / 1024)
    # Of 64 patches of 4x4, the bar fills four whole ones, and the dot disturbs one.
    assert found.flat == pytest.approx(63 / 64)
    noise = surveyed(RANDOM.integers(0, 256, (20, 32, 32), dtype=np.uint8))
    assert noise.sparse < 0.05
    assert noise.flat == 0


def test_flat_patches_are_those_that_hardly_vary():
    data = RANDOM.integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)
    data[:, :32] = 100 + RANDOM.integers(-1, 2, (10, 32, 64, 3))
    assert surveyed(data).flat == pytest.approx(0.5)


def test_sizes_depth_broken_files_and_constants_are_reported(tmp_path):
    for i in range(18):
        Image.fromarray(RANDOM.integers(0, 256, (20 + i, 30), dtype=np.uint8)).save(tmp_path / f"{i:02}.png")
    Image.fromarray(np.full((6, 90), 7, np.uint8)).save(tmp_path / "plain.png")
    (tmp_path / "broken.png").write_bytes(b"?")
    found = surveyed(tmp_path)
    assert (found.samples, found.looked_at) == (20, 20)
    assert (found.smallest, found.largest) == ((6, 30), (37, 90))
    assert found.broken == {f"{tmp_path}/broken.png": "not a picture that can be identified"}
    assert found.constant == pytest.approx(1 / 19)
    assert sum("sizes differ" in n or "one patch" in n or "one value" in n for n in found.notes) == 3


def test_classes_and_splits_are_counted():
    found = surveyed("sample:fashion_mnist_sprite", sample=100)
    assert (found.classes, found.splits, found.looked_at) == (10, {"train": 660, "test": 240}, 100)


def test_the_same_data_gives_the_same_survey():
    data = smooth(60)
    assert surveyed(data) == surveyed(data)


def test_thousands_of_small_pictures_take_seconds():
    data = RANDOM.integers(0, 256, (10_000, 28, 28), dtype=np.uint8)
    began = time.perf_counter()
    assert surveyed(data).looked_at == 5000
    assert time.perf_counter() - began < 30
