"""What can be switched on beside plain training changes nothing that it should not."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tacit
from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.methods.registry import method
from tacit.nn import build
from tacit.train.folder import read_table
from tacit.train.recipe import resolve
from tacit.train.situation import Budget, Situation

SAMPLE = "sample:fashion_mnist_sprite"
OPTIONS: dict[str, Any] = {"precision": "float32", "batch": 64, "size": 16, "encoder": "vit-micro/4"}


def run(out: Path, **more: Any) -> Path:
    tacit.pretrain("mae", SAMPLE, out=out, steps=4, options=OPTIONS | more, device="cpu")
    return out


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("plain") / "run")


def test_a_probe_writes_its_figure_and_changes_no_weight(plain: Path, tmp_path: Path) -> None:
    probed = run(tmp_path / "run", probe=SAMPLE)
    found = read_table(probed / "figures.csv")["probe_knn"]
    assert all(value is not None and 0 < value < 1 for value in found)
    assert (plain / "encoder.safetensors").read_bytes() == (probed / "encoder.safetensors").read_bytes()
    assert (plain / "verdict.json").read_bytes() == (probed / "verdict.json").read_bytes()


def test_a_probe_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TacitError, match="channel"):
        run(tmp_path / "run", probe="sample:bccd_cells")
    assert not (tmp_path / "run").exists()


def test_weights_of_a_run_bring_its_encoder_along_unless_another_is_named(plain: Path, tmp_path: Path) -> None:
    steps: dict[str, Any] = {"steps": 2, "device": "cpu"}
    options = {"precision": "float32", "batch": 64, "init": str(plain)}
    begun = tacit.pretrain("simclr", SAMPLE, out=tmp_path / "run", options=options, **steps)
    assert begun.config["train"]["encoder"] == "vit-micro/4"  # `auto` would take a residual network
    (said,) = re.findall(r"(\d+) of (\d+) tensors", (tmp_path / "run/log.txt").read_text())
    assert said[0] == said[1]
    with pytest.raises(TacitError, match="choose the encoder that they were trained with"):
        tacit.pretrain("simclr", SAMPLE, out=tmp_path / "other", options=options | {"encoder": "resnet-mini"}, **steps)
    with pytest.raises(TacitError, match="init"):
        tacit.pretrain("simclr", SAMPLE, out=tmp_path / "other", options=options | {"init": 3}, **steps)


def test_rates_are_gentle_only_after_a_run_that_saw_far_more_samples_and_with_weights_of_a_file(plain: Path) -> None:
    seen: Any = SimpleNamespace(samples=900, duplicates=0.0, sparse=0.0, flat=0.0, captions=())

    def taken(init: Path | None, batch: int) -> tuple[float, float]:
        spec, given = Spec("image", 1, (28, 28)), {"precision": "float32", "batch": batch, "encoder": "vit-micro/4"}
        situation = Situation(method("simclr"), spec, seen, None, Budget(steps=1), "cpu", measure=lambda o, t: 1.0)
        training = resolve("auto", situation, given | ({"init": str(init)} if init else {})).training
        return training.lr, training.layer_decay

    def gentle(batch: int) -> Any:
        return pytest.approx(0.3 * taken(None, batch)[0]), 0.75

    assert taken(plain, 64) == taken(None, 64)  # `plain` saw four times 64 samples
    assert taken(plain, 32) == gentle(32)
    assert taken(plain / "encoder.safetensors", 64) == gentle(64)


def test_a_run_whose_encoder_is_code_that_nobody_named_is_not_gone_on_from(plain: Path, tmp_path: Path) -> None:
    odd, code = tmp_path / "odd", tmp_path / "code.py"
    shutil.copytree(plain, odd)
    code.write_text("raise SystemExit('executed')")
    config = odd / "config.toml"
    config.write_text(config.read_text().replace('"vit-micro/4"', f'"{code}:Made"'))
    with pytest.raises(TacitError, match="TACIT_TRUST_CODE"):
        tacit.pretrain("simclr", SAMPLE, out=tmp_path / "run", options={"init": str(odd)}, steps=2, device="cpu")


def test_recomputed_activations_give_the_same_gradients() -> None:
    x = torch.rand(4, 3, 16, 16)
    found = []
    for recompute in (False, True):
        encoder = build.encoder("vit-micro/4", 3, 16).double()
        encoder.recompute = recompute  # pyright: ignore[reportAttributeAccessIssue]
        encoder(x.double()).pooled.square().sum().backward()
        found.append([p.grad for p in encoder.parameters() if p.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_recomputing_a_residual_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TacitError, match="transformers"):
        tacit.pretrain(
            "simclr", SAMPLE, out=tmp_path / "r", steps=1, options=OPTIONS | {"encoder": "resnet-mini", "recompute": True}
        )


@pytest.mark.slow
def test_a_compiled_encoder_trains_to_the_same_within_rounding(plain: Path, tmp_path: Path) -> None:
    compiled = run(tmp_path / "run", compile=True)
    one, two = (read_table(folder / "metrics.csv")["loss"] for folder in (plain, compiled))
    assert one == pytest.approx(two, rel=1e-3)


def test_numbers_go_to_a_logger_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, dict[str, float]]] = []
    logger = SimpleNamespace(log=lambda figures, step: seen.append((step, figures)), finish=lambda: seen.append((-1, {})))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **how: logger))
    run(tmp_path / "run", log_to="wandb")
    assert any("train/loss" in figures for _, figures in seen)
    assert seen[-1][0] == -1


def test_a_logger_that_is_not_installed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(TacitError, match=r"tacit\[loggers\]"):
        run(tmp_path / "run", log_to="mlflow")
    assert not (tmp_path / "run").exists()
