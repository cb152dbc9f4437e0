"""The same command on several processes: however they were started, and with a run that one process began."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from on_ranks import free_port

import tacit
from tacit.data.spec import Batch
from tacit.methods.method import Progress, Terms
from tacit.train.folder import read_table
from tacit.train.step import Step

SAMPLE = "sample:fashion_mnist_sprite"
OPTIONS = {"precision": "float32", "batch": 64, "size": 16, "encoder": "vit-micro/4"}
STEPS = 8
TACIT = [sys.executable, "-m", "tacit.cli"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def words(out: Path) -> list[str]:
    sets = [part for name, value in OPTIONS.items() for part in ("--set", f"{name}={value}")]
    return ["pretrain", "dino", SAMPLE, "--out", str(out), "--steps", str(STEPS), "--device", "cpu", *sets]


def started(*commands: list[str], **variables: str) -> list[str]:
    """Commands at the same time, each with the variables in which `{}` stands for its number; what each one said."""
    runs = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | {name: value.format(number) for name, value in variables.items()},
        )
        for number, command in enumerate(commands)
    ]
    said = [run.communicate(timeout=240)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * len(runs), "\n".join(said)[-3000:]
    return said


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on one process."""
    out = tmp_path_factory.mktemp("whole") / "run"
    tacit.pretrain("dino", SAMPLE, out=out, steps=STEPS, options=OPTIONS, device="cpu")
    return out


def assert_the_same(whole: Path, other: Path) -> None:
    """float32: within rounding, all losses and all figures."""
    for name in ("metrics.csv", "figures.csv"):
        one, two = (read_table(folder / name) for folder in (whole, other))
        assert one.keys() == two.keys()
        for column, values in one.items():
            assert two[column] == pytest.approx(values, rel=1e-3, abs=1e-6), (name, column)
    assert [p.name for p in (whole / "pictures").iterdir()] == [p.name for p in (other / "pictures").iterdir()]
    assert (other / "encoder.json").read_bytes() == (whole / "encoder.json").read_bytes()


def test_a_run_that_one_process_began_goes_on_with_two_that_hold_a_part_each(whole, tmp_path, monkeypatch):
    """It breaks off in the eighth step; the last checkpoint is from the end of the sixth."""

    class PowerCut(Exception):
        pass

    step, cut = Step.__call__, tmp_path / "cut"

    def until_the_eighth(self: Step, batch: Batch, progress: Progress) -> Terms:
        if progress.step == 7:
            raise PowerCut
        return step(self, batch, progress)

    monkeypatch.setattr(Step, "__call__", until_the_eighth)
    with pytest.raises(PowerCut):
        tacit.pretrain("dino", SAMPLE, out=cut, steps=STEPS, options=OPTIONS | {"checkpoint_every": "3"}, device="cpu")
    started([*TACIT, "resume", str(cut), "--devices", "2", "--strategy", "fsdp"])
    assert "going on after step 6 of 8" in (cut / "log.txt").read_text()
    assert_the_same(whole, cut)


@pytest.mark.slow
def test_processes_that_slurm_started_find_each_other(whole, tmp_path):
    """Two machines with one process each, as far as their variables say."""
    said = started(
        *[[*TACIT, *words(tmp_path / "run")]] * 2,
        SLURM_JOB_ID="7", MASTER_PORT=str(free_port()), SLURM_JOB_NAME="train", SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="1",
        SLURM_STEP_NUM_TASKS="2", SLURM_STEP_NUM_NODES="2", SLURM_NNODES="2", SLURM_NODELIST="127.0.0.1",
        SLURM_PROCID="{}", SLURM_NODEID="{}", SLURM_LOCALID="0",
    )  # fmt: skip
    assert f"run in {tmp_path / 'run'}" in said[0]
    assert not said[1].strip()
    assert_the_same(whole, tmp_path / "run")


@pytest.mark.slow
def test_two_machines_with_torchrun(whole, tmp_path):
    place = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    agents = [[*TORCHRUN, *place, "--node-rank", str(n), "-m", "tacit.cli", *words(tmp_path / "run")] for n in (0, 1)]
    started(*agents)
    assert_the_same(whole, tmp_path / "run")


@pytest.mark.slow
def test_two_machines_with_nodes(whole, tmp_path):
    command = [*TACIT, *words(tmp_path / "run"), "--devices", "1", "--nodes", "2", "--strategy", "fsdp"]
    started(command, command, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    assert_the_same(whole, tmp_path / "run")
