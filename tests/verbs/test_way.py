"""The whole way as a person types it: from a folder of pictures to everything that can be done with a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from .conftest import QUICK, SAMPLE, Tacit


def test_a_folder_becomes_a_run_with_everything_in_it(tacit: Tacit, photographs: Path, tmp_path: Path) -> None:
    answer = tacit("pretrain", "simclr", photographs, "--steps", "3", *QUICK, "--set", "batch=32")
    assert answer.code == 0, answer.err
    run = tmp_path / "runs" / "simclr-photographs-1"
    for name in (
        "config.toml", "run.json", "metrics.csv", "figures.csv", "speed.csv", "log.txt", "skipped.tsv", "verdict.json",
        "checkpoints/last.pt", "encoder.safetensors", "encoder.json", "pictures/captions.json",
    ):  # fmt: skip
        assert (run / name).is_file(), name
    assert "run in runs/simclr-photographs-1" in answer.out
    assert tacit("pretrain", "simclr", photographs, "--steps", "1", *QUICK, "--set", "batch=32").code == 0
    assert (tmp_path / "runs" / "simclr-photographs-2").is_dir()


def test_evaluate_stands_beside_untrained_and_raw_input(tacit: Tacit, trained: Path) -> None:
    answer = tacit("evaluate", trained, SAMPLE, "--protocol", "knn")
    assert answer.code == 0, answer.err
    assert "untrained" in answer.out
    records = json.loads((trained / "evaluations" / "fashion_mnist_sprite.json").read_text())
    assert {record["encoder"] for record in records if record["protocol"] == "knn"} == {"run", "untrained", "input"}
    assert "untrained" not in tacit("evaluate", trained, SAMPLE, "--protocol", "knn", "--baselines", "none").out


def test_embed_writes_what_was_asked_for(tacit: Tacit, trained: Path, tmp_path: Path) -> None:
    assert tacit("embed", trained, SAMPLE).code == 0
    table = pq.read_table(tmp_path / "embeddings.parquet")
    assert table.num_rows == 900
    assert {"id", "path", "embedding"} <= set(table.column_names)
    assert tacit("embed", trained, SAMPLE, "--out", "features.npy", "--split", "test").code == 0
    assert np.load(tmp_path / "features.npy").shape == (240, 256)


def test_other_outputs_of_the_encoder_are_features_too(tacit: Tacit, trained: Path, tmp_path: Path) -> None:
    assert tacit("embed", trained, SAMPLE, "--out", "mean.npy", "--features", "mean").code == 0
    assert np.load(tmp_path / "mean.npy").shape == (900, 256)
    answer = tacit("evaluate", trained, SAMPLE, "--protocol", "knn", "--features", "class")
    assert (answer.code, "no class token" in answer.err) == (2, True)
    answer = tacit("embed", trained, SAMPLE, "--features", "clas")
    assert (answer.code, "did you mean 'class'" in answer.err) == (2, True)


def test_search_finds_by_row_and_by_file(tacit: Tacit, trained: Path, photographs: Path) -> None:
    answer = tacit("search", trained, "row:3", "-k", "4")
    assert answer.code == 0, answer.err
    assert len(answer.out.splitlines()) == 4
    from PIL import Image

    path = photographs / "grey.png"
    Image.new("L", (28, 28), 90).save(path)
    assert len(tacit("search", trained, path, "-k", "2").out.splitlines()) == 2


def test_report_and_comparison_are_pages(tacit: Tacit, trained: Path, tmp_path: Path) -> None:
    assert tacit("report", trained, "--out", "page.html").code == 0
    assert (tmp_path / "page.html").stat().st_size < 6e6
    shutil.copytree(trained, tmp_path / "again")
    answer = tacit("compare", trained, "again", "--out", "both.html")
    assert answer.code == 0, answer.err
    assert (tmp_path / "both.html").is_file()


def test_every_export_comes_back(tacit: Tacit, trained: Path, tmp_path: Path) -> None:
    for form, name in (("onnx", "e.onnx"), ("torch", "e.pt2")):
        answer = tacit("export", trained, "--format", form, "--out", name)
        assert answer.code == 0, answer.err
        assert "reopened" in answer.out
        assert (tmp_path / name).is_file()


def test_doctor_says_what_it_saw(tacit: Tacit, photographs: Path) -> None:
    (photographs / "cats" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    answer = tacit("doctor", photographs)
    assert answer.code == 0, answer.err
    assert "broken.png" in answer.out
    assert "labels    2" in answer.out
    assert "a pass" in answer.out


def test_lists_answer(tacit: Tacit) -> None:
    assert "simclr" in tacit("methods").out
    assert "temperature" in tacit("methods", "simclr").out
    assert "sample:omniglot_small" in tacit("samples").out
    assert tacit("--help").code == 0
