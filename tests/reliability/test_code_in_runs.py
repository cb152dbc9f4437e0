"""Opening a run executes no code that nobody on this machine has named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tacit
from tacit.core.errors import TacitError

SAMPLE = "sample:fashion_mnist_sprite"
NET = """
import pathlib, torch
pathlib.Path(__file__).with_suffix(".ran").touch()

class Net(torch.nn.Module):
    def __init__(self, channels, size):
        super().__init__()
        self.width = 8
        self.layer = torch.nn.Conv2d(channels, 8, 3)

    def forward(self, x):
        return self.layer(x).mean((2, 3))
"""


def test_code_is_executed_for_who_named_it_and_refused_in_a_run_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "mine"))
    net = tmp_path / "net.py"
    net.write_text(NET)
    options = {"precision": "float32", "batch": 64, "size": 16, "encoder": f"{net}:Net"}
    run = tacit.pretrain("simclr", SAMPLE, out=tmp_path / "run", steps=2, options=options, device="cpu")
    assert run.features(SAMPLE).shape == (900, 8)

    net.with_suffix(".ran").unlink()
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "somebody else's"))
    with pytest.raises(TacitError, match="would execute"):
        tacit.load(tmp_path / "run")
    (tmp_path / "run" / "encoder.json").rename(tmp_path / "kept.json")
    with pytest.raises(TacitError, match="would execute"):
        tacit.resume(tmp_path / "run")
    (tmp_path / "kept.json").rename(tmp_path / "run" / "encoder.json")
    assert not net.with_suffix(".ran").exists()
    monkeypatch.setenv("TACIT_TRUST_CODE", "1")
    assert tacit.load(tmp_path / "run").encoder.width == 8


def test_changed_code_is_asked_about_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "mine"))
    net = tmp_path / "net.py"
    net.write_text(NET)
    options = {"precision": "float32", "batch": 64, "size": 16, "encoder": f"{net}:Net"}
    tacit.pretrain("simclr", SAMPLE, out=tmp_path / "run", steps=1, options=options, device="cpu")
    assert json.loads((tmp_path / "run" / "encoder.json").read_text())["encoder"]["name"] == f"{net}:Net"
    net.write_text(NET + "\n# another day\n")
    with pytest.raises(TacitError, match="has changed"):
        tacit.load(tmp_path / "run")
