"""Volumes: every format as `[D, H, W, C]` with one spacing, any part of them, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from tacit.data.kinds import volume
from tacit.data.kinds.kind import Form
from tacit.data.open import measure, open_data
from tacit.data.payload import Unreadable
from tacit.data.survey import survey
from tacit.data.window import Box, Lattice

RANDOM = np.random.default_rng(0)
BODY = RANDOM.integers(0, 200, (7, 6, 5)).astype(np.uint8)
"""Superior, anterior, right."""


def nifti(body: np.ndarray = BODY, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> bytes:
    return nibabel.Nifti1Image(body.transpose(2, 1, 0), np.diag([*spacing[::-1], 1.0])).to_bytes()


def series(folder: Path, body: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Path:
    """One file a slice, rows to the back and columns to the left, as scanners write them; the first one's path."""
    uid = generate_uid()
    folder.mkdir(parents=True)
    for number, plane in enumerate(body):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID = ExplicitVRLittleEndian, generate_uid()
        meta.MediaStorageSOPClassUID = generate_uid()
        one = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        one.SeriesInstanceUID, one.Rows, one.Columns = uid, *plane.shape
        one.ImageOrientationPatient, one.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, number * spacing[0]]
        one.PixelSpacing, one.PhotometricInterpretation = list(spacing[1:]), "MONOCHROME2"
        one.SamplesPerPixel, one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 1, 8, 8, 7, 0
        one.PixelData = plane[::-1, ::-1].tobytes()
        one.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)
    return folder / "000.dcm"


@pytest.fixture
def files(tmp_path) -> dict[str, Path | bytes | np.ndarray]:
    """The same body in every format."""
    np.save(tmp_path / "body.npy", BODY)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(BODY[..., None]))
    np.savez_compressed(tmp_path / "body.npz", volume=BODY, spacing=np.ones(3))
    with h5py.File(tmp_path / "body.h5", "w") as file:
        file["raw"] = BODY
    (tmp_path / "body.nii.gz").write_bytes(gzip.compress(nifti()))
    paths = {name: tmp_path / name for name in ("body.npy", "fortran.npy", "body.npz", "body.h5", "body.nii.gz")}
    return {**paths, "bytes": nifti(), "array": BODY, "series": series(tmp_path / "scan", BODY)}


def part_of(*slices: slice):
    return lambda extent: tuple(np.arange(there)[s] for there, s in zip(extent, slices, strict=True))


def test_every_format_is_the_same_volume_with_depth_first(files):
    some = (slice(1, 4), slice(None, None, 2), slice(3, 5))
    for what, payload in files.items():
        known = volume.form(payload)
        assert (known.channels, known.dtype, known.extent) == (1, "uint8", BODY.shape), what
        assert np.array_equal(volume.decode(payload)[..., 0], BODY), what
        assert np.array_equal(volume.decode(payload, part=part_of(*some))[..., 0], BODY[some]), what


def test_spacing_is_that_of_the_median_volume():
    forms = [Form(1, "uint8", (10, 20, 20), (float(depth), 1.0, 1.0)) for depth in (1, 2, 2)] + [Form(1, "uint16", (9, 9, 9))]
    agreed = volume.agree(forms)
    assert agreed == Form(1, "uint16", (9, 20, 20), (2.0, 1.0, 1.0))
    slope = np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), dtype=np.uint8)
    coarse = volume.decode(nifti(slope, (1, 1, 1)), Form(1, "float32", (6, 4, 4), (2.0, 1.0, 1.0)))
    assert coarse.shape == (6, 4, 4, 1)
    assert coarse[1:-1, 0, 0, 0] == pytest.approx(np.arange(1, 5) * 2 + 0.5)  # the middle of each pair
    fine = volume.decode(nifti(slope, (2, 1, 1)), Form(1, "float32", (24, 4, 4), (1.0, 1.0, 1.0)))
    assert fine[:, 0, 0, 0] == pytest.approx((np.arange(24) / 2 - 0.25).clip(0, 11))


def test_fewer_voxels_are_made_of_all_that_there_were():
    body = np.zeros((12, 2, 2), dtype=np.float32)
    body[0] = 80
    small = volume.decode(nifti(body), Form(1, "float32", (3, 2, 2), (4.0, 1.0, 1.0)))[:, 0, 0, 0]
    assert small[0] > 5
    assert small[1:].tolist() == [0, 0]


@pytest.mark.parametrize("side", [3, 4])
def test_a_part_of_a_resampled_volume_is_that_part_of_the_whole(side):
    wanted = Form(1, "uint8", (7, 6, 5), (1.3, 0.9, 1.0))
    whole = volume.decode(nifti(), wanted, side)
    assert min(whole.shape[:3]) == side
    window = Box((2, 3, 2))
    places = window(whole.shape[:3], [0.2, 0.9, 0.5])
    part = volume.decode(nifti(), wanted, side, part=lambda extent: window(extent, [0.2, 0.9, 0.5]))
    assert np.array_equal(part, whole[np.ix_(*places)])


