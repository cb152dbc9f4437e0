"""A run's encoder on labelled data: decoded once and small, with what the run knows of its data."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tacit
from tacit import cli
from tacit.core.errors import TacitError
from tacit.data.kinds import image
from tacit.data.open import open_data
from tacit.data.skipped import MAX_BAD
from tacit.evaluation.features import extract
from tacit.evaluation.finetune import finetune
from tacit.evaluation.task import Task
from tacit.use import evaluate as module
from tacit.use.evaluate import evaluate, subject, untrained
from tacit.use.run import OpenRun
from tacit.views.image import ImageView


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 smooth pictures of different sizes, larger than what an encoder of 16 pixels can use, in two class folders."""
    folder, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for number in range(60):
        path = folder / ("cats" if number % 2 else "dogs") / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize(tuple(generator.integers(60, 90, 2).tolist()), Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    options = {"precision": "float32", "batch": 32, "size": 16, "encoder": "resnet-mini"}
    tacit.pretrain("simclr", photographs, out=out, steps=1, options=options, device="cpu", mirrored=False)
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> OpenRun:
    return OpenRun(shutil.copytree(trained, tmp_path / "run"), "cpu")


@pytest.fixture(autouse=True)
def _fine_tuning_is_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tacit.evaluation.protocol.finetune", partial(finetune, epochs=1))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was decoded."""
    seen: Counter[str] = Counter()
    original = image.decode

    def counted(payload, form=None, side=None, name="", limits=image.DEFAULT_LIMITS, part=None):
        seen[name] += 1
        return original(payload, form, side, name, limits, part)

    monkeypatch.setattr(image, "decode", counted)
    return seen


def test_every_sample_is_decoded_once_whatever_is_measured(run: OpenRun, photographs: Path, decoded: Counter[str]):
    collection = open_data(photographs)
    evaluate(run, collection, "photographs", ["knn", "figures", "finetune"])
    assert set(decoded.values()) == {1}
    assert len(decoded) == 60
    evaluate(run, collection, "photographs", ["knn"], seed=1)
    assert sum(decoded.values()) == 60


def test_figures_from_the_store_are_those_without(run: OpenRun, photographs: Path, monkeypatch: pytest.MonkeyPatch):
    def figures() -> list[dict]:
        found = evaluate(run, open_data(photographs), "photographs", ["knn", "figures", "finetune"])
        return [asdict(record) | {"seconds": 0} for record in found]

    stored = figures()
    monkeypatch.setattr(module, "decoded_once", lambda task: task)
    assert figures() == stored


def test_weights_that_never_moved_are_level_with_the_untrained_baseline(photographs: Path, tmp_path: Path):
    """Training settles batch statistics even at a rate of 0; that must not pass for learning."""
    options = {"precision": "float32", "batch": 45, "size": 16, "encoder": "resnet-mini", "lr": 0.0, "area": 1.0, "jitter": 0.0}
    frozen = tacit.pretrain("simclr", photographs, out=tmp_path / "frozen", steps=60, options=options, device="cpu")._open
    task = Task.of("photographs", open_data(photographs), frozen.spec)
    found, before, made = (
        extract(frozen.encode(of=encoder), task.batches(task.split.ids)).values
        for encoder in (frozen.encoder, untrained(frozen, task), frozen.untrained)
    )
    distance = torch.nn.functional.cosine_similarity(found, before).mean()
    assert distance > 0.98
    assert distance > torch.nn.functional.cosine_similarity(found, made).mean()


def test_a_few_labels_in_a_large_collection_do_not_decode_it_all(
    run: OpenRun, photographs: Path, tmp_path: Path, decoded: Counter[str]
):
    paths = sorted(photographs.rglob("*.png"))
    rows = [f"{path},{path.parent.name if number % 3 == 0 else ''}" for number, path in enumerate(paths)]
    (tmp_path / "few.csv").write_text("\n".join(["path,label", *rows]))
    evaluate(run, open_data(tmp_path / "few.csv"), "few", ["knn"])
    assert len(decoded) == 20


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_decoded(
    run: OpenRun, photographs: Path, decoded: Counter[str]
):
    run.folder.evaluations.write_text("a file where a folder should be")
    with pytest.raises(TacitError, match="cannot write"):
        evaluate(run, open_data(photographs), "photographs", ["knn"])
    assert not decoded


def test_more_bad_samples_are_allowed_where_somebody_says_so(run: OpenRun, photographs: Path, tmp_path: Path):
    shutil.copytree(photographs, tmp_path / "some")
    for path in sorted((tmp_path / "some").rglob("*.png"))[:10]:
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TacitError, match=r"10 of 60 samples cannot be used.*--max-bad"):
        evaluate(run, open_data(tmp_path / "some"), "some", ["knn"])
    assert evaluate(run, open_data(tmp_path / "some"), "some", ["knn"], max_bad=0.2)
    assert cli.MAX_BAD == MAX_BAD


