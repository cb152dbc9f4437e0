"""Full and read-only disks: one line that names the cause, the last checkpoint whole, and going on once it is mended."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.reliability.conftest import Tacit, write_photos
from tests.reliability.runs import SAMPLE, STEPS, assert_same, at_step, train, words

import tacit as library
from tacit.core import files
from tacit.core.errors import TacitError
from tacit.data import chunks
from tacit.train import events, folder, session


class Disk:
    """A disk that is full for files whose path holds a name; with an empty name, for none."""

    name = ""

    def fill(self, name: str) -> None:
        self.name = name

    def opened(self, path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = open(path, mode, *args, **kwargs)  # noqa: SIM115
        return file if mode in ("r", "rb") else OnDisk(self, str(path), file)

    def beside(self, path: Path) -> tuple[Any, Path]:
        file, temporary = BESIDE(path)
        return OnDisk(self, str(path), file), temporary


BESIDE = files._beside


def slow(*cases: Any) -> list[Any]:
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]


@dataclass
class OnDisk:
    disk: Disk
    path: str
    file: Any

    def write(self, content: Any) -> int:
        if self.disk.name and self.disk.name in self.path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> OnDisk:
        return self

    def __exit__(self, *problem: object) -> None:
        self.file.close()


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    disk = Disk()
    with pytest.MonkeyPatch.context() as patch:
        for module in (folder, events, session, chunks):
            patch.setattr(module, "open", disk.opened, raising=False)
        patch.setattr(files, "_beside", disk.beside)
        yield disk.fill


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize("name", ["last.pt", "metrics.csv", "/pictures/", *slow("log.txt", "tfevents", "encoder.safetensors")])
def test_a_full_disk_costs_nothing_but_the_time_since_the_last_checkpoint(
    tacit: Tacit, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: Callable[[str], None], name: str
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: fill(name))
        answer = tacit(*words(tmp_path / "run", "--checkpoint-every", "3"))
    last = answer.err.splitlines()[-1]
    assert answer.code == 2
    assert last.startswith(f"tacit: cannot write {tmp_path / 'run'}")
    assert "no space left on device; free some room; then" in last
    assert last.endswith(f"`tacit resume {tmp_path / 'run'}` goes on")
    assert "Traceback" not in answer.err
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    assert kept["state"]["step"] == (STEPS if name in ("/pictures/", "encoder.safetensors") else 3)
    assert not list((tmp_path / "run").rglob("*.part"))
    fill("")
    assert tacit("resume", tmp_path / "run").code == 0
    assert_same(whole, tmp_path / "run")


def test_a_full_disk_at_the_very_start_leaves_a_folder_that_can_be_begun_in(
    tacit: Tacit, tmp_path: Path, fill: Callable[[str], None]
) -> None:
    line = words(tmp_path / "run", steps=2)
    for name in ("run.json", "config.toml"):
        fill(name)
        answer = tacit(*line)
        assert answer.code == 2
        assert answer.err == f"tacit: cannot write {tmp_path / 'run' / name}: no space left on device; free some room\n"
    fill("")
    assert tacit(*line).code == 0


# Decoded samples ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("data") / "photos", 80, (5,))


@pytest.mark.parametrize("name", ["samples.bin", *slow("journal.jsonl", "begun.json")])
def test_without_room_for_decoded_samples_they_are_decoded_as_it_goes(
    tacit: Tacit, photos: Path, tmp_path: Path, fill: Callable[[str], None], name: str, cache: Path
) -> None:
    fill(name)
    answer = tacit(*words(tmp_path / "full", "--set", "max_bad=0.1", data=photos, steps=2))
    assert answer.code == 0
    assert "no space left on device; free some room, or set TACIT_CACHE to another folder: decoding as it goes" in answer.err
    assert not [path for path in (cache / "stores").rglob("*") if path.is_file() and path.name != "lock"]
    fill("")
    assert tacit(*words(tmp_path / "roomy", "--set", "max_bad=0.1", data=photos, steps=2)).code == 0
    assert_same(tmp_path / "full", tmp_path / "roomy")


def test_a_store_that_must_be_goes_on_where_the_disk_was_full(
    tacit: Tacit, photos: Path, tmp_path: Path, fill: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = chunks._decoded
    done: list[int] = []

    def counting(decode: Any, side: Any, rows: range, *more: Any) -> Any:
        done.append(rows.start)
        if done == [0, 8, 16, 24, 32, 40, 48]:
            fill("samples.bin")
        return decoded(decode, side, rows, *more)

    monkeypatch.setattr(chunks, "CHUNK_ROWS", 8)
    monkeypatch.setattr(chunks, "_decoded", counting)
    line = words(tmp_path / "run", "--resume", "--set", "store=always", "--set", "max_bad=0.1", data=photos, steps=2)
    answer = tacit(*line)
    said = answer.err.splitlines()[-1]
    assert answer.code == 2
    assert "no space left on device; free some room, or set TACIT_CACHE to another folder; then `tacit resume" in said
    fill("")
    done.clear()
    assert tacit(*line).code == 0
    assert done == [48, 56, 64, 72]  # what was decoded before is not decoded again


# Other verbs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (["embed", "RUN", SAMPLE, "--out", "features.npy"], "features.npy"),
        (["embed", "RUN", SAMPLE, "--out", "features.parquet"], "features.parquet"),
        (["embed", "RUN", SAMPLE, "--out", "features.h5"], "features.h5"),
        (["embed", "RUN", SAMPLE, "--out", "features.npy"], "00000.npz"),
        (["evaluate", "RUN", SAMPLE, "--protocol", "knn", "--baselines", "none"], "/evaluations/"),
        *slow(
            (["report", "RUN", "--out", "page.html"], "page.html"),
            (["export", "RUN", "--format", "torch", "--out", "encoder.pt2"], "encoder.pt2"),
        ),
    ],
)
def test_a_full_disk_is_one_line_whatever_is_written(
    tacit: Tacit, whole: Path, tmp_path: Path, fill: Callable[[str], None], line: list[str], name: str
) -> None:
    """And what lay there before stays as it was."""
    line = [str(whole) if word == "RUN" else word for word in line]
    assert tacit(*line).code == 0
    before = {path: path.read_bytes() for path in [*tmp_path.iterdir(), *(whole / "evaluations").glob("*")] if path.is_file()}
    fill(name)
    answer = tacit(*line)
    assert answer.code == 2, answer.err
    assert answer.err.startswith("tacit: cannot write ")
    assert "no space left on device; free some room" in answer.err
    assert answer.err.count("\n") == 1
    assert {path: path.read_bytes() for path in before} == before
    fill("")
    assert tacit(*line).code == 0


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("file/features.npy", "not a directory; choose another place"),
        ("folder.npy", "is a directory; choose another place"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_named(tacit: Tacit, whole: Path, tmp_path: Path, out: str, said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.npy").mkdir()
    answer = tacit("embed", whole, SAMPLE, "--out", out)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1


# Data -----------------------------------------------------------------------------------------------------------------


def test_data_that_vanishes_stops_the_run_and_is_not_called_broken(
    tacit: Tacit, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_photos(tmp_path / "photos", 80, (5,))
    options = ["--set", "store=never", "--set", "max_bad=0.1", "--checkpoint-every", "2"]
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: data.rename(tmp_path / "unmounted"))
        answer = tacit(*words(tmp_path / "run", *options, data=data))
    said = answer.err.splitlines()[-1]
    assert answer.code == 2
    assert said.startswith(f"tacit: the data is gone: {data}/")
    assert said.endswith(
        f"could be read before and no longer can (no such file); bring it back; then `tacit resume {tmp_path / 'run'}` goes on"
    )
    assert "no such file" not in (tmp_path / "run" / "skipped.tsv").read_text()
    (tmp_path / "unmounted").rename(data)
    assert tacit("resume", tmp_path / "run").code == 0
    assert tacit(*words(tmp_path / "whole", *options, data=data)).code == 0
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_data_that_vanishes_while_it_is_stored_is_not_stored_as_broken(
    tacit: Tacit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_photos(tmp_path / "photos", 80, (5,))
    decoded = chunks._decoded

    def counting(decode: Any, side: Any, rows: range, *more: Any) -> Any:
        if rows.start == 48:
            data.rename(tmp_path / "unmounted")
        return decoded(decode, side, rows, *more)

    monkeypatch.setattr(chunks, "CHUNK_ROWS", 8)
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_decoded", counting)
        answer = tacit(*words(tmp_path / "run", "--set", "max_bad=0.1", data=data, steps=2))
    assert answer.code == 2
    assert "the data is gone" in answer.err.splitlines()[-1]
    (tmp_path / "unmounted").rename(data)
    assert tacit("resume", tmp_path / "run").code == 0
    assert (tmp_path / "run" / "skipped.tsv").read_text().count("\n") == 2


def test_a_file_that_changes_during_a_run_is_skipped_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is altered is another sample: a run that goes on is refused until it is put back."""
    data = write_photos(tmp_path / "photos", 80, ())
    victim = data / "033.jpg"
    content, facts = victim.read_bytes(), os.stat(victim)
    options = {"store": "never", "held_back": 4, "checkpoint_every": "2"}

    def alter() -> None:
        victim.write_bytes((data / "034.jpg").read_bytes())

    with monkeypatch.context() as patch:
        at_step(patch, 0, alter)
        train(tmp_path / "run", data, steps=10, **options)
    assert (tmp_path / "run" / "skipped.tsv").read_text() == f"path\treason\n{victim}\tchanged since it was listed\n"
    (tmp_path / "run" / "encoder.json").unlink()
    with pytest.raises(TacitError, match="photos changed since"):
        library.resume(tmp_path / "run")
    victim.write_bytes(content)
    os.utime(victim, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    library.resume(tmp_path / "run")


# Real disks -----------------------------------------------------------------------------------------------------------


def mount(place: Path, *options: str) -> bool:
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(place)], capture_output=True)
    return done.returncode == 0


