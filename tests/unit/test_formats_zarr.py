"""Zarr stores: what zarr writes comes back, in parts; nothing hostile is opened, followed or unpacked."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from tests.unit.broken_files import refused
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from tacit.core.errors import TacitError
from tacit.data.kinds import formats
from tacit.data.kinds.formats import ome_zarr, planes, zarr_files, zarr_words
from tacit.data.measure import measure
from tacit.data.open import open_data
from tacit.data.payload import Limits, Unreadable
from tacit.data.survey import survey
from tacit.data.window import Box, cut

VALUES = np.random.default_rng(0).integers(0, 60_000, (5, 33, 40), dtype=np.uint16)
PART = (slice(1, 4), slice(0, 30, 3), slice(-3, None))
SMALL = Limits(pixels=100_000, file_bytes=1 << 20)
STAINS = ("DAPI", "ER", "RNA", "Actin", "Mito")
CODECS = {
    2: {"none": None, "gzip": numcodecs.GZip(), "zlib": numcodecs.Zlib(), "zstd": numcodecs.Zstd(), "lz4": numcodecs.LZ4(),
        "blosc": numcodecs.Blosc()},
    3: {"none": None, "gzip": GzipCodec(), "zstd": ZstdCodec(), "blosc": BloscCodec()},
}  # fmt: skip


def plain(path, values=VALUES, version=3, codec="zstd", chunks=(1, 16, 16), **options):
    """A store of one array that says nothing of its axes."""
    options = {"compressors": CODECS[version][codec], "zarr_format": version, **options}
    zarr.create_array(path, shape=values.shape, chunks=chunks, dtype=values.dtype, **options)[:] = values
    return path


def ome(path, values, axes, version: Any = 3, names=(), scale=None, unit="micrometer", **words):
    """A store of a picture in two levels, as OME-Zarr 0.4 or 0.5 describes it."""
    group = zarr.open_group(path, mode="w", zarr_format=version)
    for level, each in enumerate((values, values[..., ::2, ::2])):
        group.create_array(str(level), shape=each.shape, chunks=(1,) * (each.ndim - 2) + (16, 16), dtype=each.dtype)[:] = each
    changes = [{"type": "scale", "scale": list(scale or (1.0,) * len(axes))}]
    said = {
        "axes": [{"name": axis, **({"type": "space", "unit": unit} if axis in "zyx" else {})} for axis in axes],
        "datasets": [{"path": str(level), "coordinateTransformations": changes} for level in range(2)],
    }
    found = {"multiscales": [said], **({"omero": {"channels": [{"label": name} for name in names]}} if names else {}), **words}
    group.attrs.update(found if version == 2 else {"ome": {"version": "0.5", **found}})
    return path


@pytest.mark.parametrize(
    ("version", "shards", "codec"),
    [(number, shards, codec) for number, shards in ((2, None), (3, None), (3, (2, 32, 32))) for codec in CODECS[number]],
)
def test_values_come_as_zarr_wrote_them_whole_and_in_parts(tmp_path, version, shards, codec):
    path = plain(tmp_path / "a.zarr", version=version, codec=codec, shards=shards)
    known, read = ome_zarr.volume(path)
    assert (known.extent, known.channels, known.dtype, known.spacing) == ((5, 33, 40), 1, "uint16", None)
    assert np.array_equal(read([slice(None)] * 3)[..., 0], VALUES)
    assert np.array_equal(read(PART)[..., 0], VALUES[PART])
    assert np.array_equal(planes.read(path, [3, 0]), VALUES[[3, 0]])


@pytest.mark.parametrize("version", [2, 3])
def test_the_finest_level_comes_with_names_and_millimetres(tmp_path, version):
    picture = ome(tmp_path / "p.zarr", VALUES[None, :, None], "tczyx", version, STAINS)
    assert planes.header(picture) == planes.Planes(STAINS, "uint16", (33, 40), named=True)
    assert np.array_equal(planes.read(picture), VALUES)
    path = ome(tmp_path / "v.zarr", VALUES[None], "czyx", version, scale=(1, 2, 0.5, 0.25))
    known, read = ome_zarr.volume(path)
    assert known.spacing == pytest.approx((2e-3, 5e-4, 2.5e-4))
    assert np.array_equal(read(PART)[..., 0], VALUES[PART])
    known, read = ome_zarr.volume(ome(tmp_path / "c.zarr", np.stack([VALUES, VALUES // 2]), "czyx", version, unit="pixel"))
    assert (known.channels, known.spacing) == (2, None)
    assert np.array_equal(read(PART)[..., 1], VALUES[PART] // 2)


def test_a_picture_that_bioformats2raw_wrapped_is_found(tmp_path):
    zarr.open_group(tmp_path / "w.zarr", mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    ome(tmp_path / "w.zarr/0", VALUES[None, :, None], "tczyx", 2, STAINS)
    assert np.array_equal(planes.read(tmp_path / "w.zarr"), VALUES)
    (tmp_path / "w.zarr/1").mkdir()
    with pytest.raises(Unreadable, match="several pictures"):
        planes.header(tmp_path / "w.zarr")


@pytest.mark.parametrize("shards", [None, (2, 32, 32)])
def test_a_part_reads_the_files_that_it_touches_and_no_others(tmp_path, monkeypatch, shards):
    path, seen, inside = plain(tmp_path / "a.zarr", shards=shards), set(), zarr_files.inside
    read = ome_zarr.volume(path)[1]
    monkeypatch.setattr(zarr_files, "inside", lambda root, key: (seen.add(key), inside(root, key))[1])
    read([slice(1, 3), slice(0, 16), slice(20, 30)])
    assert seen == ({"c/1/0/1", "c/2/0/1"} if shards is None else {"c/0/0/0", "c/1/0/0"})


def test_folders_of_stores_are_samples_of_the_kind_that_they_hold(tmp_path):
    for split in ("train", "test"):
        for number in range(2):
            ome(tmp_path / f"cells/{split}/{number}.zarr", VALUES[None, :, None] // (1 + number), "tczyx", 3, STAINS)
            ome(
                tmp_path / f"scans/{split}/{number}.zarr",
                VALUES[None] // (1 + number),
                "czyx",
                2,
                scale=(1, 2 + 2 * number, 1, 1),
            )
    cells, scans = open_data(tmp_path / "cells"), open_data(tmp_path / "scans")
    assert (cells.kind.name, len(cells), cells.form.names) == ("channels", 4, STAINS)
    assert (scans.kind.name, len(scans), scans.form.extent) == ("volume", 4, (5, 33, 40))
    assert set(cells.index.splits) == set(scans.index.splits) == {"train", "test"}
    assert "names its 5 channel(s): DAPI" in cells.description
    assert np.array_equal(cells.decode(0)[..., 0], VALUES)
    whole, window = scans.decode(0), Box((2, 4, 5))
    places = window(whole.shape[:3], [0.5] * window.drawn)
    assert np.array_equal(scans.decode(0, part=lambda _: places), cut(whole, places))
    told = scans.kind.checks(survey(scans, measure(scans)))
    assert "spacings (depth first) differ: 0.002 x 0.001 x 0.001 mm (2 of them), 0.004 x 0.001 x 0.001 mm" in " ".join(told)


def test_one_store_and_a_table_of_stores_are_data(tmp_path):
    plain(tmp_path / "a.zarr")
    assert np.array_equal(open_data(tmp_path / "a.zarr").decode(0)[..., 0], VALUES)
    (tmp_path / "list.csv").write_text("path\na.zarr\n")
    assert np.array_equal(open_data(tmp_path / "list.csv", kind="volume").decode(0)[..., 0], VALUES)
    os.utime(tmp_path / "a.zarr", (1, 1))
    found = open_data(tmp_path, kind="volume")
    os.utime(tmp_path / "a.zarr", (2, 2))
    with pytest.raises(Unreadable, match="changed since"):
        found.decode(0)


def plate(path, version: Any, wells=("A/1", "B/2"), fields=2):
    """A plate whose wells have so many pictures each, the first all of ones, the next all of twos, and so on."""

    def said(group, words):
        group.attrs.update(words if version == 2 else {"ome": {"version": "0.5", **words}})

    root = zarr.open_group(path, mode="w", zarr_format=version)
    said(root, {"plate": {"wells": [{"path": well} for well in wells], "field_count": fields}})
    for number, well in enumerate(wells):
        said(root.require_group(well), {"well": {"images": [{"path": str(field)} for field in range(fields)]}})
        for field in range(fields):
            values = np.full((1, 2, 1, 16, 16), 1 + number * fields + field, np.uint16)
            ome(path / well / str(field), values, "tczyx", version, STAINS[:2])
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_the_fields_of_a_plates_wells_are_samples(tmp_path, version):
    path = plate(tmp_path / "p.zarr", version)
    expected = [f"p.zarr/{each}" for each in ("A/1/0", "A/1/1", "B/2/0", "B/2/1")]
    for data, paths in (
        (tmp_path, expected),
        (path, [str(tmp_path / each) for each in expected]),
        (path / "B/2", [str(tmp_path / each) for each in expected[2:]]),
        (path / "B/2/1", [str(tmp_path / expected[3])]),
    ):
        found = open_data(data)
        assert (found.kind.name, found.form.names) == ("channels", STAINS[:2])
        assert "names its 2 channel(s): DAPI, ER" in found.description
        assert found.index.table["path"].to_pylist() == paths
        assert [found.decode(row).max() for row in range(len(found))] == [1 + expected.index(p[-12:]) for p in paths]


def test_a_table_gives_labels_to_fields_of_a_plate_and_a_plate_by_itself_is_refused(tmp_path):
    plate(tmp_path / "p.zarr", 3)
    (tmp_path / "wells.csv").write_text("picture,label\np.zarr/A/1/0,dose\np.zarr/B/2/1,none\np.zarr,none\np.zarr/A/1/7,none\n")
    found = open_data(tmp_path / "wells.csv")
    assert found.kind.name == "channels"
    assert [found.decode(row).max() for row in range(2)] == [1, 4]
    with pytest.raises(Unreadable, match=r"a plate of many pictures: name each \(plate.zarr/A/1/0\)"):
        found.decode(2)
    with pytest.raises(Unreadable, match="no such file"):
        found.decode(3)


@pytest.mark.parametrize(
    ("places", "labels"), [(("p.zarr", "q.zarr"), None), (("dose/p.zarr", "none/q.zarr"), ["dose", "none"])]
)
def test_folders_of_plates_are_classes_and_plates_and_their_rows_are_none(tmp_path, places, labels):
    for place in places:
        plate(tmp_path / place, 3, fields=1)
    table = open_data(tmp_path).index.table
    assert len(table) == 4
    assert (sorted(set(table["label"].to_pylist())) if "label" in table.column_names else None) == labels


def test_plates_are_listed_anew_when_they_change(tmp_path):
    path = plate(tmp_path / "p.zarr", 2, wells=("A/1",), fields=1)
    past = os.stat(path).st_mtime - 100
    for each in (tmp_path, path, path / "A/1/0"):
        os.utime(each, (past, past))
    assert len(open_data(tmp_path)) == len(open_data(tmp_path)) == 1
    plate(path, 2, wells=("A/1", "B/2"), fields=1)
    assert len(open_data(tmp_path)) == 2


def test_what_a_plate_lists_and_lacks_is_a_sample_that_cannot_be_read(tmp_path):
    path = changed(plate(tmp_path / "p.zarr", 2), "B/2/.zattrs", well={"images": [{"path": "0"}, {"path": "5"}]})
    (path / "A/1/.zattrs").write_text("{")
    found = open_data(tmp_path)
    assert found.index.table["path"].to_pylist() == ["p.zarr/A/1", "p.zarr/B/2/0", "p.zarr/B/2/5"]
    assert found.decode(1).max() == 3
    for row, reason in ((0, "JSONDecodeError"), (2, "no such file")):
        with pytest.raises(Unreadable, match=reason):
            found.decode(row)


@pytest.mark.parametrize("wells", [["../p2.zarr"], [".."], ["/etc"], ["A//1"], [{"path": "A/1"}, 3], {"path": 3}, 7, "A/1"])
def test_a_plate_leads_nowhere_but_into_itself(tmp_path, wells):
    listed = [{"path": each} if isinstance(each, str) else each for each in wells] if isinstance(wells, list) else wells
    path = changed(plate(tmp_path / "p.zarr", 2), ".zattrs", plate={"wells": listed})
    assert zarr_words.pictures(path) == []
    with pytest.raises(Unreadable, match="plate"):
        planes.header(path)


def test_links_of_a_plate_are_neither_followed_out_of_it_nor_round_and_round(tmp_path):
    plate(tmp_path / "other.zarr", 3)
    path = plate(tmp_path / "p.zarr", 3, wells=("A/1", "B/2", "C/3", "D/4"), fields=1)
    for link, target in (("A/1", tmp_path / "other.zarr/A/1"), ("B/2", path), ("C/3/0", tmp_path / "other.zarr/B/2/0")):
        shutil.rmtree(path / link)
        (path / link).symlink_to(target)
    found = open_data(path)
    assert [each[len(str(path)) + 1 :] for each in found.index.table["path"].to_pylist()] == ["A/1", "B/2", "C/3/0", "D/4/0"]
    assert found.decode(3).max() == 4
    for row, reason in ((0, "leads out of the store"), (1, "a plate of many pictures"), (2, "leads out of the store")):
        with pytest.raises(Unreadable, match=reason):
            found.decode(row)


def test_series_that_bioformats2raw_wrapped_are_samples(tmp_path):
    zarr.open_group(tmp_path / "w.zarr", mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    for number in range(3):
        ome(tmp_path / f"w.zarr/{number}", VALUES[None, :, None], "tczyx", 2, STAINS)
    assert open_data(tmp_path).index.table["path"].to_pylist() == ["w.zarr/0", "w.zarr/1", "w.zarr/2"]


def changed(path, name, **words):
    """The same store with other words in one of its descriptions."""
    found = json.loads((path / name).read_text())
    (path / name).write_text(json.dumps({**found, **words}))
    return path


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"dtype": "|O", "filters": [{"id": "pickle"}]}, "Python objects are never loaded"),
        ({"dtype": [["a", "<u2"]]}, "no numbers"),
        ({"compressor": {"id": "pickle"}}, "packed by pickle: at most one of blosc"),
        ({"filters": [{"id": "json2"}]}, "packed by zstd, json2"),
        ({"chunks": [10_000, 10_000, 10_000]}, "more than the limit of 1,048,576"),
        ({"chunks": [0, 1, 1]}, "no values"),
        ({"shape": [100_000, 100_000, 100_000]}, "more than the limit of 1,048,576"),
        ({"shape": [40, 100, 100], "chunks": [1, 1, 1]}, "400,000 pieces"),
        ({"shape": [5, 33]}, "an array of 2 axes"),
        ({"shape": [5, 0, 40]}, "no values"),
    ],
)
def test_hostile_descriptions_of_arrays_are_refused_in_one_line(tmp_path, words, reason):
    path = changed(plain(tmp_path / "a.zarr", version=2), ".zarray", **words)
    with pytest.raises(Unreadable, match=reason):
        ome_zarr.volume(path, SMALL)[1]([slice(None)] * 3)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"axes": "qczyx"}, "axes 'qczyx'"),
        ({"values": np.stack([VALUES, VALUES])[:, :, None]}, "2 points in time"),
        ({"values": VALUES[None, None]}, "a stack of 5 planes is no picture: give --kind volume"),
        ({"values": VALUES[None, :, None], "multiscales": []}, "a group without 'multiscales'"),
        ({"values": VALUES[None, :, None], "multiscales": [], "plate": {}}, "a plate of many pictures"),
        (
            {"values": VALUES[None, :, None], "multiscales": [{"datasets": [{"path": "../../b.zarr"}]}]},
            "leads out of the store",
        ),
    ],
)
def test_what_is_no_picture_of_channels_is_refused_in_one_line(tmp_path, words, reason):
    plain(tmp_path / "b.zarr")
    path = ome(tmp_path / "a.zarr", **{"values": VALUES[None, :, None], "axes": "tczyx", **words})
    with pytest.raises(Unreadable, match=reason):
        planes.header(path)


def test_one_plane_is_no_volume(tmp_path):
    with pytest.raises(Unreadable, match=r"5 channel\(s\) in one plane is no volume: give --kind channels"):
        ome_zarr.volume(ome(tmp_path / "a.zarr", VALUES, "cyx"))


def test_links_out_of_a_store_and_pipes_in_it_are_not_opened(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(512))
    path = plain(tmp_path / "a.zarr", codec="none")
    piece = path / "c/1/0/1"
    for make, reason in (
        (lambda: piece.symlink_to(tmp_path / "secret"), "leads out"),
        (lambda: os.mkfifo(piece), "no regular"),
    ):
        piece.unlink()
        make()
        with pytest.raises(Unreadable, match=reason):
            ome_zarr.volume(path)[1]([slice(None)] * 3)


@pytest.mark.parametrize("codec", ["gzip", "zstd", "blosc"])
@pytest.mark.parametrize("shards", [None, (2, 32, 32)])
def test_pieces_that_unpack_to_more_than_they_say_are_refused_before_memory_is_taken(tmp_path, codec, shards):
    big = plain(tmp_path / "big.zarr", np.zeros((2, 2048, 2048), np.uint16) + 1, codec=codec, chunks=(1, 1024, 1024),
                shards=shards and (2, 2048, 2048))  # fmt: skip
    path = plain(tmp_path / "a.zarr", codec=codec, shards=shards)
    (path / "c/0/0/0").write_bytes((big / "c/0/0/0").read_bytes())
    with pytest.raises(Unreadable, match="unpacks to more than the 512 bytes"):
        ome_zarr.volume(path, Limits(file_bytes=1 << 20))[1]([slice(0, 2), slice(0, 32), slice(0, 32)])


def test_blosc_does_not_read_on_behind_a_piece_that_is_cut_off(tmp_path):
    path = plain(tmp_path / "a.zarr", version=2, codec="blosc")
    piece = path / "1.0.0"
    piece.write_bytes(piece.read_bytes()[:46])
    with pytest.raises(Unreadable, match="truncated: a piece is shorter than it says"):
        ome_zarr.volume(path)[1]([slice(None)] * 3)


def test_without_zarr_a_store_says_what_to_install(tmp_path, monkeypatch):
    path = plain(tmp_path / "a.zarr")
    monkeypatch.setitem(sys.modules, zarr_files.__name__, None)
    monkeypatch.delattr(formats, "zarr_files")
    for read in (ome_zarr.volume, planes.header):
        with pytest.raises(TacitError, match=r"needs zarr 3, which is not installed: pip install 'tacit\[medical\]'"):
            read(path)


@pytest.mark.parametrize(("version", "file"), [(2, ".zarray"), (2, "1.0.0"), (3, "zarr.json"), (3, "c/0/0/0")])
def test_broken_stores_are_read_or_refused_in_one_line(tmp_path, version, file):
    path = plain(tmp_path / "a.zarr", version=version, shards=None if version == 2 else (2, 32, 32))

    def read(content: bytes) -> None:
        (path / file).write_bytes(content)
        known, part = ome_zarr.volume(path, SMALL)
        found = part([slice(None)] * 3)
        assert found.shape == (*known.extent, known.channels)
        assert found.dtype == known.dtype

    assert refused(read, (path / file).read_bytes()) > 0
