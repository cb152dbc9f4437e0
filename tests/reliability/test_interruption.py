"""A run that was cut off goes on with the very next batch, and ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tacit
from tacit.core.errors import TacitError

SAMPLE = "sample:fashion_mnist_sprite"
OPTIONS = {"precision": "float32", "batch": 64, "size": 16, "encoder": "resnet-mini"}
SAME = ("metrics.csv", "figures.csv", "encoder.safetensors", "verdict.json")


def start(out: Path, steps: int, every: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "tacit.cli", "pretrain", "simclr", SAMPLE, "--out", str(out), "--steps", str(steps)]
    words += [part for name, value in OPTIONS.items() for part in ("--set", f"{name}={value}")]
    words += ["--checkpoint-every", every, "--device", "cpu"]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for(path: Path, run: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert run.poll() is None, run.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    tacit.pretrain("simclr", SAMPLE, out=out, steps=30, options=OPTIONS, device="cpu")
    return out


def assert_same(one: Path, other: Path) -> None:
    for name in SAME:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_a_killed_run_resumes_bitwise(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = start(out, 30, "4")
    wait_for(out / "checkpoints" / "last.pt", run)
    run.kill()
    run.wait()
    assert not (out / "encoder.json").exists()
    tacit.resume(out)
    assert_same(whole, out)


def test_a_run_killed_before_its_first_checkpoint_starts_again(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = start(out, 30, "10m")
    wait_for(out / "config.toml", run)
    run.kill()
    run.wait()
    tacit.resume(out)
    assert_same(whole, out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(whole: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "run"
    run = start(out, 30, "10m")
    wait_for(out / "metrics.csv", run)
    os.kill(run.pid, number)
    said = run.communicate(timeout=120)[1].decode()
    assert run.returncode == 128 + number
    assert f"tacit resume {out}" in said
    assert "Traceback" not in said
    tacit.resume(out)
    assert_same(whole, out)


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = start(out, 3000, "10m")
    wait_for(out / "metrics.csv", run)
    try:
        with pytest.raises(TacitError, match="another process"):
            tacit.resume(out)
    finally:
        run.kill()
        run.wait()


def test_changed_data_is_not_gone_on_with(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    data = tmp_path / "data"
    data.mkdir()
    generator = np.random.default_rng(0)
    for number in range(80):
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(data / f"{number}.png")
    out = tmp_path / "run"
    tacit.pretrain("simclr", data, out=out, steps=2, options=OPTIONS | {"batch": 32}, device="cpu")
    (out / "encoder.json").unlink()
    Image.new("RGB", (16, 16)).save(data / "new.png")
    with pytest.raises(TacitError, match="changed"):
        tacit.resume(out)
