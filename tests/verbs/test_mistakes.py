"""Whatever a person gets wrong is one line that says what, and how to mend it; exit code 2; nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import QUICK, SAMPLE, Tacit

MISTAKES = {
    "unknown method": (["pretrain", "simclrr", SAMPLE], "did you mean 'simclr'"),
    "unknown option": (["pretrain", "simclr", SAMPLE, "--set", "temprature=1"], "did you mean 'temperature'"),
    "option out of bounds": (["pretrain", "simclr", SAMPLE, "--set", "temperature=-1"], "greater than 0"),
    "option of the wrong type": (["pretrain", "simclr", SAMPLE, "--set", "temperature=warm"], "valid number"),
    "option without a value": (["pretrain", "simclr", SAMPLE, "--set", "temperature"], "name=value"),
    "no such path": (["pretrain", "simclr", "nowhere/at/all"], "no such file or folder"),
    "unknown sample": (["pretrain", "simclr", "sample:omniglot"], "did you mean 'omniglot_small'"),
    "two budgets": (["pretrain", "simclr", SAMPLE, "--minutes", "1", "--steps", "3"], "give one of them"),
    "no budget at all": (["pretrain", "simclr", SAMPLE, "--minutes", "0"], "above 0"),
    "unknown recipe": (["pretrain", "simclr", SAMPLE, "--recipe", "fast"], "auto, paper, quick"),
    "unknown column of the paper": (["pretrain", "simclr", SAMPLE, "--recipe", "paper:cifr"], "did you mean 'paper:cifar'"),
    "a warm-up longer than the run": (
        ["pretrain", "simclr", SAMPLE, "--steps", "9", "--set", "warmup=10"],
        "warmup=10 is longer than the run of 9",
    ),
    "paper's batch on little data": (["pretrain", "simclr", SAMPLE, "--recipe", "paper"], "--set batch="),
    "unknown encoder": (["pretrain", "simclr", SAMPLE, "--encoder", "vit-huh/4", "--steps", "3"], "did you mean"),
    "encoder that cannot hide": (["pretrain", "mae", SAMPLE, "--encoder", "resnet18", "--steps", "3"], "vit-mini/4"),
    "absent device": (["pretrain", "simclr", SAMPLE, "--device", "cuda:99", "--steps", "3"], "--device auto"),
    "nameless device": (["pretrain", "simclr", SAMPLE, "--device", "gpu", "--steps", "3"], "auto, cpu, cuda"),
    "unknown verb": (["pretrian", "simclr"], "pretrian"),
    "missing argument": (["pretrain"], "method"),
    "not a run": (["report", "."], "not a run folder"),
    "one run to compare": (["compare", "only-one"], "two or more"),
    "unknown method to explain": (["methods", "moco"], "did you mean 'moco-v3'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(tacit: Tacit, tmp_path: Path, name: str) -> None:
    words, hint = MISTAKES[name]
    answer = tacit(*words)
    assert answer.code == 2
    assert answer.err.startswith("tacit: ")
    assert answer.err.count("\n") == 1
    assert hint in answer.err
    assert "Traceback" not in answer.err
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_and_a_single_image_are_refused(tacit: Tacit, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no files" in tacit("pretrain", "simclr", "empty").err
    (tmp_path / "one").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "one" / "a.png")
    answer = tacit("pretrain", "simclr", "one")
    assert answer.code == 2
    assert "1 sample" in answer.err


def test_pictures_smaller_than_a_view_are_refused_by_name(tacit: Tacit, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    for number in range(100):
        Image.new("L", (2, 2), number).save(tmp_path / "tiny" / f"{number}.png")
    answer = tacit("pretrain", "mae", "tiny", "--steps", "2", "--set", "size=4", "--encoder", "vit-micro/8")
    assert answer.code == 2
    assert "patch" in answer.err


def test_all_grey_pictures_do_not_crash_and_are_not_called_learned(tacit: Tacit, tmp_path: Path) -> None:
    (tmp_path / "grey").mkdir()
    for number in range(128):
        Image.new("RGB", (16, 16), (128, 128, 128)).save(tmp_path / "grey" / f"{number}.png")
    answer = tacit("pretrain", "simclr", "grey", "--steps", "12", *QUICK, "--out", "run")
    assert answer.code in (0, 3)
    assert "learned" not in answer.out
    assert "Traceback" not in answer.err


def test_mixed_sizes_and_channels_train(tacit: Tacit, photographs: Path) -> None:
    for number in range(40):
        generator = np.random.default_rng(number)
        Image.fromarray(generator.integers(0, 256, (24, 30), dtype=np.uint8)).save(photographs / "cats" / f"grey{number}.png")
    answer = tacit("pretrain", "simclr", photographs, "--steps", "2", *QUICK, "--set", "batch=32", "--out", "run")
    assert answer.code == 0, answer.err


def test_a_folder_that_holds_a_run_is_not_overwritten(tacit: Tacit, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "done")
    answer = tacit("pretrain", "simclr", SAMPLE, "--out", "done")
    assert answer.code == 2
    assert "already holds a finished run" in answer.err
    (tmp_path / "done" / "encoder.json").unlink()
    assert "tacit resume done" in tacit("pretrain", "simclr", SAMPLE, "--out", "done").err
    assert "unfinished" in tacit("report", "done").err


def test_evaluation_without_labels_is_refused(tacit: Tacit, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for number in range(10):
        Image.new("L", (20, 20), 10 * number).save(tmp_path / "flat" / f"{number}.png")
    answer = tacit("evaluate", trained, "flat")
    assert answer.code == 2
    assert "labels" in answer.err


def test_wrong_words_about_a_run_are_refused(tacit: Tacit, trained: Path) -> None:
    for words, hint in [
        (["evaluate", trained, SAMPLE, "--protocol", "knnn"], "did you mean 'knn'"),
        (["evaluate", trained, "sample:bccd_cells"], "channel"),
        (["embed", trained, SAMPLE, "--out", "x.csv"], ".parquet"),
        (["embed", trained, SAMPLE, "--shard", "4/4"], "k/n"),
        (["search", trained, "row:99999"], "row:0 to row:659"),
        (["search", trained, "nothing.png"], "nothing.png"),
        (["export", trained, "--format", "tf"], "onnx, timm, torch"),
    ]:
        answer = tacit(*words)
        assert answer.code == 2, words
        assert hint in answer.err, answer.err
        assert answer.err.count("\n") == 1
