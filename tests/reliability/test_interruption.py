"""A run that was cut off goes on with the very next batch, and ends as if nothing had happened."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.reliability.conftest import Tacit, write_photos
from tests.reliability.runs import STEPS, assert_same, at_step, cut, train, wait_for, words

import tacit as library
from tacit.core import files, signals
from tacit.core.errors import Interrupted, TacitError
from tacit.train import checkpoint
from tacit.train.folder import RunFolder, read_table
from tacit.train.plan import Plan

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP]


def start(*line: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tacit.cli", *line]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        cut(out := tmp_path_factory.mktemp("killed") / "run", patch)
    return out


@pytest.fixture
def unfinished(killed: Path, tmp_path: Path) -> Path:
    """A run that was killed in its sixth step, with a checkpoint after the third."""
    return Path(shutil.copytree(killed, tmp_path / "run"))


# kill -9 --------------------------------------------------------------------------------------------------------------


def test_a_run_killed_before_its_first_checkpoint_starts_again(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = start(*words(out, "--checkpoint-every", "10m"))
    wait_for(out / "config.toml", run)
    run.kill()
    run.wait()
    library.resume(out)
    assert_same(whole, out)


def test_rows_from_before_the_first_checkpoint_are_not_kept(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(tmp_path / "run", monkeypatch, checkpoint_every="10m")
    assert not (tmp_path / "run" / "checkpoints" / "last.pt").exists()
    assert len(read_table(tmp_path / "run" / "metrics.csv")["loss"]) == 5
    library.resume(tmp_path / "run")
    assert_same(whole, tmp_path / "run")


def test_kills_while_files_are_half_written_are_survived(tmp_path: Path) -> None:
    """Half a checkpoint, half a row, half a store, half a picture: the short form of `benchmarks/kills.py`."""
    script = Path(__file__).parents[2] / "benchmarks" / "kills.py"
    line = [sys.executable, str(script), "--kills", "6", "--nasty", "--hosts", "mae", "--out", str(tmp_path / "kills.json")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:]
    assert json.loads((tmp_path / "kills.json").read_text())["survived"] == 6


def test_a_killed_run_goes_on_without_a_break(whole: Path, unfinished: Path) -> None:
    library.resume(unfinished)
    assert_same(whole, unfinished)
    curves = EventAccumulator(str(unfinished / "events")).Reload().Scalars("train/loss")
    assert [event.step for event in curves] == list(range(STEPS))
    assert [event.value for event in curves] == pytest.approx(read_table(whole / "metrics.csv")["loss"])


def test_a_checkpoint_that_is_damaged_is_named(unfinished: Path) -> None:
    last = unfinished / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(TacitError, match=r"last\.pt"):
        library.resume(unfinished)


def test_a_checkpoint_that_is_cut_off_leaves_the_one_before(tmp_path: Path) -> None:
    """Whatever ends the writing of it."""

    class Cut:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    last = tmp_path / "checkpoints" / "last.pt"
    checkpoint.save(last, {"state": {"step": 1}, "method": {"weight": torch.ones(1000)}})
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(last, {"method": {"weight": torch.zeros(1000)}, "state": Cut()})
    assert checkpoint.load(last)["state"] == {"step": 1}
    assert os.listdir(last.parent) == ["last.pt"]


def test_a_table_that_lost_rows_is_named(unfinished: Path) -> None:
    (unfinished / "metrics.csv").write_text("step\n")
    with pytest.raises(TacitError, match=r"metrics\.csv is shorter than it was"):
        library.resume(unfinished)


def test_a_report_on_a_run_that_is_at_work_reads_whole_rows_only(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss\n0,1.25\n1,1.1")
    assert read_table(tmp_path / "metrics.csv") == {"step": [0.0], "loss": [1.25]}


# Signals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(
    tacit: Tacit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    at_step(monkeypatch, 4, lambda: os.kill(os.getpid(), number))
    answer = tacit(*words(tmp_path / "run"))
    assert answer.code == 128 + number
    assert answer.err.splitlines()[-1] == (
        f"tacit: interrupted after step 5 of {STEPS}; `tacit resume {tmp_path / 'run'}` goes on"
    )
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["state"]["step"] == 5


@pytest.mark.parametrize(
    ("place", "number", "said"),
    [
        ("tacit.train.plan.rehearse", signal.SIGTERM, "the same command starts again"),
        ("tacit.data.chunks._decoded", signal.SIGINT, "`tacit resume RUN` goes on"),
        ("tacit.train.session._keep", signal.SIGUSR1, "`tacit resume RUN` goes on"),
    ],
    ids=["choosing values", "building the store", "writing the last files"],
)
def test_a_signal_outside_the_steps_ends_in_one_line_too(
    tacit: Tacit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, number: signal.Signals, said: str
) -> None:
    photos = write_photos(tmp_path / "photos", 80, ())
    line = words(tmp_path / "run", data=photos, steps=3)
    with monkeypatch.context() as patch:
        patch.setattr(place, lambda *args, **kwargs: os.kill(os.getpid(), number))
        answer = tacit(*line)
    last = answer.err.splitlines()[-1]
    assert answer.code == 128 + number
    assert last.startswith("tacit: interrupted")
    assert last.endswith(said.replace("RUN", str(tmp_path / "run")))
    assert "Traceback" not in answer.err
    assert tacit(*line, "--resume").code == 0


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("tacit.evaluation.protocol._case", ["evaluate", "RUN", "DATA"]),
        ("tacit.use.embed.columns_of", ["embed", "RUN", "DATA", "--out", "features.npy"]),
        ("tacit.use.doctor.survey", ["doctor", "DATA"]),
    ],
)
def test_a_signal_in_other_verbs_is_one_line(
    tacit: Tacit, whole: Path, monkeypatch: pytest.MonkeyPatch, place: str, line: list[str]
) -> None:
    monkeypatch.setattr(place, lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGTERM))
    names = {"RUN": str(whole), "DATA": "sample:fashion_mnist_sprite"}
    answer = tacit(*(names.get(word, word) for word in line))
    assert (answer.code, answer.err) == (143, "tacit: interrupted; give the same command again\n")


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    """The step at hand would take an hour."""
    program = (
        "import sys, time; from tacit import cli; from tacit.train.step import Step\n"
        "Step.__call__ = lambda self, batch, progress: (print('in the step', file=sys.stderr, flush=True), time.sleep(3600))\n"
        "cli.main()"
    )
    run = subprocess.Popen([sys.executable, "-c", program, *words(tmp_path / "run")], stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    try:
        while "in the step" not in run.stderr.readline():
            assert run.poll() is None
        run.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(0.5)
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 130
    finally:
        run.kill()


def test_a_signal_that_was_switched_off_stays_off() -> None:
    """As `nohup` does."""
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.heard(heard.append):
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert heard == [signal.SIGUSR1]


# One process at a time, on the same data ------------------------------------------------------------------------------


def test_a_second_process_in_the_same_folder_is_refused(unfinished: Path) -> None:
    holding = "import sys, time; from tacit.train.folder import RunFolder\n"
    holding += "with RunFolder(sys.argv[1]).locked(): print('held', flush=True); time.sleep(600)"
    other = subprocess.Popen([sys.executable, "-c", holding, str(unfinished)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(TacitError, match=f"^process {other.pid} on .* is at work in .*run; wait for it") as problem:
        library.resume(unfinished)
    assert "\n" not in str(problem.value)
    other.kill()
    other.wait()
    with RunFolder(unfinished).locked():
        assert (unfinished / ".lock").read_text().startswith(f"process {os.getpid()} on ")


@pytest.mark.parametrize(
    "holder",
    [f"process {os.getpid()} on here", "process 1 on another-host", "\0 not a name \xff"],
    ids=["of this number", "elsewhere", "nobody"],
)
def test_the_lock_of_a_dead_process_blocks_nobody(tmp_path: Path, holder: str) -> None:
    """Whatever its number means today, and wherever it ran."""
    (tmp_path / ".lock").write_text(holder)
    with RunFolder(tmp_path).locked():
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_file_system_without_locks_is_worked_on_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some clusters mount theirs so."""

    def unknown(*args: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unknown)
    with RunFolder(tmp_path).locked():
        files.write_text(tmp_path / "file", "content")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "file"]