def _can_mount() -> bool:
    """Whether this machine lets its tests mount a disk."""
    if os.geteuid() or not sys.platform.startswith("linux"):
        return False
    return subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode == 0


@pytest.mark.parametrize("megabytes", [7] if _can_mount() else [])
def test_on_a_real_small_disk_the_last_checkpoint_stays_whole(
    tacit: Tacit, whole: Path, tmp_path: Path, megabytes: int
) -> None:
    """Room for one checkpoint, and not for a second one beside it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    one = (whole / "checkpoints" / "last.pt").stat().st_size
    size = int(1.6 * one)
    assert mount(disk, "-o", f"size={size}")
    try:
        answer = tacit(*words(disk / "run", "--checkpoint-every", "3"))
        said = answer.err.splitlines()[-1]
        assert answer.code == 2
        assert said.startswith(f"tacit: cannot write {disk / 'run'}/checkpoints/")
        assert "no space left on device" in said
        assert "Traceback" not in answer.err
        subprocess.run(["mount", "-o", f"remount,ro,size={4 * one}", str(disk)], check=True)
        answer = tacit("resume", disk / "run")
        assert answer.code == 2
        assert "read-only file system; make it writable" in answer.err.splitlines()[-1]
        subprocess.run(["mount", "-o", f"remount,rw,size={4 * one}", str(disk)], check=True)
        assert tacit("resume", disk / "run").code == 0
        assert_same(whole, disk / "run")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
