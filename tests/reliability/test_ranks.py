"""The same command gives the same optimisation on one rank and on two, and a run goes on with another number of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tacit
from tacit.train.folder import read_table

SAMPLE = "sample:fashion_mnist_sprite"
OPTIONS = {"precision": "float32", "batch": 64, "size": 16}
STEPS = 8


def on_two_ranks(*words: str) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tacit.cli"]
    done = subprocess.run([*launch, *words], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]


def words(method: str, encoder: str, out: Path) -> list[str]:
    sets = [part for name, value in (OPTIONS | {"encoder": encoder}).items() for part in ("--set", f"{name}={value}")]
    return ["pretrain", method, SAMPLE, "--out", str(out), "--steps", str(STEPS), "--device", "cpu", *sets]


@pytest.mark.parametrize(("method", "encoder"), [("simclr", "resnet-mini"), ("dino", "vit-micro/4")])
def test_two_ranks_optimise_as_one(method: str, encoder: str, tmp_path: Path) -> None:
    """float32: equal within rounding, which the first steps magnify a little."""
    tacit.pretrain(method, SAMPLE, out=tmp_path / "one", steps=STEPS, options=OPTIONS | {"encoder": encoder}, device="cpu")
    on_two_ranks(*words(method, encoder, tmp_path / "two"))
    one, two = (read_table(tmp_path / name / "metrics.csv")["loss"] for name in ("one", "two"))
    assert one[0] == pytest.approx(two[0], rel=1e-5)
    assert one == pytest.approx(two, rel=1e-2)
    assert (tmp_path / "two" / "encoder.json").is_file()


def test_a_run_on_one_rank_goes_on_with_two(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = OPTIONS | {"encoder": "resnet-mini", "checkpoint_every": "3"}
    tacit.pretrain("simclr", SAMPLE, out=whole, steps=STEPS, options=options, device="cpu")
    tacit.pretrain("simclr", SAMPLE, out=cut, steps=STEPS, options=options, device="cpu")
    # As if it had been killed after its second checkpoint: that of step 6 is made again from the start of the run.
    for name in ("encoder.json", "encoder.safetensors", "verdict.json", "checkpoints/last.pt"):
        (cut / name).unlink()
    on_two_ranks("resume", str(cut))
    one, two = (read_table(folder / "metrics.csv")["loss"] for folder in (whole, cut))
    assert one == pytest.approx(two, rel=1e-2)
