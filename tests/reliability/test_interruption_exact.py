"""Exact resume does not depend on how samples are read, on how many threads read them, nor on the machine's clock."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from tests.reliability.conftest import write_photos
from tests.reliability.runs import assert_same, cut, train

import tacit
from tacit.data import workers
from tacit.data.collection import Collection
from tacit.train.folder import RunFolder
from tacit.train.pretrain import elsewhere
from tacit.train.session import Listener

OPTIONS = {"held_back": 24, "store_side": 24}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happens to; it reads from a store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TACIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        out = train(tmp_path_factory.mktemp("whole") / "run", photos, **OPTIONS)
    assert "decoded once into" in (out / "log.txt").read_text()
    assert (out / "skipped.tsv").read_text().count("\n") == 3
    return out


def without_a_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From now on there is no place to keep decoded samples in."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "file" / "cache"))


def sides(monkeypatch: pytest.MonkeyPatch) -> set[int | None]:
    """What samples are decoded at from now on."""
    found: set[int | None] = set()
    decode = Collection.decode
    monkeypatch.setattr(
        Collection, "decode", lambda self, row, side=None, *part: (found.add(side), decode(self, row, side, *part))[1]
    )
    return found


def test_a_run_on_a_store_goes_on_bitwise_with_workers(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(tmp_path / "run", monkeypatch, data=photos, **OPTIONS)
    without_a_store(monkeypatch, tmp_path)
    decoded_at = sides(monkeypatch)
    tacit.resume(tmp_path / "run")
    assert "decoding as it goes" in (tmp_path / "run" / "log.txt").read_text()
    assert decoded_at == {24, 64}  # as the run was begun with; 64 where samples are only screened for broken ones
    assert_same(whole, tmp_path / "run")


def test_a_run_on_workers_goes_on_bitwise_on_a_store(
    photos: Path, whole: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        without_a_store(patch, tmp_path)
        cut(tmp_path / "run", monkeypatch, data=photos, **OPTIONS)
    monkeypatch.setenv("TACIT_CACHE", str(cache))
    tacit.resume(tmp_path / "run")
    assert "decoded once into" in (tmp_path / "run" / "log.txt").read_text()
    assert_same(whole, tmp_path / "run")


def test_a_run_goes_on_bitwise_with_another_number_of_workers(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "processors", lambda: 5)
    cut(tmp_path / "run", monkeypatch, data=photos, **OPTIONS, store="never")
    monkeypatch.setattr(workers, "processors", lambda: 1)
    tacit.resume(tmp_path / "run")
    assert_same(whole, tmp_path / "run")


def test_a_run_goes_on_bitwise_when_the_clock_jumps(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every look at it shows another year, before the interruption and after."""
    jump, now = random.Random(0), time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump.uniform(-3e8, 3e8))
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    cut(tmp_path / "run", monkeypatch, data=photos, **OPTIONS)
    tacit.resume(tmp_path / "run")
    assert_same(whole, tmp_path / "run")
    curves = sorted((tmp_path / "run" / "events").iterdir())
    assert [path.name.rpartition(".")[2] for path in curves] == ["0000000000", "0000000003"]


def test_a_run_goes_on_without_the_weights_that_it_started_from(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "start.safetensors"
    weights.write_bytes((whole / "encoder.safetensors").read_bytes())
    cut(tmp_path / "run", monkeypatch, step=1, data=photos, init=str(weights), steps=2, checkpoint_every="1")
    weights.unlink()
    tacit.resume(tmp_path / "run")


def test_what_was_skipped_before_the_interruption_is_still_known_after_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With workers a broken file is met in some step; one met before the checkpoint is not met again."""
    train(tmp_path / "whole", photos, steps=4, **OPTIONS, store="never")
    cut(tmp_path / "run", monkeypatch, step=3, data=photos, **OPTIONS, steps=4, store="never")
    tacit.resume(tmp_path / "run")
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_a_run_that_goes_on_with_other_threads_says_that_its_last_bits_may_be_others(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    cut(run, monkeypatch, data=photos, **OPTIONS)
    assert elsewhere(RunFolder(run)) == ""
    environment = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(environment | {"threads": 99, "torch": "\x1b[2J"}))
    told: list[str] = []
    listener = Listener()
    listener.say = told.append
    tacit.resume(run, listener=listener)
    (notice,) = [line for line in told if line.startswith("begun with")]
    assert f"threads 99, now {environment['threads']}" in notice
    assert "\x1b" not in notice


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", "7"])
def test_nothing_is_said_of_a_machine_that_nobody_knows(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    assert elsewhere(RunFolder(tmp_path)) == ""
    (tmp_path / "run.json").unlink()
    assert elsewhere(RunFolder(tmp_path)) == ""
