"""Tokens and places of frozen encoders judged by labels of points, voxels and pixels, against slow references."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.metrics.meandice import compute_dice
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, jaccard_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from tiny_places import cloud_reader, events, grid_reader
from torch import Tensor

import tacit
from tacit.core.errors import TacitError
from tacit.data.open import measure, open_data
from tacit.data.spec import Batch
from tacit.evaluation import dense_segmentation
from tacit.evaluation.dense import DENSE, run_dense
from tacit.evaluation.dense_few import DRAWS, FEW, few_samples
from tacit.evaluation.dense_reader import Tokens
from tacit.evaluation.dense_segmentation import Head, Places, by_classes, figures, segmentation
from tacit.evaluation.dense_task import DenseTask, split_masked
from tacit.evaluation.dense_tokens import COMPONENTS, PENALTY, tokens
from tacit.evaluation.task import Task
from tacit.use.evaluate import evaluate, table
from tacit.use.run import OpenRun


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dense_segmentation, "PLACES", 600)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return events(tmp_path_factory.mktemp("events"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return polar(data, tmp_path_factory.mktemp("runs") / "run")


def polar(data: Path, out: Path) -> Path:
    options = {"radius": 0.25, "pointnet": 4, "slots": 6, "decoder_depth": 1, "drop_path": 0.0, "dropout": 0.0, "norm": "token"}
    options |= {"precision": "float32", "batch": 4, "size": 60, "encoder": "point-vit-micro", "held_back": 4}
    tacit.pretrain("polar-mae", data, kind="points", out=out, steps=2, options=options, device="cpu")
    return out


def dense_task(path: Path, kind: str = "points", **how: Any) -> DenseTask:
    collection = open_data(path, kind=kind)
    return DenseTask.of(Task("events", collection, measure(collection), split_masked(collection), **how))


class Said:
    """A reader that says of each place what a function says of the sample's values `[C, P]`; every place is a token."""

    background = False

    def __init__(self, says: Any) -> None:
        self.says = says

    def _all(self, batch: Batch) -> list[Tensor]:
        return [self.says(row[:, :size]).float() for row, size in zip(batch.data, batch.sizes[:, 0].tolist(), strict=True)]

    def tokens(self, batch: Batch) -> list[Tokens]:
        return [Tokens(values, torch.arange(len(values))[:, None]) for values in self._all(batch)]

    def features(self, batch: Batch, places: Sequence[Tensor]) -> list[Tensor]:
        return [values[wanted] for values, wanted in zip(self._all(batch), places, strict=True)]

    def scores(self, batch: Batch, weight: Tensor, bias: Tensor) -> list[Tensor]:
        return [values @ weight + bias for values in self._all(batch)]


# What is counted ------------------------------------------------------------------------------------------------------


def test_figures_are_those_of_scikit_learn_and_monai():
    random = np.random.default_rng(0)
    truth, answers = random.integers(0, 4, (2, 5, 80))
    truth[0][truth[0] == 3] = 0  # a class that one sample does not have
    counts = torch.stack(
        [torch.bincount(torch.from_numpy(t * 4 + a), minlength=16).reshape(4, 4) for t, a in zip(truth, answers, strict=True)]
    )
    found = figures(counts, first=1)
    assert found["iou"] == pytest.approx(jaccard_score(truth.ravel(), answers.ravel(), average="macro"))
    assert found["f1"] == pytest.approx(f1_score(truth.ravel(), answers.ravel(), average="macro"))
    hot = [F.one_hot(torch.from_numpy(each), 4).movedim(-1, 1) for each in (answers, truth)]
    dice = compute_dice(*hot, include_background=False, ignore_empty=True)
    assert found["dice"] == pytest.approx(float(dice.nanmean(dim=0).mean()))