def test_samples_are_decoded_at_what_the_encoder_can_use(run: OpenRun, photographs: Path, decoded: Counter[str]):
    collection = open_data(photographs)
    assert run.side(collection) == 24
    assert run.side(open_data("sample:fashion_mnist_sprite")) == 24  # 28 pixels
    assert OpenRun.side(_sized(run, 20), open_data("sample:fashion_mnist_sprite")) is None
    small = extract(run.encode(), run.loader(collection)).values
    whole = run.loader(collection)
    whole.side = None
    assert torch.nn.functional.cosine_similarity(small, extract(run.encode(), whole).values).min() > 0.99


def _sized(run: OpenRun, size: int) -> OpenRun:
    run.size = size
    return run


def test_what_training_has_decoded_is_not_decoded_again(run: OpenRun, tmp_path: Path, decoded: Counter[str], photographs: Path):
    tacit.pretrain(
        "simclr", photographs, out=tmp_path / "again", steps=1, device="cpu",
        options={"precision": "float32", "batch": 32, "size": 16, "encoder": "resnet-mini"},
    )  # fmt: skip
    decoded.clear()
    again = tacit.load(tmp_path / "again", "cpu")
    again.embed(photographs, out=tmp_path / "f.parquet")
    again.features(photographs)
    again.search("row:3")
    assert not decoded


def test_a_file_of_the_collection_finds_itself(run: OpenRun, photographs: Path):
    found = tacit.load(run.folder.path, "cpu").search(photographs / "cats" / "07.png", data=photographs, k=1)[0]
    assert found.path == "cats/07.png"
    assert found.score == pytest.approx(1, abs=1e-6)


def test_fine_tuning_mirrors_where_the_run_did(run: OpenRun):
    config = run.folder.read_config()
    for flip in (0.0, 0.5):
        config["method"]["flip"] = flip
        run.folder.write_config(config)
        tuning = subject(run, run.encoder, seed=0).tuning
        assert tuning is not None
        assert isinstance(tuning.view, ImageView)
        assert tuning.view.flip == flip
    del config["method"]["flip"]
    run.folder.write_config(config)
    tuning = subject(run, run.encoder, seed=0).tuning
    assert tuning is not None
    assert isinstance(tuning.view, ImageView)
    assert tuning.view.flip == 0


def test_a_run_on_what_must_not_be_mirrored_says_so(trained: Path):
    assert OpenRun(trained).folder.read_config()["method"]["flip"] == 0


def test_records_say_which_features_were_read(run: OpenRun, photographs: Path):
    found = evaluate(run, open_data(photographs), "photographs", ["knn", "figures"], features="mean")
    assert {record.detail.get("features") for record in found if record.encoder != "input"} == {"mean"}
    assert {record.detail.get("features") for record in found if record.encoder == "input"} == {None}
    kept = json.loads((run.folder.evaluations / "photographs.json").read_text())
    assert {record["detail"].get("features") for record in kept} == {"mean", None}
    with pytest.raises(TacitError, match="did you mean"):
        evaluate(run, open_data(photographs), "photographs", ["knn"], features="meen")


class LabelledDataset(torch.utils.data.Dataset):
    """Its labels are known only by making every item."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        return np.full((16, 16, 3), 40 * (row % 2) + row, np.uint8), row % 2


def test_labels_behind_the_items_of_a_dataset_are_found(run: OpenRun):
    collection = open_data(LabelledDataset())
    task = Task.of("items", collection, run.spec)
    assert task.split.classes == ("0", "1")
    assert {record.protocol for record in evaluate(run, collection, "items", ["knn"])} == {"knn"}