def test_an_interrupted_run_goes_on_in_the_same_session(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook keeps the last exception, and with it everything that was going on."""
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Interrupted) as kept:
            train(tmp_path / "run")
    library.resume(tmp_path / "run")
    assert kept.value.exit_code == 130
    assert_same(whole, tmp_path / "run")


def test_two_processes_that_begin_at_once_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    unused = RunFolder.unused
    first = RunFolder.begun(None, "mae", "photos", Plan({"run": {"method": "first"}}, None, {}), {})
    # Both looked before either wrote.
    answers = [first, unused(None, "mae", "photos")]
    monkeypatch.setattr(RunFolder, "unused", lambda *asked: answers.pop(0))
    second = RunFolder.begun(None, "mae", "photos", Plan({"run": {"method": "second"}}, None, {}), {})
    assert (str(first.path), str(second.path)) == ("runs/mae-photos-1", "runs/mae-photos-2")
    assert "first" in first.config.read_text()


def test_changed_data_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = write_photos(tmp_path / "photos", 80, ())
    cut(tmp_path / "run", monkeypatch, step=2, data=photos, checkpoint_every="1")
    for change in (
        lambda: shutil.copy(photos / "001.jpg", photos / "new.jpg"),
        lambda: (photos / "new.jpg").unlink() or (photos / "079.jpg").rename(tmp_path / "079.jpg"),
        lambda: shutil.move(tmp_path / "079.jpg", photos / "079.jpg") and os.utime(photos / "030.jpg", (1, 1)),
    ):
        facts = os.stat(photos / "030.jpg")
        change()
        with pytest.raises(TacitError, match=r"photos changed since .* was started"):
            library.resume(tmp_path / "run")
    os.utime(photos / "030.jpg", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    library.resume(tmp_path / "run")


def test_data_that_was_moved_is_gone_on_with(tacit: Tacit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = write_photos(tmp_path / "photos", 80, ())
    cut(tmp_path / "run", monkeypatch, step=2, data=photos, checkpoint_every="1")
    photos.rename(tmp_path / "elsewhere")
    answer = tacit("resume", tmp_path / "run")
    assert answer.code == 2
    assert answer.err == f"tacit: no such file or folder: {photos}\n"
    assert tacit("resume", tmp_path / "run", "--data", tmp_path / "elsewhere").code == 0
