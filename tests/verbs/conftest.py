from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tacit import cli

QUICK = [
    "--set", "precision=float32", "--set", "batch=64", "--set", "size=16", "--encoder", "resnet-mini", "--device", "cpu",
]  # fmt: skip
SAMPLE = "sample:fashion_mnist_sprite"


@dataclass
class Answer:
    code: int
    out: str
    err: str


Tacit = Callable[..., Answer]


@pytest.fixture
def tacit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Tacit:
    """The command line as a person types it, in a folder of its own; without the start of another interpreter."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["tacit", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short SimCLR run on real pictures, made once."""
    import tacit

    out = tmp_path_factory.mktemp("runs") / "simclr"
    options = {"precision": "float32", "batch": 64, "size": 16, "encoder": "resnet-mini"}
    tacit.pretrain("simclr", SAMPLE, out=out, steps=60, options=options, device="cpu")
    return out


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of 60 made-up colour pictures of different sizes, in two class folders."""
    generator = np.random.default_rng(0)
    for number in range(60):
        folder = tmp_path / "photographs" / ("cats" if number % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        height, width = generator.integers(20, 40, 2)
        coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return tmp_path / "photographs"
