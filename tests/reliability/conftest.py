from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.verbs.conftest import Answer, Tacit, tacit

__all__ = ["Answer", "Tacit", "tacit"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, so that every test makes its own stores."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TACIT_CACHE", str(folder))
    return folder


def write_photos(root: Path, count: int = 120, broken: tuple[int, ...] = (5, 60)) -> Path:
    """A folder of JPEG photographs of different sizes, all larger than training needs, a few of them cut short."""
    draw = np.random.default_rng(0)
    root.mkdir(parents=True)
    for number in range(count):
        coarse = draw.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        height, width = (int(side) for side in draw.integers(60, 90, 2))
        path = root / f"{number:03}.jpg"
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)
        if number in broken:
            path.write_bytes(path.read_bytes()[:300])
    return root
