"""A number that is none stops a run before it reaches a weight, and the message says where it came from."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from on_ranks import on_ranks

import tacit
from tacit.core import distributed, files
from tacit.core.draws import Draws
from tacit.data.loader import Loader
from tacit.data.open import open_data
from tacit.data.spec import Batch
from tacit.methods.mae import MAE
from tacit.methods.method import Progress, Terms
from tacit.train.config import Training
from tacit.train.folder import RunFolder
from tacit.train.session import divide
from tacit.train.step import Step
from tacit.views.image import ImageView

SAMPLE = "sample:fashion_mnist_sprite"
OPTIONS = {"precision": "float32", "batch": 32, "size": 16, "encoder": "vit-micro/4", "held_back": 8, "checkpoint_every": "2"}
STEPS = 6

Spoil = Callable[[Terms, Progress], Terms]


@contextlib.contextmanager
def spoiled(spoil: Spoil) -> Iterator[None]:
    """Inside, every loss of mae passes through this."""
    plain = MAE.forward

    def forward(self: MAE, views: dict[str, torch.Tensor], draws: Draws, progress: Progress) -> Terms:
        return spoil(plain(self, views, draws, progress), progress)

    MAE.forward = forward
    try:
        yield
    finally:
        MAE.forward = plain


def not_finite_at(step: int, value: float, the_pass: int = 0, rank: int = 0) -> Spoil:
    """One pass of one step on one rank comes to this value."""
    passes = dict.fromkeys(range(STEPS), 0)

    def spoil(terms: Terms, progress: Progress) -> Terms:
        at, passes[progress.step] = passes[progress.step], passes[progress.step] + 1
        if (progress.step, at, distributed.rank()) != (step, the_pass, rank):
            return terms
        return Terms(terms.total * value, {"pixels": terms.total.detach() * value, "other": terms.total.detach()}, terms.chance)

    return spoil


def train(out: Path, **options: object) -> tacit.Run:
    return tacit.pretrain("mae", SAMPLE, out=out, steps=STEPS, options=OPTIONS | options, device="cpu")


def stopped(out: Path, spoil: Spoil, **options: object) -> str:
    with spoiled(spoil), pytest.raises(tacit.Stopped) as stop:
        train(out, **options)
    return str(stop.value)


def files_of(step: int, start: int, count: int, rank: int = 0, ranks: int = 1) -> list[str]:
    """The first samples of a pass, by the loader alone."""
    collection = open_data(SAMPLE).select("train")
    _, kept = divide(len(collection), Training(held_back=8))
    batch = Loader(collection, None, kept, 32, 0, rank, ranks).batch(step)
    return [collection.index.path(int(row)) for row in batch.ids[start : start + count]]


@pytest.mark.parametrize(("step", "value"), [(0, float("nan")), (3, float("inf"))])
def test_a_loss_that_is_not_finite_names_term_step_files_and_checkpoint(tmp_path: Path, step: int, value: float) -> None:
    out = tmp_path / "run"
    said = stopped(out, not_finite_at(step, value))
    assert f"step {step}:" in said
    assert "term pixels;" in said
    assert f"batch of 32 with {', '.join(files_of(step, 0, 4))} ..." in said
    last = out / "checkpoints" / "last.pt"
    assert (f"last good checkpoint: {last}" if step else "no checkpoint was due yet") in said
    verdict = files.read_json(RunFolder(out).verdict)
    assert verdict["verdict"] == "diverged"
    assert verdict["reasons"] == [said]
    assert len(verdict["advice"]) == 2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_no_weight_and_no_moment_is_touched_by_a_loss_that_is_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    plain, states = Step.__call__, []

    def state(step: Step) -> dict[str, Any]:
        whole = step.state_dict()
        return copy.deepcopy({"weights": whole["method"], "moments": whole["optimiser"]["state"]})

    def call(self: Step, batch: Batch, progress: Progress) -> Terms:
        if progress.step < 3:
            return plain(self, batch, progress)
        states.append(state(self))
        try:
            return plain(self, batch, progress)
        finally:
            states.append(state(self))

    monkeypatch.setattr(Step, "__call__", call)
    stopped(tmp_path / "run", not_finite_at(3, float("nan"), the_pass=accumulate - 1), accumulate=accumulate)
    before, after = states
    assert before["moments"]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_with_accumulation_it_is_the_pass_that_broke(tmp_path: Path) -> None:
    said = stopped(tmp_path / "run", not_finite_at(3, float("nan"), the_pass=2), accumulate=4)
    assert f"batch of 8 with {', '.join(files_of(3, 16, 4))} ..." in said


def _on_a_rank(out: str, rank: int, accumulate: int) -> str:
    return stopped(Path(out), not_finite_at(3, float("nan"), the_pass=accumulate - 1, rank=rank), accumulate=accumulate)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_on_two_ranks_both_stop_and_name_the_files_of_the_one_that_broke(tmp_path: Path, accumulate: int) -> None:
    said = on_ranks(2, _on_a_rank, str(tmp_path / "run"), 1, accumulate)
    rows = 16 // accumulate
    for each in said:
        assert "step 3:" in each
        assert f"batch of {rows} with {', '.join(files_of(3, 16 - rows, 4, rank=1, ranks=2))} ..." in each
        assert "last good checkpoint: " in each


def test_samples_whose_views_are_not_finite_are_named_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view of one sample goes wrong: the message does not send its reader through the other 31."""
    bad = open_data(SAMPLE).select("train").index.path(100)
    plain = ImageView.__call__

    def call(self, batch, draws, spec):
        views = plain(self, batch, draws, spec)
        views[batch.ids == 100] = float("nan")
        return views

    monkeypatch.setattr(ImageView, "__call__", call)
    with pytest.raises(tacit.Stopped) as stop:
        tacit.pretrain("mae", SAMPLE, out=tmp_path / "run", steps=30, options=OPTIONS | {"seed": 1}, device="cpu")
    assert re.search(rf"views that are not finite, of {re.escape(bad)}\)", str(stop.value))


def test_a_stopped_run_goes_on_from_its_checkpoint_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """No weight, moment or statistic of the step that broke is in it."""
    train(tmp_path / "whole")
    stopped(tmp_path / "cut", not_finite_at(4, float("nan"), the_pass=1), accumulate=2)
    assert torch.load(tmp_path / "cut/checkpoints/last.pt", weights_only=True)["state"]["step"] == 4
    stopped(tmp_path / "run", not_finite_at(4, float("nan")))
    tacit.resume(tmp_path / "run")
    for name in ("encoder.safetensors", "metrics.csv", "figures.csv", "verdict.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_weights_that_are_not_finite_never_replace_a_checkpoint(tmp_path: Path) -> None:
    """The loss was finite and its gradient was not: nothing is wrong before the optimiser's step, and everything after it."""

    def spoil(terms: Terms, progress: Progress) -> Terms:
        if progress.step == 3:
            terms.total.register_hook(lambda gradient: gradient * float("nan"))
        return terms

    said = stopped(tmp_path / "run", spoil)
    assert "after step 4 the weights are no longer finite" in said
    kept = torch.load(tmp_path / "run/checkpoints/last.pt", weights_only=True)
    assert kept["state"]["step"] == 2
    assert all(value.isfinite().all() for value in kept["method"].values())
    tacit.resume(tmp_path / "run")
