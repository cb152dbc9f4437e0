"""What a run needs first: given, or trained within it; gone on with, and refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from test_kind_pair import SAYS, manifest

import tacit
from tacit import cli
from tacit.core.errors import TacitError
from tacit.data.spec import Batch
from tacit.methods.method import Progress, Terms
from tacit.train import plan
from tacit.train.folder import RunFolder
from tacit.train.plan import Request, planned
from tacit.train.situation import Budget
from tacit.train.step import Step

SMALL: dict[str, Any] = {
    "batch": 8, "size": 16, "encoder": "clip-vit-micro/8", "held_back": 8, "precision": "float32", "stop_on": "none",
    "store": "never", "vocabulary": 600, "context": 8, "out": 16, "text": "text-micro", "checkpoint_every": "2",
}  # fmt: skip
PHASE = {name: SMALL[name] for name in ("batch", "held_back", "precision", "stop_on", "store", "checkpoint_every")}
STEPS = 3
SAME = ("metrics.csv", "figures.csv", "encoder.safetensors", "tokenizer.json", "verdict.json")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return manifest(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Pairs of a second phase: darker pictures with other words, and more of them."""
    data = manifest(tmp_path_factory.mktemp("other"), says=[f"one shiny {said}" for said in SAYS])
    for file in data.parent.glob("*.png"):
        Image.open(file).point(lambda value: value // 2).save(file)
    return data


@pytest.fixture(scope="module")
def first(pairs, tmp_path_factory) -> Path:
    """A run of clip."""
    out = tmp_path_factory.mktemp("first") / "run"
    return tacit.pretrain("clip", pairs, out=out, steps=STEPS, options=SMALL, device="cpu").path


@pytest.fixture(scope="module")
def whole(pairs, tmp_path_factory) -> Path:
    """A run that trained its need itself."""
    return phase(pairs, tmp_path_factory.mktemp("whole") / "run", **SMALL).path


@pytest.fixture(scope="module")
def second(first, other, tmp_path_factory) -> Path:
    """A run that was given what it needs."""
    return phase(other, tmp_path_factory.mktemp("second") / "run", {"previous": first}).path


def phase(data: Path, place: Path, needs: dict[str, Path] | None = None, **options: Any) -> tacit.Run:
    return tacit.pretrain("mod-x", data, out=place, steps=STEPS, options=PHASE | options, needs=needs, device="cpu")


def learned(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(RunFolder(run).last, weights_only=True)["method"]


def previous(run: Path) -> dict[str, torch.Tensor]:
    """The previous model, as a run's last checkpoint has it."""
    return {name.removeprefix("previous."): value for name, value in learned(run).items() if name.startswith("previous.")}


def current(run: Path) -> dict[str, torch.Tensor]:
    return {name: value for name, value in learned(run).items() if not name.startswith("previous.")}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


class PowerCut(Exception):
    pass


def cut(monkeypatch: pytest.MonkeyPatch, number: int, run: Callable[[], object]) -> None:
    """Let the power fail after so many steps, those of needs counted too."""
    step, taken = Step.__call__, []

    def call(self: Step, batch: Batch, progress: Progress) -> Terms:
        terms = step(self, batch, progress)
        taken.append(progress)
        if len(taken) == number:
            raise PowerCut
        return terms

    with monkeypatch.context() as patch:
        patch.setattr(Step, "__call__", call)
        with pytest.raises(PowerCut):
            run()


# Trained within the run -----------------------------------------------------------------------------------------------


def test_what_nobody_gave_is_trained_first_within_the_run(whole):
    inner = RunFolder(whole / "needs" / "previous")
    config = RunFolder(whole).read_config()
    assert config["needs"] == {"previous": {"path": "needs/previous"}}
    assert inner.finished
    assert inner.read_config()["run"]["method"] == "clip"
    assert same(previous(whole), learned(inner.path))
    assert not same(current(whole), previous(whole))
    for name in ("encoder", "size", "batch", "precision"):
        assert inner.read_config()["train"][name] == SMALL[name]
    assert inner.tokenizer.read_bytes() == RunFolder(whole).tokenizer.read_bytes()


def test_a_run_within_a_run_is_a_run(whole):
    run = tacit.Run(whole / "needs" / "previous", device="cpu")
    assert run.verdict["verdict"]
    assert len((whole / "needs/previous/metrics.csv").read_text().splitlines()) == STEPS + 1


@pytest.mark.parametrize("number", [2, STEPS + 1, STEPS + 3], ids=["in the need", "at first", "later"])
def test_a_run_that_breaks_off_goes_on_to_the_same_end(number, pairs, whole, tmp_path, monkeypatch):
    cut(monkeypatch, number, lambda: phase(pairs, tmp_path / "run", **SMALL))
    assert RunFolder(tmp_path / "run" / "needs" / "previous").finished == (number > STEPS)
    tacit.resume(tmp_path / "run")
    for part in ("", "needs/previous"):
        for name in SAME:
            assert (whole / part / name).read_bytes() == (tmp_path / "run" / part / name).read_bytes(), (part, name)
    assert same(learned(whole), learned(tmp_path / "run"))


@pytest.mark.parametrize("share", [None, 0.25])
def test_the_need_has_its_share_of_the_time(share, pairs, monkeypatch):
    monkeypatch.setattr(plan.Trial, "seconds", lambda *_: 0.01)
    given = SMALL | ({} if share is None else {"needs_share": share})
    made = planned(Request("mod-x", pairs, budget=Budget(minutes=10), given=given, device="cpu"))
    minutes = 10 * (share or 0.4)
    inner = made.needs["previous"].config["origin"]["train.steps"]
    assert f"{minutes:g} minutes at 10 ms" in inner
    assert f"{10 - minutes:g} minutes at 10 ms" in made.config["origin"]["train.steps"]


def test_steps_are_counted_for_either_by_itself(whole):
    for part in ("", "needs/previous"):
        assert RunFolder(whole / part).read_config()["train"]["steps"] == STEPS


# Given ----------------------------------------------------------------------------------------------------------------


def test_a_run_that_is_given_is_used_as_it_is(first, second):
    config, before = (RunFolder(run).read_config() for run in (second, first))
    assert config["needs"]["previous"]["path"] == str(first)
    assert not (second / "needs").exists()
    assert same(previous(second), learned(first))
    for name in ("encoder", "size"):
        assert config["train"][name] == before["train"][name]
        assert config["origin"][f"train.{name}"].startswith("need")
    for name in ("text", "out", "vocabulary", "context", "pool", "quick_gelu"):
        assert config["method"][name] == before["method"][name]


def test_ids_and_pictures_keep_their_meaning(first, second):
    """The tokenizer, and the mean and deviation, are those of the first phase, whatever the second one's data is like."""
    assert (second / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    one, other = (RunFolder(run).read_config()["spec"] for run in (first, second))
    assert (one["mean"], one["std"]) == (other["mean"], other["std"])
    assert json.loads((second / "encoder.json").read_text())["spec"]["mean"] == pytest.approx(one["mean"])


def test_the_next_phase_goes_on_from_the_end_of_this_one(second, pairs, tmp_path):
    """Mutation: the previous model is the one that this phase began with."""
    third = phase(pairs, tmp_path / "run", {"previous": second}).path
    assert same(previous(third), current(second))
    assert not same(previous(third), previous(second))


def test_a_need_is_given_on_the_command_line(first, other, second, tmp_path, monkeypatch):
    sets = [word for name, value in PHASE.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    words = ["tacit", "pretrain", "mod-x", str(other), "--out", str(tmp_path / "run"), "--steps", str(STEPS), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*words, *sets, "--need", f"previous={first}"])
    cli.main()
    assert same(learned(tmp_path / "run"), learned(second))


def test_a_run_with_a_given_need_goes_on_too(first, other, second, tmp_path, monkeypatch):
    cut(monkeypatch, 3, lambda: phase(other, tmp_path / "run", {"previous": first}))
    tacit.resume(tmp_path / "run")
    assert same(learned(tmp_path / "run"), learned(second))


# Refused --------------------------------------------------------------------------------------------------------------


def refused(message: str, data: Path, place: Path, needs: dict[str, Any], method: str = "mod-x", **options: Any) -> None:
    with pytest.raises(TacitError, match=message) as problem:
        tacit.pretrain(method, data, out=place, steps=STEPS, options=PHASE | options, needs=needs, device="cpu")
    assert "\n" not in str(problem.value)
    assert problem.value.exit_code == 2
    assert not place.exists()


def test_unknown_needs_are_refused_with_the_nearest_name(first, pairs, tmp_path):
    refused(
        "mod-x has no need 'previus'; did you mean 'previous'.*it needs previous", pairs, tmp_path / "run", {"previus": first}
    )
    refused("clip has no need 'previous'; it needs nothing", pairs, tmp_path / "run", {"previous": first}, "clip")


def test_runs_of_other_methods_are_refused(first, pairs, tmp_path):
    shutil.copytree(first, tmp_path / "first")
    config = RunFolder(tmp_path / "first").read_config()
    config["run"]["method"], config["method"] = "simclr", {}
    RunFolder(tmp_path / "first").write_config(config)
    refused("is a run of simclr; give a run of clip", pairs, tmp_path / "run", {"previous": tmp_path / "first"})


def test_what_is_no_run_or_not_at_its_end_is_refused(first, pairs, tmp_path):
    refused("is not a run folder", pairs, tmp_path / "run", {"previous": tmp_path / "nowhere"})
    shutil.copytree(first, tmp_path / "first")
    RunFolder(tmp_path / "first").encoder.unlink()
    refused("is unfinished; `tacit resume", pairs, tmp_path / "run", {"previous": tmp_path / "first"})


@pytest.mark.parametrize(
    ("options", "said"), [({"out": 32}, "out=16, not 32"), ({"encoder": "resnet-mini"}, "not resnet-mini")]
)
def test_options_that_contradict_what_is_given_are_refused(options, said, first, pairs, tmp_path):
    refused(f"what mod-x goes on from has .*{said}; leave it out", pairs, tmp_path / "run", {"previous": first}, **options)


def test_the_same_options_once_more_are_no_contradiction(first, other, second, tmp_path):
    again = phase(other, tmp_path / "run", {"previous": first}, out=16, encoder=SMALL["encoder"])
    assert same(learned(again.path), learned(second))


def test_a_run_that_is_gone_on_with_keeps_its_need(first, other, second, whole):
    again = tacit.pretrain("mod-x", other, out=second, needs={"previous": first}, resume=True, device="cpu")
    assert again.path == second
    with pytest.raises(TacitError, match=r"was begun with previous=.*, not .*, and a run keeps what it needs") as problem:
        tacit.pretrain("mod-x", other, out=second, needs={"previous": whole}, resume=True, device="cpu")
    assert "\n" not in str(problem.value)


def test_a_need_that_changed_since_is_refused(first, other, tmp_path, monkeypatch):
    shutil.copytree(first, tmp_path / "first")
    cut(monkeypatch, 2, lambda: phase(other, tmp_path / "run", {"previous": tmp_path / "first"}))
    held = torch.load(RunFolder(tmp_path / "first").last, weights_only=True)
    held["method"]["log_scale"] += 1
    torch.save(held, RunFolder(tmp_path / "first").last)
    with pytest.raises(TacitError, match=r"the previous of .* changed since that was started") as problem:
        tacit.resume(tmp_path / "run")
    assert "\n" not in str(problem.value)


def test_a_need_that_is_gone_is_told_in_one_line(first, other, tmp_path, monkeypatch):
    shutil.copytree(first, tmp_path / "first")
    cut(monkeypatch, 2, lambda: phase(other, tmp_path / "run", {"previous": tmp_path / "first"}))
    (tmp_path / "first").rename(tmp_path / "moved")
    with pytest.raises(TacitError, match="is not a run folder"):
        tacit.resume(tmp_path / "run")