def test_a_class_that_is_nowhere_is_in_no_mean():
    counts = torch.tensor([[[3, 1, 0], [0, 4, 0], [0, 0, 0]]])
    assert by_classes(counts)["iou"].isnan().tolist() == [False, False, True]
    assert figures(counts)["iou"] == pytest.approx((3 / 4 + 4 / 5) / 2)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_a_head_on_features_as_they_are_is_scikit_learn_s_on_standardised_ones(classes: int, balance: float):
    random = np.random.default_rng(classes)
    y = random.choice(classes, 300, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    x = 50 + 9 * (random.normal(size=(300, 6)) + np.eye(classes, 6)[y])
    x[:, 5] = 4.0  # never changes
    head = dense_segmentation._head(Places(x, y, y), classes + 1, balance)
    model = LogisticRegression(C=1.0, max_iter=100, class_weight="balanced" if balance else None)
    expected = make_pipeline(StandardScaler(), model).fit(x, y).predict_proba(x)
    scores = torch.from_numpy(x) @ head.weight + head.bias
    assert scores.softmax(dim=1)[:, :classes].numpy() == pytest.approx(expected, abs=1e-3)
    assert (scores[:, classes] == -torch.inf).all()  # a class that was never seen


def test_a_head_that_saw_one_class_says_it():
    head = dense_segmentation._head(Places(np.ones((3, 2)), np.array([1, 1, 1]), np.arange(3)), 3, 1.0)
    assert isinstance(head, Head)
    assert int((torch.ones(2).double() @ head.weight + head.bias).argmax()) == 1


def test_ten_samples_are_drawn_several_times():
    sample = np.repeat(np.arange(40, 55), 3)
    drawn = list(few_samples(sample, seed=0))
    assert len(drawn) == DRAWS
    assert [len(np.unique(sample[rows])) for rows in drawn] == [FEW] * DRAWS
    assert all(len(rows) == 3 * FEW for rows in drawn)
    assert len({tuple(rows) for rows in drawn}) == DRAWS
    assert not list(few_samples(sample[:30], seed=0))


# Protocols ------------------------------------------------------------------------------------------------------------


def strength(values: Tensor) -> Tensor:
    return torch.stack([values[3], values[3].square()], dim=1)


def constant(values: Tensor) -> Tensor:
    return torch.ones(values.shape[1], 2)


def test_a_reader_that_knows_the_classes_beats_one_that_knows_nothing(data: Path):
    dense = dense_task(data)
    for protocol, metric in ((segmentation, "iou"), (tokens, "f1")):
        knows, nothing = protocol(Said(strength), dense), protocol(Said(constant), dense)
        assert knows.values[metric] > 0.7
        assert nothing.values[metric] < 0.55
        assert protocol(Said(strength), dense) == knows
        assert {metric, f"{metric}_10_samples"} <= knows.values.keys()
        assert knows.deviations.keys() == {name for name in knows.values if name.endswith("_10_samples")}


def test_shuffled_labels_are_chance(tmp_path: Path):
    dense = dense_task(events(tmp_path, seed=5))
    found = segmentation(Said(strength), dense)
    assert found.values["iou"] < 0.45


def test_f1_of_tokens_is_that_of_scikit_learn_s_machines(data: Path):
    dense, made = dense_task(data), cloud_reader()
    found = tokens(made, dense)
    x: dict[str, np.ndarray] = {}
    y: dict[str, np.ndarray] = {}
    for side, ids in (("train", dense.task.split.train), ("test", dense.task.split.test)):
        rows, truth = [], []
        for batch, labels in dense.batches(ids):
            for each, label in zip(made.tokens(batch), labels, strict=True):
                rows.append(each.features.double().numpy())
                for members in each.members.tolist():
                    held = {int(label[point]) for point in members if point >= 0}
                    truth.append([one in held for one in range(2)])
        x[side], y[side] = np.concatenate(rows), np.array(truth)
    how: dict[str, Any] = {"C": PENALTY, "class_weight": "balanced", "dual": False, "random_state": 0}
    machine = OneVsRestClassifier(LinearSVC(**how))
    components = PCA(min(COMPONENTS, *x["train"].shape), svd_solver="full")
    answers = make_pipeline(StandardScaler(), components, machine).fit(x["train"], y["train"].astype(int)).predict(x["test"])
    assert found.values["f1"] == pytest.approx(f1_score(y["test"], answers, average="macro"))
    assert found.detail["train_tokens"] == len(x["train"])
    assert found.detail["f1_by_class"].keys() == {"1", "2"}


def test_features_that_are_not_finite_are_refused(data: Path):
    broken = Said(lambda values: strength(values) * torch.nan)
    for protocol in (segmentation, tokens):
        with pytest.raises(TacitError, match="not finite: the encoder diverged"):
            protocol(broken, dense_task(data))


def test_every_dense_protocol_says_what_it_answers_and_what_it_costs():
    for name, protocol in DENSE.items():
        assert protocol.name == name
        assert protocol.says.endswith("?")
        assert protocol.cost


# Runs -----------------------------------------------------------------------------------------------------------------


def test_a_run_is_judged_by_its_points_beside_its_baselines(trained: Path, data: Path, tmp_path: Path):
    run = OpenRun(shutil.copytree(trained, tmp_path / "run"), "cpu")
    before = run.folder.weights.read_bytes()
    records = evaluate(run, open_data(data, kind="points"), "events", ["tokens", "segmentation"])
    found = {(r.protocol, r.metric, r.encoder): r.value for r in records}
    assert len(found) == len(records)
    for encoder in ("run", "untrained", "input"):
        assert 0 <= (found["tokens", "f1", encoder] or 0) <= 1
        assert {m for p, m, e in found if (p, e) == ("segmentation", encoder)} >= {"iou", "f1", "dice", "dice_10_samples"}
    assert (found["segmentation", "iou", "input"] or 0) > 0.6  # the strength of a point tells its class
    first = records[0].to_dict()
    assert (first["data"], first["split"], first["seed"]) == ("events", "given train / test", 0)
    json.dumps([record.to_dict() for record in records], allow_nan=False)
    kept = json.loads((run.folder.evaluations / "events.json").read_text())
    assert {record["protocol"] for record in kept} == {"tokens", "segmentation"}
    assert table(records).row_count == 8
    assert run.folder.weights.read_bytes() == before
    again = evaluate(run, open_data(data, kind="points"), "events", ["tokens"], baselines="none")
    assert [record.value for record in again] == [record.value for record in records[:2]]


def test_training_reads_no_label_of_a_place(trained: Path, data: Path, tmp_path: Path):
    """With the labels of all points shuffled, and some files of labels that are none, the same run bit by bit."""
    path = events(tmp_path, seed=9)
    for number in range(0, 16, 3):
        (tmp_path / f"{number}.label.npy").write_bytes(b"nothing to read")
    shuffled = polar(path, tmp_path / "run")
    for name in ("encoder.safetensors", "metrics.csv"):
        assert (shuffled / name).read_bytes() == (trained / name).read_bytes()


def test_volumes_are_judged_by_their_voxels(tmp_path: Path):
    """Bright balls in noise, larger than the encoder's extent; alice's encoder."""
    lines = ["file,seg,split"]
    for number in range(12):
        random = np.random.default_rng(number)
        size = (20, 24, 18 + number % 2)
        centre = random.uniform(7, 11, 3)
        inside = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1) - centre
        ball = (np.square(inside).sum(-1) < 25).astype(np.uint8)
        body = (60 * random.random(size) + 120 * ball).astype(np.uint8)
        for name, array in (("img", body), ("seg", ball)):
            (tmp_path / f"{number}_{name}.nii").write_bytes(nibabel.Nifti1Image(array, np.eye(4)).to_bytes())
        lines.append(f"{number}_img.nii,{number}_seg.nii,{'test' if number > 9 else 'train'}")
    (tmp_path / "balls.csv").write_text("\n".join(lines))
    options = {"precision": "float32", "batch": 2, "size": 16, "encoder": "swin3d-micro", "held_back": 2, "partner": "self"}
    tacit.pretrain("alice", tmp_path / "balls.csv", out=tmp_path / "run", steps=1, options=options, device="cpu")
    records = evaluate(OpenRun(tmp_path / "run", "cpu"), open_data(tmp_path / "balls.csv"), "balls", list(DENSE))
    found = {(r.protocol, r.metric, r.encoder): r for r in records}
    assert (found["segmentation", "dice", "input"].value or 0) > 0.8
    assert found["segmentation", "dice", "run"].detail["test_places"] == 20 * 24 * (18 + 19)
    assert found["tokens", "f1", "run"].detail["f1_by_class"].keys() == {"1"}  # what lies around is no class
    usual = evaluate(OpenRun(tmp_path / "run", "cpu"), open_data(tmp_path / "balls.csv"), "balls", baselines="none")
    assert {r.protocol for r in usual} == {"segmentation", "figures"}  # all that needs no label of a whole volume
    dice = next(r.value for r in usual if r.metric == "dice")
    assert dice == found["segmentation", "dice", "run"].value


