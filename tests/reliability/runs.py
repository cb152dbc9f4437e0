"""Small runs to interrupt, and how they are compared."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tacit
from tacit.data.spec import Batch
from tacit.methods.method import Progress, Terms
from tacit.train.step import Step

SAMPLE = "sample:fashion_mnist_sprite"
OPTIONS: dict[str, Any] = {"precision": "float32", "batch": 32, "held_back": 16, "size": 16, "encoder": "vit-micro/8"}
STEPS = 8
SAME = ("metrics.csv", "figures.csv", "skipped.tsv", "encoder.safetensors", "verdict.json")


class Killed(BaseException):
    """Stands in for `kill -9`, which no handler sees."""


def words(out: Path, *more: object, data: object = SAMPLE, steps: int = STEPS) -> list[str]:
    """A run as it is typed."""
    sets = [word for name, value in OPTIONS.items() for word in ("--set", f"{name}={value}")]
    return [
        "pretrain",
        "simclr",
        str(data),
        "--out",
        str(out),
        "--steps",
        str(steps),
        "--device",
        "cpu",
        *sets,
        *map(str, more),
    ]


def train(out: Path, data: object = SAMPLE, steps: int = STEPS, **options: Any) -> Path:
    return tacit.pretrain("simclr", data, out=out, steps=steps, options=OPTIONS | options, device="cpu").path


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Do something in the middle of a step: the weights have changed, nothing is written yet."""
    real = Step.__call__

    def call(self: Step, batch: Batch, progress: Progress) -> Terms:
        terms = real(self, batch, progress)
        if progress.step == number:
            act()
        return terms

    monkeypatch.setattr(Step, "__call__", call)


def cut(out: Path, monkeypatch: pytest.MonkeyPatch, step: int = 5, data: object = SAMPLE, **options: Any) -> None:
    """A run that was killed in the middle of a step, with its last checkpoint a few steps before."""

    def kill() -> None:
        raise Killed

    with monkeypatch.context() as patch:
        at_step(patch, step, kill)
        with pytest.raises(Killed):
            train(out, data, **{"checkpoint_every": "3", **options})


def assert_same(one: Path, other: Path) -> None:
    """Two finished runs are one, bit for bit."""
    for name in SAME:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    ours, theirs = (torch.load(run / "checkpoints" / "last.pt", weights_only=True)["method"] for run in (one, other))
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def wait_for(path: Path, process: Any) -> None:
    deadline = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