def test_wider_types_hold_narrower_ones_and_nothing_else_is_turned_into_another():
    assert np.array_equal(volume.decode(BODY, Form(1, "uint16", (7, 6, 5)))[..., 0], BODY.astype(np.uint16))
    with pytest.raises(Unreadable, match="uint16, those of the other samples uint8"):
        volume.decode(BODY.astype(np.uint16), Form(1, "uint8", (7, 6, 5)))
    with pytest.raises(Unreadable, match="3 channel"):
        volume.decode(np.zeros((4, 4, 4, 3)), Form(1, "float32", (4, 4, 4)))


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (np.full((3, 3, 3), np.nan), "NaN"),
        (np.zeros((3, 3)), "is no volume"),
        (np.zeros((3, 0, 3)), "is no volume"),
        (np.array([["a"]]), "is no volume"),
        (b"", "empty"),
        (b"abc", "not a NIfTI"),
        (gzip.compress(b"abc", mtime=0), "not a NIfTI"),
        (b"\x93NUMPY" + b"\1" * 40, "."),
    ],
)
def test_what_is_no_volume_is_refused(payload, why):
    with pytest.raises(Unreadable, match=why):
        volume.decode(payload)


def test_a_series_that_is_not_on_this_machine_is_refused(files):
    with pytest.raises(Unreadable, match="from its folder on this machine"):
        volume.decode(files["series"].read_bytes())


def test_a_folder_of_packed_files_is_understood_and_measured(tmp_path):
    for number in range(3):
        noise = RANDOM.integers(-1000, 1000, (8 + number, 8, 8)).astype(np.int16)
        (tmp_path / f"{number}.nii.gz").write_bytes(gzip.compress(nifti(noise)))
    collection = open_data(tmp_path)
    spec = measure(collection)
    assert (spec.kind, spec.channels, spec.size) == ("volume", 1, (9, 8, 8))
    assert -1000 <= spec.low < -990 < 990 < spec.high <= 1000
    notes = survey(collection, spec).notes
    assert any("8x8x8 to 10x8x8 voxels" in note for note in notes)
    assert any("8 voxels along an axis" in note for note in notes)


def test_volumes_that_lie_otherwise_are_named(tmp_path):
    for number, (depth, turn) in enumerate([(1.0, 1), (1.0, 1), (2.5, 1), (1.0, -1), (1.0, 1)]):
        lies = np.diag([turn, turn, depth, 1.0])
        (tmp_path / f"{number}.nii").write_bytes(nibabel.Nifti1Image(RANDOM.random((20, 20, 20)), lies).to_bytes())
    collection = open_data(tmp_path)
    notes = survey(collection, measure(collection)).notes
    assert any(n.startswith("spacings (depth first) differ: 1 x 1 x 1 mm (4 of them), 2.5 x 1 x 1 mm (2.nii): ") for n in notes)
    assert any(n.startswith("directions of axes differ: RAS (4 of them), LPS (3.nii): ") for n in notes)


def test_a_folder_of_slices_is_one_sample(tmp_path):
    for number in range(3):
        series(tmp_path / f"patient{number}" / "scan", BODY + np.uint8(number))
    collection = open_data(tmp_path)
    assert collection.paths == [str(tmp_path / f"patient{number}" / "scan" / "000.dcm") for number in range(3)]
    assert collection.form.extent == BODY.shape
    assert [int(collection.decode(row)[0, 0, 0, 0]) - int(BODY[0, 0, 0]) for row in range(3)] == [0, 1, 2]


def test_names_of_volumes_are_sure_and_names_of_arrays_are_not():
    assert volume.sniff(["a.nii.gz", "b/c.NII", "d.txt"], None).certainty == pytest.approx(2 / 3)
    assert 0 < volume.sniff(["a.h5"], None).certainty < 0.5
    assert volume.sniff([], np.zeros((4, 4, 4, 2), dtype=np.float32)).certainty > 0.5
    assert volume.sniff([], np.zeros((17, 28, 28), dtype=np.uint8)).certainty > 0.5
    assert volume.sniff([], np.zeros((28, 28, 16), dtype=np.uint8)).certainty == 0  # a picture, with many channels
    assert volume.sniff(["a.png"], None).certainty == 0


def test_a_picture_is_three_slices_with_up_and_front_above():
    body = np.zeros((4, 6, 2, 1), dtype=np.uint8)
    body[-1, -1] = 200  # up in front
    picture = volume.picture(body)
    assert picture.shape == (6, 2 + 2 + 6, 1)
    body[:] = 0
    body[2, -1] = 200  # in front, in the middle slice
    assert volume.picture(body)[0, :2, 0].tolist() == [200, 200]


def test_windows_of_volumes():
    box = Box((2, 4, 9))
    assert [list(at) for at in box((5, 4, 3), (0.999, 0.5, 0.5))] == [[3, 4], [0, 1, 2, 3], [0, 1, 2]]
    assert [at[0] for at in box((5, 9, 9), (0.0, 0.5, 0.9))] == [0, 3, 0]
    starts = {int(box((5, 4, 9), (chance, 0, 0))[0][0]) for chance in np.linspace(0, 0.99, 40)}
    assert starts == {0, 1, 2, 3}
    assert [len(at) for at in Lattice(3)((2, 3, 9), ())] == [2, 3, 3]
