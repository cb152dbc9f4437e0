"""Folders of label maps beside folders of what they label: understood by names that pair up, and never taken for samples."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from tacit.core.errors import TacitError
from tacit.data.collection import Collection
from tacit.data.open import open_data
from tacit.evaluation.dense_task import split_masked
from tacit.train import pretrain as training
from tacit.train.plan import Request
from tacit.train.situation import Budget

RANDOM = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))


def written(root: Path, *names: str) -> Path:
    """Files that differ: scans and label maps `[4, 5, 6]`, or pictures 9 x 7."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = RANDOM.integers(0, 4, (4, 5, 6) if ".nii" in name else (9, 7), dtype=np.uint8)
        if ".nii" in name:
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
        else:
            Image.fromarray(values).save(path)
    return root


def masks(collection: Collection) -> dict[str, str | None]:
    table = collection.index.table
    return dict(zip(table["path"].to_pylist(), table["mask"].to_pylist(), strict=True))


def test_scans_are_samples_and_label_maps_are_their_masks(tmp_path: Path):
    root = written(
        tmp_path / "Task",
        *(f"{folder}/{name}.nii.gz" for name in "abc" for folder in ("imagesTr", "labelsTr")),
        *("imagesTs/d.nii.gz", "labelsTs/d.nii.gz", "imagesTs/e.nii.gz"),
    )
    (root / "dataset.json").write_text("{}")
    found = open_data(root)
    assert masks(found) == {f"imagesTr/{name}.nii.gz": f"labelsTr/{name}.nii.gz" for name in "abc"} | {
        "imagesTs/d.nii.gz": "labelsTs/d.nii.gz",
        "imagesTs/e.nii.gz": None,
    }
    assert found.index.splits == {"train": 3, "test": 2}
    assert found.labels is None
    assert "label maps of 4 files from labelsTr, labelsTs (for evaluation only)" in found.description
    for row, name in ((0, "labelsTr/a"), (3, "labelsTs/d")):
        body = np.asarray(nibabel.load(root / f"{name}.nii.gz").dataobj)  # pyright: ignore
        assert np.array_equal(found.mask(row), body.transpose(2, 1, 0))
    assert split_masked(found).said == "given train / test; 1 of 5 samples have no mask"


def test_files_of_one_case_share_its_label_map_and_stay_together(tmp_path: Path):
    scans = [f"imagesTr/case_{case}_000{channel}.nii.gz" for case in range(4) for channel in range(2)]
    found = open_data(written(tmp_path / "Task", *scans, *(f"labelsTr/case_{case}.nii.gz" for case in range(4))))
    assert masks(found) == {scan: f"labelsTr/{Path(scan).name[:6]}.nii.gz" for scan in scans}
    split = split_masked(found)
    assert "groups kept together" in split.said
    assert {row // 2 for row in split.train.tolist()}.isdisjoint({row // 2 for row in split.test.tolist()})


@pytest.mark.parametrize(
    ("pattern", "split"),
    [
        (("images/{}.png", "masks/{}.png"), None),
        (("Images/{}.jpg", "Labels/{}.png"), None),
        (("images/site/{}.png", "masks/site/{}.gif"), None),
        (("train/images/{}.png", "train/masks/{}.png"), "train"),
        (("images/train/{}.png", "labels/train/{}.png"), "train"),
        (("all/imagesTr/{}_0000.png", "all/labelsTr/{}.png"), "train"),
    ],
)
def test_pictures_are_paired_by_name_wherever_the_two_folders_lie(tmp_path: Path, pattern: tuple[str, str], split: str | None):
    names = ["01", "02", "street.view"]
    root = written(tmp_path / "p", *(each.format(name) for name in names for each in pattern))
    found = open_data(root)
    assert found.kind.name == "image"
    assert masks(found) == {pattern[0].format(name): pattern[1].format(name) for name in names}
    assert found.index.splits == ({split: 3} if split else {})
    assert found.labels is None
    assert np.array_equal(found.mask(1), np.asarray(Image.open(root / pattern[1].format("02"))))
    assert np.array_equal(found.select([1]).mask(0), found.mask(1))


def test_folders_whose_names_do_not_pair_up_are_class_folders(tmp_path: Path):
    found = open_data(written(tmp_path / "p", "images/1.png", "images/2.png", "labels/2.png", "labels/3.png"))
    assert found.labels is not None
    assert found.labels.tolist() == ["images", "images", "labels", "labels"]
    with pytest.raises(TacitError, match="folders `images` and `masks` with the same names"):
        found.mask(0)


def test_a_label_map_without_a_picture_is_no_sample(tmp_path: Path):
    found = open_data(
        written(tmp_path / "p", *(f"{side}/{n}.png" for n in (1, 2) for side in ("images", "masks")), "masks/3.png")
    )
    assert masks(found) == {"images/1.png": "masks/1.png", "images/2.png": "masks/2.png"}


def test_boxes_in_text_files_are_no_label_maps(tmp_path: Path):
    root = written(tmp_path / "p", "images/1.jpg", "images/2.jpg")
    (root / "labels").mkdir()
    for number in (1, 2):
        (root / f"labels/{number}.txt").write_text("0 0.5 0.5 0.1 0.1")
    found = open_data(root)
    assert len(found) == 2
    assert "mask" not in found.index.table.column_names


def test_pretraining_reads_no_label_map(tmp_path: Path):
    """With label maps that are none, the same run bit by bit."""
    root = written(tmp_path / "p", *(f"{side}/{number}.png" for number in range(48) for side in ("images", "masks")))

    def weights(out: str) -> bytes:
        given = {"batch": 32, "encoder": "resnet-mini", "size": 8, "precision": "float32", "held_back": 4}
        run = training.pretrain(Request("simclr", root, out=tmp_path / out, budget=Budget(steps=2), given=given, device="cpu"))
        return run.weights.read_bytes()

    first = weights("first")
    for number in range(48):
        (root / f"masks/{number}.png").write_bytes(b"nothing to read")
    assert weights("second") == first
