"""Labels of points, pixels and voxels: where they come from, that they fit the samples, and that only evaluation reads them."""

from __future__ import annotations

import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from tacit.core.errors import TacitError
from tacit.data.kinds import image, points, volume
from tacit.data.kinds.kind import KINDS, Form, kind_named
from tacit.data.open import measure, open_data
from tacit.data.payload import Unreadable
from tacit.evaluation.dense_task import DenseTask, split_masked
from tacit.evaluation.task import Task

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 4, (6, 7, 5), dtype=np.uint8)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def nearest(labels: np.ndarray, extent: tuple[int, ...]) -> np.ndarray:
    """Place by place: the label of the voxel that the middle of each place lies in."""
    found = np.zeros(extent, dtype=np.int64)
    for place in np.ndindex(*extent):
        found[place] = labels[tuple(int((at + 0.5) * n / out) for at, n, out in zip(place, labels.shape, extent, strict=True))]
    return found


# Files of labels ------------------------------------------------------------------------------------------------------


def test_points_have_one_label_each_in_the_order_of_their_file():
    labels = RANDOM.integers(-1, 5, 40).astype(np.int8)
    packed = io.BytesIO()
    np.savez(packed, label=labels)
    for payload in (npy(labels), npy(labels.astype(np.float32)), packed.getvalue(), labels):
        found = points.mask(payload)
        assert found.dtype == np.int64
        assert np.array_equal(found, labels)
    places = np.array([3, 3, 39])
    assert np.array_equal(points.mask(npy(labels), part=lambda extent: (places,)), labels[places])


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (npy(np.zeros((4, 3))), "one for each point"),
        (npy(np.array([0.5, 1.0])), "not whole"),
        (npy(np.array([np.nan])), "not whole"),
        (npy(np.array(["a"])), "not whole"),
        (npy(np.zeros(9))[:-4], "truncated"),
        (npy(np.array([{}], dtype=object)), "Python objects"),
        (b"", "empty"),
        (b"PK\3\4", "BadZip|zip"),
    ],
)
def test_what_is_no_label_of_points_is_unreadable(payload: bytes, why: str):
    with pytest.raises(Unreadable, match=why):
        points.mask(payload)


def test_labels_of_voxels_are_turned_as_their_scan_and_never_mixed():
    affine = np.array([[0, 0, -1.0, 4], [1, 0, 0, 0], [0, -1, 0, 9], [0, 0, 0, 1]])
    scan, labels = (nibabel.Nifti1Image(body, affine).to_bytes() for body in (LABELS, LABELS))
    assert np.array_equal(volume.mask(labels), volume.decode(scan)[..., 0])
    turned = volume.decode(scan)[..., 0]
    some = (np.array([1, 0]), np.array([2]), np.array([0, 0, 1]))
    for form, side in ((None, 3), (Form(1, "uint8", (9, 9, 9), (2.0, 1.5, 0.5)), None), (Form(1, "uint8", (9, 9, 9)), 4)):
        found = volume.mask(labels, form, side)
        assert found.shape == volume.decode(scan, form, side).shape[:3]
        assert np.array_equal(found, nearest(turned, found.shape))
        assert np.array_equal(volume.mask(labels, form, side, part=lambda extent: some), found[np.ix_(*some)])


def test_labels_of_voxels_have_one_channel_and_are_whole():
    with pytest.raises(Unreadable, match="one number for each voxel"):
        volume.mask(np.zeros((4, 4, 4, 2)))
    with pytest.raises(Unreadable, match="not whole"):
        volume.mask(np.full((4, 4, 4), 0.5))


@pytest.mark.parametrize("side", [None, 4])
def test_labels_of_pixels_are_grey_values_or_places_in_a_palette(side: int | None):
    labels = RANDOM.integers(0, 12, (9, 14), dtype=np.uint8)
    palette = Image.fromarray(labels).convert("P")
    palette.putpalette(RANDOM.integers(0, 256, 768, dtype=np.uint8).tobytes())
    picture = RANDOM.integers(0, 256, (9, 14, 3), dtype=np.uint8)
    form = Form(3, "uint8", (9, 14))
    extent = image.decode(picture, form, side).shape[:2]
    for payload in (png(Image.fromarray(labels)), png(Image.fromarray(labels.astype(np.uint16))), labels):
        assert np.array_equal(image.mask(payload, form, side, "mask.png"), nearest(labels, extent))
    again = np.asarray(Image.open(io.BytesIO(png(palette))))
    assert np.array_equal(image.mask(png(palette), form, side, "mask.png"), nearest(again, extent))
    with pytest.raises(Unreadable, match="3 channels"):
        image.mask(png(Image.fromarray(picture)), form, side, "mask.png")


def test_every_kind_says_whether_it_knows_labels_of_places():
    assert {kind for kind in KINDS if kind_named(kind).mask is not None} == {"image", "pair", "points", "volume"}


# A manifest that names them -------------------------------------------------------------------------------------------


