"""The batch that `auto` takes: no more than the samples are worth, and no more than the memory holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tacit.data.open import measure, open_data
from tacit.data.spec import Spec
from tacit.methods.registry import method
from tacit.train.config import Training
from tacit.train.machine import bytes_kept
from tacit.train.recipe import Recipe, resolve
from tacit.train.situation import Budget, Situation
from tacit.train.trial import Trial

SPECS = {"alice": Spec("volume", 1, (64, 64, 64)), "polar-mae": Spec("points", 4, (500,)), "simclr": Spec("image", 3, (64, 64))}


def fitted(name: str, samples: int, share: float = 0.0, **given: Any) -> Recipe:
    """Where a sample keeps `share` of the memory in a step."""
    seen: Any = SimpleNamespace(samples=samples, duplicates=0.0, sparse=0.0, flat=0.0, captions=(), largest=(500,))
    situation = Situation(
        method(name), SPECS[name], seen, None, Budget(steps=100), "cpu", lambda o, t: 1.0, lambda o, t: share * t.batch
    )
    return resolve("auto", situation, {"precision": "float32", **given})


@pytest.mark.parametrize(
    ("name", "samples", "share", "batch"),
    [
        ("alice", 26, 0.0, 8),
        ("alice", 9, 0.0, 7),  # all that are not held back
        ("alice", 400, 0.0, 32),
        ("alice", 400, 1 / 40, 16),
        ("alice", 400, 1.0, 8),
        ("polar-mae", 50, 0.0, 8),
        ("polar-mae", 600, 0.0, 64),
        ("simclr", 60_000, 0.0, 256),
        ("simclr", 60_000, 1 / 200, 64),
        ("simclr", 60_000, 1.0, 32),
        ("simclr", 300, 0.0, 32),
    ],
)
def test_a_batch_is_an_eighth_of_the_samples_that_fits_into_half_of_the_memory(
    name: str, samples: int, share: float, batch: int
):
    assert fitted(name, samples, share).training.batch == batch


def test_the_reason_says_what_would_not_fit():
    assert fitted("simclr", 60_000, 1 / 200).origin["train.batch"] == "auto: a step of 128 would take 64% of the memory"
    assert fitted("simclr", 60_000).origin["train.batch"] == "auto: 59488 samples"


def test_a_batch_that_is_given_is_not_weighed():
    assert fitted("alice", 400, 1.0, batch=64).training.batch == 64


def test_what_a_call_keeps_is_counted_once_and_grows_with_its_samples():
    weight = torch.nn.Parameter(torch.ones(8, 6))

    def kept(rows: int, times: int = 1) -> int:
        x = torch.ones(rows, 8)
        return bytes_kept(lambda: sum((x @ weight).relu().sum() for _ in range(times)))  # type: ignore[arg-type]

    assert kept(5) == 4 * 5 * (8 + 6)  # the layer's input and what the ReLU let through
    assert kept(10) == 2 * kept(5)
    assert kept(5, times=2) == 4 * 5 * (8 + 2 * 6)


def test_a_step_keeps_as_much_for_each_sample():
    collection = open_data(np.random.default_rng(0).integers(0, 255, (40, 16, 16, 3), dtype=np.uint8))
    options, device = method("mae").Options(), torch.device("cpu")

    def share(batch: int) -> float:
        training = Training(encoder="vit-micro/4", size=16, batch=batch)  # pyright: ignore[reportCallIssue]
        return Trial(method("mae"), collection, measure(collection), device, {}).memory(options, training)

    few, more = share(8), share(24)
    assert 0 < few < 0.01
    assert more / few == pytest.approx(3, rel=0.05)
