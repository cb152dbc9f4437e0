"""No verb calls home."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

import tacit

SAMPLE = "sample:fashion_mnist_sprite"


def test_no_verb_opens_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: Any) -> None:
        raise AssertionError(f"a connection was opened: {words[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    options = {"precision": "float32", "batch": 64, "size": 16, "encoder": "resnet-mini"}
    run = tacit.pretrain("simclr", SAMPLE, out=tmp_path / "run", steps=3, options=options, device="cpu")
    run.evaluate(SAMPLE, protocols=["knn"])
    run.embed(SAMPLE, out=tmp_path / "features.parquet")
    run.search("row:0", k=2)
    run.report()
    run.export("torch", tmp_path / "encoder.pt2")
    tacit.doctor(SAMPLE, hosts=False)
