"""Gradients of several threads, added up in one order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import tacit
from tacit.core.repeatable import repeatable
from tacit.train.step import Step

CPU = torch.device("cpu")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_the_gradient_of_rows_that_are_looked_up_often_is_the_same_each_time():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(64, 256, generator=generator, requires_grad=True)
    rows, weight = torch.randint(0, 64, (20_000,), generator=generator), torch.randn(20_000, 256, generator=generator)

    def gradient() -> torch.Tensor:
        return torch.autograd.grad((table[rows] * weight).sum(), table)[0]

    with repeatable(CPU):
        first = gradient()
        assert all(torch.equal(first, gradient()) for _ in range(5))


def test_a_step_is_repeatable_and_leaves_the_callers_settings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen, plain = [], Step._backward

    def backward(self: Step, total: torch.Tensor) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())
        plain(self, total)

    monkeypatch.setattr(Step, "_backward", backward)
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8))
    filled = torch.utils.deterministic.fill_uninitialized_memory
    options = {"encoder": "vit-micro/8", "batch": 8, "size": 16, "held_back": 4}
    tacit.pretrain("mae", tmp_path / "a.npy", out=tmp_path / "run", steps=2, options=options, device="cpu")
    assert seen
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory == filled


def test_elsewhere_nothing_is_asked_for():
    with repeatable(torch.device("meta")):
        assert not torch.are_deterministic_algorithms_enabled()
