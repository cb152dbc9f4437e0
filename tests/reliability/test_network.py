"""No verb calls home."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.verbs.conftest import Tacit

from tacit import cli

DATA = "pictures.npz"
QUICK = ["--set", "precision=float32", "--set", "batch=32", "--set", "size=16", "--encoder", "resnet-mini", "--device", "cpu"]

VERBS = {
    "pretrain": ["simclr", DATA, "--out", "run", "--steps", "3", *QUICK],
    "resume": ["cut-off"],
    "evaluate": ["run", DATA, "--protocol", "knn"],
    "embed": ["run", DATA, "--out", "features.parquet"],
    "search": ["run", "row:0", "-k", "2"],
    "report": ["run"],
    "compare": ["run", "cut-off", "--out", "compared.html"],
    "export": ["run", "--format", "onnx"],
    "doctor": [DATA, "--device", "cpu"],
    "methods": ["simclr"],
    "samples": [],
}
"""What is typed behind each verb, in an order in which one makes what the next needs."""


@pytest.fixture
def typed(tacit: Tacit, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The command line, in a folder of its own, without a network."""
    generator = np.random.default_rng(0)
    np.savez(DATA, images=generator.integers(0, 256, (96, 16, 16), np.uint8), labels=np.arange(96) % 3)

    def refuse(*words: Any, **named: Any) -> None:
        raise AssertionError(f"a connection was asked for: {words} {named}")

    for name in ("connect", "connect_ex", "sendto", "sendmsg", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)

    def run(*words: str) -> None:
        assert not (answer := tacit(*words)).code, (words, answer.err)

    return run


def test_no_verb_opens_a_connection(typed: Callable[..., None]) -> None:
    for verb, words in VERBS.items():
        if verb == "resume":
            shutil.copytree("run", "cut-off")
            Path("cut-off/encoder.json").unlink()
        typed(verb, *words)
        typed(verb, "--help")
    typed("--help")
    for page in (Path("run/report.html"), Path("compared.html")):
        addresses = re.findall(r"""(?:src|href|action|srcset)=["']([^"']*)|url\(([^)]*)|@import ([^;]*)""", page.read_text())
        assert [to for found in addresses for to in found if to and not to.startswith(("#", "data:"))] == []


def test_every_verb_is_tried(typed: Callable[..., None]) -> None:
    assert {command.name or command.callback.__name__ for command in cli.app.registered_commands} == set(VERBS)


def test_the_refusal_is_heard(typed: Callable[..., None]) -> None:
    with pytest.raises(AssertionError, match="a connection was asked for"):
        socket.create_connection(("localhost", 9))
    with pytest.raises(AssertionError, match="a connection was asked for"):
        socket.socket().connect(("localhost", 9))