def test_pictures_of_any_size_are_judged_by_their_pixels(tmp_path: Path):
    lines = ["path,mask,split"]
    for number in range(6):
        random = np.random.default_rng(number)
        height, width = random.integers(17, 30, 2)
        labels = np.zeros((height, width), dtype=np.uint8)
        labels[3:12, 2:9], labels[10:, 11:] = 1, 4
        labels[0] = 255  # which means nothing
        shades = np.array([[40, 40, 40], [200, 60, 40], [60, 90, 220]])[np.searchsorted([0, 1, 4], labels).clip(max=2)]
        Image.fromarray((shades + random.integers(0, 30, shades.shape)).astype(np.uint8)).save(tmp_path / f"{number}.png")
        Image.fromarray(labels).save(tmp_path / f"{number}_mask.png")
        lines.append(f"{number}.png,{number}_mask.png,{'test' if number > 3 else 'train'}")
    (tmp_path / "shapes.csv").write_text("\n".join(lines))
    dense = dense_task(tmp_path / "shapes.csv", "image", side=20)
    assert dense.classes == (0, 1, 4)
    found = segmentation(grid_reader("vit-micro/4", raw=True), dense)
    assert found.values["dice"] > 0.8
    assert found.detail["iou_by_class"].keys() == {"0", "1", "4"}
    assert found.detail["test_places"] == sum(
        int((labels >= 0).sum()) for _, rows in dense.batches(dense.task.split.test) for labels in rows
    )
    assert tokens(grid_reader("vit-micro/4"), dense).detail["f1_by_class"].keys() == {"1", "4"}


# What is refused ------------------------------------------------------------------------------------------------------


def test_an_unknown_protocol_beside_a_dense_one_is_refused_before_anything_runs(trained: Path, data: Path):
    with pytest.raises(TacitError, match="did you mean 'knn'"):
        evaluate(OpenRun(trained, "cpu"), open_data(data, kind="points"), "events", ["tokens", "knm"])


def test_labels_of_places_stand_in_for_no_labels_of_samples_that_were_asked_for(trained: Path, data: Path):
    with pytest.raises(TacitError, match="needs labels and there are none"):
        evaluate(OpenRun(trained, "cpu"), open_data(data, kind="points"), "events", ["tokens", "knn"])


def test_data_without_labels_of_places_is_refused(trained: Path):
    with pytest.raises(TacitError, match="no labels of points, pixels or voxels"):
        evaluate(OpenRun(trained, "cpu"), open_data("sample:particle_events"), "events", ["segmentation"])


def test_a_protocol_is_run_by_its_name(data: Path):
    records = run_dense(["tokens"], {"run": Said(strength)}, dense_task(data).task, seed=2)
    assert {record.seed for record in records} == {2}
    with pytest.raises(TacitError, match="did you mean 'tokens'"):
        run_dense(["token"], {}, dense_task(data).task)
