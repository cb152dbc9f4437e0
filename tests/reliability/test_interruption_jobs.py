"""A job that is cut off and started again by the same command, as a cluster does it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.reliability.conftest import Tacit
from tests.reliability.runs import assert_same, cut, train, words

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"

SRUN = """#!/bin/bash
# What SLURM does: start the command, warn it once before the time is over, hand on its exit code.
"$@" &
if [ ! -e warned ]; then
    until [ -e run/metrics.csv ]; do sleep 0.05; done
    kill -USR1 $!
    touch warned
fi
wait $!
"""
SCONTROL = """#!/bin/bash
echo "$@" >> requeued
"""


@pytest.mark.slow
def test_the_job_script_of_the_page_brings_a_run_to_its_end(tmp_path: Path, cache: Path) -> None:
    (script,) = re.findall(r"```bash\n(#!/bin/bash.*?)```", PAGE.read_text(), re.DOTALL)
    (line,) = re.findall(r"^srun tacit pretrain .* --out .* --resume$", script, re.MULTILINE)
    mine = " ".join([sys.executable, "-m", "tacit.cli", *words(Path("run"), "--resume")])
    (tmp_path / "job.sh").write_text(script.replace(line, f"srun {mine}"))
    for name, content in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(content)
        (tmp_path / "bin" / name).chmod(0o755)
    around = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}

    def job() -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=around, capture_output=True, text=True, timeout=250)

    first = job()
    assert first.returncode == 138, first.stderr[-2000:]
    assert first.stderr.splitlines()[-1].startswith("tacit: interrupted")
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"
    second = job()
    assert second.returncode == 0, second.stderr[-2000:]
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"
    assert_same(train(tmp_path / "whole"), tmp_path / "run")


def test_the_same_command_starts_goes_on_and_knows_the_end(
    tacit: Tacit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    line = words(out, "--resume", "--checkpoint-every", "2", steps=4)
    # Killed while it began: a lock, half a configuration.
    out.mkdir()
    (out / ".lock").write_text("process 1 on here\n")
    (out / ".config.toml.0.part").write_text("[run]\nmet")
    (out / "run.json").write_text("{}")
    assert tacit(*line).code == 0
    # Killed later on.
    (out / "encoder.json").unlink()
    gone_on = tacit(*line)
    assert gone_on.code == 0
    assert "going on after step 4 of 4" in gone_on.err
    # At its end.
    for again in (line, ["resume", out]):
        answer = tacit(*again)
        assert (answer.code, answer.err) == (0, f"{out} is finished: nothing is left to do\n")
        assert answer.out.splitlines()[-1] == f"run in {out}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("simclr", "moco-v3"), "was begun with method=simclr, not moco-v3"),
        (("32", "64"), "was begun with batch=32, not 64"),
        (("4", "5"), "was begun with steps=4, not 5"),
    ],
)
def test_going_on_with_another_run_than_was_meant_is_refused(
    tacit: Tacit, begun: Path, change: tuple[str, str], said: str
) -> None:
    old, new = change
    line = [re.sub(f"(^|=){old}$", rf"\g<1>{new}", word) for word in words(begun, steps=4)]
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    answer = tacit(*line, "--resume")
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()} == before


def test_resume_needs_to_know_which_run(tacit: Tacit, tmp_path: Path) -> None:
    line = words(tmp_path / "run", "--resume")
    del line[line.index("--out") : line.index("--out") + 2]
    answer = tacit(*line)
    assert (answer.code, answer.err) == (2, "tacit: --resume goes on with the run in --out; give that folder too\n")


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cut(tmp_path / "run", monkeypatch, step=0, steps=4)
    return tmp_path / "run"
