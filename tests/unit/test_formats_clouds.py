"""Clouds of points: what was written comes back, with the names of its features, from every format."""

from __future__ import annotations

import io
import sys
import tracemalloc
import zipfile

import h5py
import numpy as np
import plyfile
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.broken_files import refused

from tacit.core.errors import TacitError
from tacit.data.kinds.formats import clouds
from tacit.data.payload import Limits, Unreadable

RANDOM = np.random.default_rng(0)
POINTS = RANDOM.normal(size=(12, 3)).astype(np.float32)
RED = RANDOM.integers(0, 255, 12, dtype=np.uint8)


def written(write) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def ply(text: bool = False, order: str = "<", first: bool = False) -> bytes:
    """Points with a colour, before or behind a face."""
    rows = np.empty(12, dtype=[("red", "u1"), ("x", "f4"), ("y", "f4"), ("z", "f8")])
    rows["red"], rows["x"], rows["y"], rows["z"] = RED, *POINTS.T
    face = np.array([([0, 1, 2],)], dtype=[("vertex_indices", "O")])
    elements = [plyfile.PlyElement.describe(rows, "vertex"), plyfile.PlyElement.describe(face, "face")]
    return written(plyfile.PlyData(elements[:: -1 if first else 1], text=text, byte_order="=" if text else order).write)


def lines(head: str, table: np.ndarray, before: str = "", behind: str = "") -> bytes:
    rows = (before + " ".join(repr(float(value)) for value in row) for row in table)
    return "\n".join([*head.splitlines(), *rows, *behind.splitlines(), ""]).encode()


def hdf5() -> bytes:
    def write(file: io.BytesIO) -> None:
        with h5py.File(file, "w") as archive:
            archive.create_dataset("scan/points", data=np.c_[POINTS, RED], compression="gzip")
            archive["scan/centres"] = POINTS[:2]

    return written(write)


BESIDE = np.c_[POINTS, RED]
TABLE = pa.table({"id": ["a"] * 12, "red": RED, "X": POINTS[:, 0], "Y": POINTS[:, 1], "Z": POINTS[:, 2]})
FILES = {
    "ply": ply(),
    "ply big end first": ply(order=">", first=True),
    "ply text": ply(text=True),
    "off": lines("OFF\n# a comment\n12 1 0", POINTS, behind="3 0 1 2"),
    "off with colours": lines("COFF\n12 0 0", BESIDE),
    "obj": lines("# a mesh\nvt 0 1", np.c_[BESIDE, RED, RED], "v ", "vn 0 0 1\nf 1 2 3"),
    "npy": written(lambda file: np.save(file, BESIDE)),
    "npz": written(lambda file: np.savez_compressed(file, points=POINTS, red=RED, label=np.array(3))),
    "hdf5": hdf5(),
    "parquet": written(lambda file: pq.write_table(TABLE, file, row_group_size=5)),
}
FEATURES = {"obj": ("red", "green", "blue"), "off": (), "npy": ("feature_0",), "hdf5": ("feature_0",)}


def extension(form: str) -> str:
    return f"cloud.{form.split()[0]}"


@pytest.mark.parametrize("form", FILES)
def test_points_come_back_with_the_names_of_their_features(form):
    known = clouds.header(FILES[form], extension(form))
    assert known == clouds.Cloud(12, FEATURES.get(form, ("red",)))
    found = clouds.read(FILES[form], name=extension(form))
    assert found.dtype == np.float32
    assert np.array_equal(found[:, :3], POINTS)
    assert all(np.array_equal(column, RED) for column in found[:, 3:].T)
    part = clouds.read(FILES[form], slice(3, 11, 2), extension(form))
    assert np.array_equal(part, found[3:11:2])


def test_an_off_whose_counts_stand_behind_its_mark_is_read():
    assert np.array_equal(clouds.read(lines("OFF12 1 0", POINTS)), POINTS)


def test_an_obj_may_have_weights_which_are_passed_over():
    assert np.array_equal(clouds.read(lines("", np.c_[POINTS, np.ones(12)], "v "), name="a.OBJ"), POINTS)


def test_arrays_with_names_of_columns_are_clouds_too():
    rows = np.zeros(12, dtype=[("energy", "f8"), ("z", "i2"), ("y", "i2"), ("x", "i2")])
    rows["x"], rows["energy"] = np.arange(12), np.arange(12) / 2
    content = written(lambda file: np.save(file, rows))
    assert clouds.header(content).features == ("energy",)
    assert clouds.read(content, slice(5, 6)).tolist() == [[5, 0, 0, 2.5]]
    content = written(
        lambda file: np.savez(file, x=rows["x"], y=rows["y"], z=rows["z"], energy=rows["energy"], title="an event")
    )
    assert clouds.read(content, slice(5, 6)).tolist() == [[5, 0, 0, 2.5]]