def clouds(folder: Path, column: str = "mask", count: int = 8, **labels: str) -> Path:
    """Clouds with a class for each point, and their manifest; `labels` replaces cells of its column."""
    lines = [f"path,{column},split"]
    for number in range(count):
        cloud = np.random.default_rng(number).normal(size=(30 + number, 3)).astype(np.float32)
        np.save(folder / f"{number}.npy", cloud)
        np.save(folder / f"{number}.label.npy", (cloud[:, 0] > 0).astype(np.int8) + 2)
        lines.append(f"{number}.npy,{labels.get(f'c{number}', f'{number}.label.npy')},{'train' if number < 5 else 'test'}")
    (folder / "clouds.csv").write_text("\n".join(lines))
    return folder / "clouds.csv"


def task(path: Path, max_bad: float = 0.05) -> Task:
    collection = open_data(path, kind="points")
    return Task("clouds", collection, measure(collection), split_masked(collection), max_bad=max_bad)


@pytest.mark.parametrize("column", ["mask", "seg", "Segmentation", "point_labels"])
def test_a_manifest_names_the_files_of_labels(tmp_path: Path, column: str):
    collection = open_data(clouds(tmp_path, column), kind="points")
    for row in (0, 7):
        assert np.array_equal(collection.mask(row) - 2, collection.decode(row)[:, 0] > 0)
    chosen = collection.select([6, 1])
    assert np.array_equal(chosen.mask(0), collection.mask(6))


def test_labels_that_are_not_there_are_said_in_one_line(tmp_path: Path):
    collection = open_data(clouds(tmp_path, "notes"), kind="points")
    with pytest.raises(TacitError, match=r"no labels of points, pixels or voxels; give a manifest with a column 'mask'"):
        split_masked(collection)


def test_samples_are_divided_by_their_own_split_or_drawn_with_groups_together(tmp_path: Path):
    given = split_masked(open_data(clouds(tmp_path, c2="", c6=""), kind="points"))
    assert (given.train.tolist(), given.test.tolist()) == ([0, 1, 3, 4], [5, 7])
    assert given.said == "given train / test; 2 of 8 samples have no mask"
    text = (tmp_path / "clouds.csv").read_text().replace("split", "patient").replace("train", "").replace("test", "one")
    (tmp_path / "clouds.csv").write_text(text)
    drawn = split_masked(open_data(tmp_path / "clouds.csv", kind="points"), seed=3)
    assert sorted(drawn.ids.tolist()) == [0, 1, 3, 4, 5, 7]
    assert len({5, 7} & set(drawn.test.tolist())) in (0, 2)
    assert drawn.said.startswith("drawn 70% / 30%, seed 3, groups kept together")


def test_one_sample_with_a_mask_cannot_be_divided(tmp_path: Path):
    collection = open_data(clouds(tmp_path, count=5, c1="", c2="", c3="", c4=""), kind="points")
    with pytest.raises(TacitError, match=r"1 sample\(s\) with a mask cannot be divided"):
        split_masked(collection)


@pytest.mark.parametrize("nothing", [-1, 255])
def test_classes_are_the_numbers_in_the_masks_without_what_means_nothing(tmp_path: Path, nothing: int):
    path = clouds(tmp_path)
    assert DenseTask.of(task(path)).classes == (2, 3)
    first = np.load(tmp_path / "0.label.npy").astype(np.int16)
    np.save(tmp_path / "0.label.npy", np.where(np.arange(len(first)) < 4, nothing, first))
    found = DenseTask.of(task(path))
    assert found.classes == (2, 3)
    (_, (labels,)) = next(iter(found.batches(found.task.split.train[:1])))
    assert labels.tolist() == [-1] * 4 + (first[4:] - 2).tolist()


def test_255_is_white_where_the_only_other_label_is_0(tmp_path: Path):
    path = clouds(tmp_path)
    for number in range(8):
        np.save(tmp_path / f"{number}.label.npy", (np.load(tmp_path / f"{number}.label.npy") == 3) * np.uint8(255))
    assert DenseTask.of(task(path)).classes == (0, 255)


def test_masks_that_cannot_be_read_are_left_out_and_too_many_refused(tmp_path: Path):
    path = clouds(tmp_path)
    (tmp_path / "3.label.npy").write_bytes(b"nonsense")
    (tmp_path / "6.label.npy").unlink()
    with pytest.raises(TacitError, match=r"2 of 8 samples cannot be used.*3.npy \(its mask:"):
        DenseTask.of(task(path))
    kept = DenseTask.of(task(path, max_bad=0.3)).task.split
    assert sorted(kept.ids.tolist()) == [0, 1, 2, 4, 5, 7]
    assert "2 of 8 samples cannot be read" in kept.said


def test_a_mask_of_another_size_is_refused_by_name(tmp_path: Path):
    path = clouds(tmp_path)
    np.save(tmp_path / "4.label.npy", np.array([2, 3, 3]))
    dense = DenseTask.of(task(path))
    with pytest.raises(TacitError, match=r"the mask of .*4.npy has 3 places, the sample 34"):
        list(dense.batches(dense.task.split.train))


def test_one_class_tells_nothing_apart(tmp_path: Path):
    path = clouds(tmp_path)
    for number in range(8):
        np.save(tmp_path / f"{number}.label.npy", np.full(30 + number, 7))
    with pytest.raises(TacitError, match="the only label is 7"):
        DenseTask.of(task(path))