def test_rows_beside_the_points_of_an_npz_are_features_with_numbers():
    content = written(lambda file: np.savez(file, xyz=POINTS, normal=POINTS, scene=np.zeros((2, 3))))
    assert clouds.header(content).features == ("normal_0", "normal_1", "normal_2")


def test_of_a_long_array_only_the_part_is_read():
    content = written(lambda file: np.save(file, np.zeros((500_000, 4), np.float32)))
    tracemalloc.start()
    assert clouds.read(io.BytesIO(content), slice(1000, 1010)).shape == (10, 4)
    assert tracemalloc.get_traced_memory()[1] < 1 << 17
    tracemalloc.stop()


def npy_that_claims(points: int) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (points, 3)})
    return file.getvalue() + bytes(144)


def npz_that_claims(points: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("points.npy", npy_that_claims(points))
    return file.getvalue()


def h5_that_claims(points: int) -> bytes:
    def write(file: io.BytesIO) -> None:
        with h5py.File(file, "w") as archive:
            archive.create_dataset("points", (points, 3), "f4", chunks=(100, 3))

    return written(write)


CLAIMS = {
    "ply": ply().replace(b"vertex 12", b"vertex 1000000000000"),
    "ply text": ply(text=True).replace(b"vertex 12", b"vertex 1000000000000"),
    "ply of faces": ply(first=True).replace(b"face 1", b"face 1000000000000"),
    "off": lines("OFF\n1000000000000 1 0", POINTS),
    "npy": npy_that_claims(10**12),
    "npz": npz_that_claims(10**12),
    "hdf5": h5_that_claims(10**12),
}


@pytest.mark.parametrize("form", CLAIMS)
def test_a_header_that_claims_more_than_the_file_holds_is_refused_before_memory_is_taken(form):
    tracemalloc.start()
    for read in (clouds.header, clouds.read):
        with pytest.raises(Unreadable, match="truncated"):
            read(CLAIMS[form])
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_what_unpacks_to_more_than_the_limit_is_refused():
    limits = Limits(file_bytes=100_000)
    zeros = np.zeros((100_000, 3), np.float32)
    packed = {
        "npz": written(lambda file: np.savez_compressed(file, points=zeros)),
        "parquet": written(lambda file: pq.write_table(pa.table(dict(zip("xyz", zeros.T, strict=True))), file)),
    }
    for content in packed.values():
        with pytest.raises(Unreadable, match="more than the limit of 100,000 bytes"):
            clouds.read(content, limits=limits)


def test_pickles_are_never_loaded():
    objects = np.array([[print, print, print]], dtype=object)
    for save in (np.save, lambda file, array: np.savez(file, points=array)):
        with pytest.raises(Unreadable, match="never loaded"):
            clouds.read(written(lambda file, save=save: save(file, objects)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"solid cube", "not a cloud"),
        (written(lambda file: np.save(file, np.zeros((4, 5, 3)))), r"shape \(4, 5, 3\) is no cloud"),
        (written(lambda file: np.save(file, np.zeros((0, 3)))), "without points"),
        (written(lambda file: np.save(file, np.zeros((4, 1024)))), r"shape \(4, 1024\) is no cloud"),
        (written(lambda file: np.savez(file, scenes=np.zeros((4, 5, 3)), ids=np.zeros((4, 5)))), "several clouds in one file"),
        (written(lambda file: np.savez(file, points=POINTS, offset=[0, 5, 12])), "several clouds in one file"),
        (written(lambda file: np.savez(file, a=POINTS, b=POINTS)), r"called points or xyz; there is a \(12, 3\), b"),
        (written(lambda file: pq.write_table(TABLE.select(["red", "X"]), file)), "no x, y and z among red, X"),
        (ply().replace(b"property float x", b"property float w"), "no x, y and z among red, w, y, z"),
        (lines("OFF\n14 0 0", POINTS), "12 of 14 points are there"),
    ],
)
def test_what_is_no_cloud_is_refused_with_the_reason(content, reason):
    with pytest.raises(Unreadable, match=reason):
        clouds.read(content)


def test_without_plyfile_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "plyfile", None)
    with pytest.raises(TacitError, match=r"pip install 'tacit\[points\]'"):
        clouds.header(ply())


@pytest.mark.parametrize("form", FILES)
def test_broken_clouds_are_read_or_refused_in_one_line(form):
    limits = Limits(file_bytes=1 << 22)

    def read(content: bytes) -> None:
        known = clouds.header(content, extension(form), limits)
        found = clouds.read(content, None, extension(form), limits)
        assert found.shape == (known.points, 3 + len(known.features))

    assert refused(read, FILES[form]) > 0
