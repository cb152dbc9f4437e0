"""Cut off, overfull and hostile data: an error in one line or a reason in `skipped.tsv`, never a crash and never code.

Blind mutations of every format are in `test_artefacts_hostile.py`; here is what somebody thought of.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.fuzz import seeds

from tacit.core.errors import TacitError
from tacit.data.kinds import image
from tacit.data.loader import Loader
from tacit.data.open import open_data
from tacit.data.payload import Limits, Unreadable
from tacit.data.sources import shards

PICTURES = seeds.pictures()
PNG, GIF = PICTURES["png"], PICTURES["gif"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", [n for n in PICTURES if not n.endswith("gif")])
def test_a_picture_cut_off_anywhere_is_never_half_read(name):
    content = PICTURES[name]
    whole = image.decode(content, name=f"x.{name}")
    for length in [*range(0, len(content), max(1, len(content) // 60)), len(content) - 1]:
        try:
            decoded = image.decode(content[:length], name=f"x.{name}")
        except Unreadable:
            continue
        # What is left may be no more than a trailer.
        assert np.array_equal(decoded, whole), length


def test_a_gif_cut_off_in_its_pixels_is_refused():
    for length in range(0, len(GIF) - 4, 7):
        with pytest.raises(Unreadable):
            image.decode(GIF[:length])


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


def bombs() -> dict[str, bytes]:
    """Pickles where data may hold some."""
    explosive = np.array([Bomb()], dtype=object)
    pickled, npy, npz = pickle.dumps(Bomb()), io.BytesIO(), io.BytesIO()
    np.save(npy, explosive)
    np.savez(npz, images=explosive)
    extension = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickled}
    field = pa.field("path", pa.string(), metadata=extension)
    schema = pa.schema([field], metadata={b"pandas": json.dumps({"columns": [pickled.hex()]}).encode(), b"pickle": pickled})
    parquet = io.BytesIO()
    pq.write_table(pa.table([pa.array(["1.png"])], schema=schema), parquet)
    return {
        "array.npy": npy.getvalue(),
        "arrays.npz": npz.getvalue(),
        "bare.npz": pickled,
        "bare.npy": pickled,
        "list.parquet": parquet.getvalue(),
        "bare.parquet": pickled,
        "bare.csv": pickled,
        "bare.jsonl": pickled,
        "bare.tar": pickled,
        "picture.png": pickled,
    }


@pytest.mark.parametrize("name", bombs())
def test_pickles_in_data_are_never_opened(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(bombs()[name])
    with pytest.raises(TacitError):
        open_data(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def header(name: bytes, size: bytes = b"00000000000\0", kind: bytes = b"0", magic: bytes = b"ustar\x0000") -> bytes:
    """One header of a tar, with the right sum."""
    block = bytearray(512)
    for at, field in ((0, name), (100, b"0000644\0"), (124, size), (136, b"00000000000\0"), (148, b" " * 8), (156, kind)):
        block[at : at + len(field)] = field
    block[257 : 257 + len(magic)] = magic
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(archive: tarfile.TarFile, name: str, content: bytes = b"", **fields) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(content))


def test_nothing_of_a_shard_is_written_anywhere_and_links_and_devices_in_it_are_no_samples(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name in ("../../outside.png", "/outside.png", "inside.png"):
            member(archive, name, PNG)
        member(archive, "link.png", type=tarfile.SYMTYPE, linkname="/etc/hostname")
        member(archive, "hard.png", type=tarfile.LNKTYPE, linkname="inside.png")
        member(archive, "zero.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5)
        member(archive, "pipe.png", type=tarfile.FIFOTYPE)
    found = open_data(tmp_path / "s.tar")
    assert [path.rpartition("/")[2] for path in found.paths] == ["outside.png", "outside.png", "inside.png"]
    assert all(found.decode(row).shape == (24, 20, 3) for row in range(3))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "s.tar"]


@pytest.mark.parametrize(
    "chain",
    [header(b"././@LongLink", b"00000000012\0", b"L", b"ustar  \0") + b"abc.png".ljust(512, b"\0"),
     header(b"pax", b"00000000014\0", b"x") + b"12 path=abc\n".ljust(512, b"\0")],
    ids=["long names", "attributes"],
)  # fmt: skip
def test_a_shard_of_headers_that_announce_each_other_ends_at_the_first(tmp_path, chain):
    good = io.BytesIO()
    with tarfile.open(fileobj=good, mode="w") as archive:
        member(archive, "0.png", PNG)
    (tmp_path / "s.tar").write_bytes(good.getvalue()[: 512 + 1536] + chain * 5000 + header(b"1.png") + bytes(1024))
    found = open_data(tmp_path / "s.tar")
    assert found.decode(0).shape == (24, 20, 3)
    with pytest.raises(Unreadable, match="damaged after"):
        found.decode(len(found) - 1)


@pytest.mark.timeout(30)
def test_a_member_of_negative_size_does_not_lead_back_for_ever(tmp_path):
    back = header(b"1.png", b"\xff" * 8 + struct.pack(">i", -1024))
    (tmp_path / "s.tar").write_bytes(header(b"0.png", b"%011o\0" % len(PNG)) + PNG.ljust(1536, b"\0") + back + bytes(1024))
    found = open_data(tmp_path / "s.tar")
    assert found.decode(0).shape == (24, 20, 3)
    assert len(found) == 2


def test_a_shard_of_endlessly_many_members_is_listed_up_to_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MEMBERS_OF_A_SHARD", 10)
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for number in range(20):
            member(archive, f"{number}.png", PNG)
    found = open_data(tmp_path / "s.tar")
    assert len(found) == 11
    with pytest.raises(Unreadable, match="more than 10 members"):
        found.decode(10)


def many_entries(count: int) -> bytes:
    """An archive with one member, and a directory that names it over and over."""
    content = seeds.npy(seeds.noise(1, 4, 4))
    facts = struct.pack("<HHHHHIII", 20, 0, 0, 0, 0, zlib.crc32(content), len(content), len(content))
    local = b"PK\3\4" + facts + struct.pack("<HH", 5, 0) + b"a.npy" + content
    entry = b"PK\1\2" + struct.pack("<H", 20) + facts + struct.pack("<HHHHHII", 11, 0, 0, 0, 0, 0, 0)
    directory = b"".join(entry + b"%07d.npy" % number for number in range(count))
    long = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(directory), len(local))
    locator = b"PK\6\7" + struct.pack("<IQI", 0, len(local) + len(directory), 1)
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return local + directory + long + locator + end


@pytest.mark.timeout(30)
def test_an_archive_of_endlessly_many_members_is_refused_before_they_are_read(tmp_path):
    (tmp_path / "a.npz").write_bytes(many_entries(200_000))
    with pytest.raises(TacitError, match="its directory of 1"):
        open_data(tmp_path / "a.npz")


def test_an_archive_that_claims_too_much_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**4, 10**3)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(100))
    with pytest.raises(TacitError, match="is claimed by"):
        open_data(tmp_path / "a.npz")


def test_bombs_of_every_packing_are_refused_once_they_pass_their_bound(tmp_path, monkeypatch):
    """The bounds stand in for gigabytes; each file is far smaller than what it unpacks to."""
    for room in ("tacit.data.sources.manifest", "tacit.data.sources.arrays"):
        monkeypatch.setattr(f"{room}.memory", lambda: 4 << 20)
    monkeypatch.setattr("tacit.data.sources.huggingface.PACKED_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((4096, 32, 32), np.uint8))
    pq.write_table(pa.table({"path": ["x" * 4000 + ".png"] * 1000}), tmp_path / "l.parquet", compression="zstd")
    seeds.saved_data_set(tmp_path / "set")
    stream = tmp_path / "set" / "train" / "data-00000-of-00001.arrow"
    schema = pa.ipc.open_stream(stream.read_bytes()).read_all().schema
    cells = pa.array([{"bytes": bytes(1 << 20), "path": None}] * 4, schema.field("image").type)
    with pa.ipc.new_stream(stream, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        for _ in range(4):
            writer.write_table(pa.table({"image": cells, "label": pa.array([0] * 4, pa.int64())}, schema=schema))
    for name, said in (("a.npz", "do not fit into memory"), ("l.parquet", "unpacks to more"), ("set", "unpacks to more")):
        with pytest.raises(TacitError, match=said):
            open_data(tmp_path / name)


@pytest.mark.parametrize("with_imagecodecs", [True, False])
@pytest.mark.parametrize("packing", ["zlib", "lzma"])
def test_a_tiff_whose_pixels_unpack_to_anything_is_refused(monkeypatch, packing, with_imagecodecs):
    import lzma

    import tifffile
    from tifffile import _imagecodecs

    sound = seeds.tiff(np.zeros((24, 20, 7), np.uint8), photometric="minisblack", planarconfig="contig", compression=packing)
    bomb = {"zlib": zlib.compress, "lzma": lambda b: lzma.compress(b, lzma.FORMAT_XZ)}[packing](bytes(30 << 20))
    with tifffile.TiffFile(io.BytesIO(sound)) as file:
        offset, count = file.pages.first.tags[273].valueoffset, file.pages.first.tags[279].valueoffset
    changed = bytearray(sound + bomb)
    changed[offset : offset + 4], changed[count : count + 4] = struct.pack("<I", len(sound)), struct.pack("<I", len(bomb))
    if not with_imagecodecs:
        tiff = "tacit.data.kinds.formats.tiff"
        monkeypatch.setattr(f"{tiff}.importlib.util.find_spec", lambda name: None)
        monkeypatch.setattr(_imagecodecs, "zlib_decode", lambda *_, **__: pytest.fail("it was unpacked"))
        assert image.decode(sound).shape == (24, 20, 7)
        with pytest.raises(Unreadable, match="unpacks to more"):
            image.decode(bytes(changed))
        return
    try:  # Imagecodecs fills what a page has room for, and says so or not.
        assert image.decode(bytes(changed)).shape == (24, 20, 7)
    except Unreadable:
        pass


def test_a_tiff_of_endlessly_many_pages_is_refused_at_once():
    pages = [struct.pack("<HHHIII", 1, 256, 3, 1, 1, 8 + 18 * (number + 1)) for number in range(100_000)]
    with pytest.raises(Unreadable, match="more than 1,000 pages"):
        image.decode(b"II*\0" + struct.pack("<I", 8) + b"".join(pages))


def test_a_tiff_opens_no_other_file_that_its_description_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = "".join(
        f'<TiffData IFD="0" FirstC="{channel}"><UUID FileName="{name}">urn:uuid:{channel}</UUID></TiffData>'
        for channel, name in enumerate(("own.tif", "other.tif"))
    )
    xml = f"""<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0"><Image ID="Image:0">
      <Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="20" SizeY="24" SizeC="2" SizeZ="1" SizeT="1">
      <Channel ID="Channel:0:0" SamplesPerPixel="1"/><Channel ID="Channel:0:1" SamplesPerPixel="1"/>{named}
      </Pixels></Image></OME>"""
    (tmp_path / "other.tif").write_bytes(seeds.tiff(np.full((24, 20), 77, np.uint16)))
    content = seeds.tiff(np.zeros((24, 20), np.uint16), description=xml, metadata=None)
    decoded = image.decode(content)
    assert decoded.shape == (24, 20, 1)
    assert not decoded.any()


@pytest.mark.parametrize("opening", [b'{"a":', b'{"s": "]]]]]]", "x": 1, "a":', b"["])
def test_json_nested_without_end_does_not_end_the_process(tmp_path, opening):
    count = 100_000
    closing = b"1" + (b"]" if opening == b"[" else b"}") * count
    (tmp_path / "l.jsonl").write_bytes(b'{"path": "1.png", "a": ' + opening * count + closing + b"}\n")
    with pytest.raises(TacitError, match="nested more than 100 deep"):
        open_data(tmp_path / "l.jsonl")


def test_json_with_many_brackets_side_by_side_is_read(tmp_path):
    (tmp_path / "1.png").write_bytes(PNG)
    outline = [[x, x] for x in range(5000)]
    (tmp_path / "l.jsonl").write_text(json.dumps({"path": "1.png", "outline": outline, "note": "[" * 500}) + "\n")
    assert open_data(tmp_path / "l.jsonl").decode(0).shape == (24, 20, 3)


@pytest.mark.parametrize("name", ["l.csv", "l.txt", "l.jsonl", "l.parquet"])
def test_a_list_of_a_terabyte_is_refused_unread(tmp_path, name):
    with open(tmp_path / name, "wb") as file:
        file.write(b"path,label\n")
        file.truncate(1 << 40)
    with pytest.raises(TacitError, match="1,099,511,627,776 bytes are more than the limit"):
        open_data(tmp_path / name)


def test_urls_in_data_lead_to_servers_and_stores_and_through_nothing_else(tmp_path):
    (tmp_path / "refs.json").write_text(json.dumps({"a": "content"}))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "1.png").write_bytes(PNG)
    rows = [
        "1.png", f"reference://a::{tmp_path}/refs.json", f"simplecache::file://{tmp_path}/pipe.png",
        f"file://{tmp_path}/pipe.png", f"zip://x.png::{tmp_path}/a.zip", "jupyter://localhost/x.png",
    ]  # fmt: skip
    (tmp_path / "l.csv").write_text("path\n" + "\n".join(rows) + "\n")
    found = open_data(tmp_path / "l.csv")
    assert found.decode(0).shape == (24, 20, 3)
    for row in range(1, len(found)):
        with pytest.raises(Unreadable, match="a URL in data"):
            found.decode(row)


@pytest.mark.parametrize(
    "change",
    [{"_data_files": [{"filename": "../test/data-00000-of-00001.arrow"}]}, {"_data_files": [{"filename": "/dev/zero"}]},
     {"_data_files": []}, {"_data_files": 7}, {"_indices_files": [{"filename": "../state.json"}]}],
)  # fmt: skip
def test_a_saved_data_set_reads_no_file_outside_itself(tmp_path, change):
    seeds.saved_data_set(tmp_path / "set")
    state = tmp_path / "set" / "train" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | change))
    with pytest.raises(TacitError, match="cannot read the saved data set"):
        open_data(tmp_path / "set")


@pytest.mark.timeout(60)
def test_pipes_sockets_devices_and_loops_are_no_samples_and_block_nothing(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "socket.png"))
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "self.png").symlink_to("self.png")
    (folder / "nowhere.png").symlink_to("gone.png")
    (folder / "loop").symlink_to(folder)
    (folder / "good.png").write_bytes(PNG)
    (folder / "folder.png").mkdir()
    assert [path.rpartition("/")[2] for path in open_data(folder).paths] == ["good.png"]
    for name in ("pipe.png", "socket.png", "device.png", "self.png", "nowhere.png"):
        with pytest.raises(TacitError, match=r"neither a folder nor a regular file"):
            open_data(folder / name)
    names = ["good.png", "pipe.png", "socket.png", "device.png", "self.png", "/dev/zero", "folder.png", "gone.png", "\0.png"]
    (folder / "l.txt").write_text("\n".join(names))
    found = open_data(folder / "l.txt")
    assert found.decode(0).shape == (24, 20, 3)
    for row in range(1, len(found)):
        with pytest.raises(Unreadable):
            found.decode(row)
    listening.close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["a.npz", "a.npy", "l.csv", "l.jsonl", "l.parquet", "l.txt", "s.tar"])
def test_a_pipe_that_is_called_like_a_list_or_an_archive_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(TacitError, match="neither a folder nor a regular file"):
        open_data(tmp_path / name)


def test_a_shard_that_ends_early_gives_what_is_whole_and_says_what_is_not(tmp_path):
    content = seeds.shard()
    end = content.rindex(b"2.png") + 512 + 100
    (tmp_path / "s.tar").write_bytes(content[:end])
    found = open_data(tmp_path / "s.tar")
    assert "damaged" in found.description
    assert found.decode(0).shape == found.decode(1).shape == (24, 20, 3)
    for row in range(2, len(found)):
        with pytest.raises(Unreadable, match=r"truncated|damaged"):
            found.decode(row)


def test_a_shard_with_a_damaged_header_does_not_end_in_silence(tmp_path):
    content = bytearray(seeds.shard())
    at = content.index(b"1.png")
    content[at + 150] ^= 0xFF
    (tmp_path / "s.tar").write_bytes(bytes(content))
    found = open_data(tmp_path / "s.tar")
    assert [p.rsplit("/", 1)[1][:8] for p in found.paths] == ["0.png", "(damaged"]
    with pytest.raises(Unreadable, match="damaged header"):
        found.decode(1)


def test_a_packed_or_foreign_shard_is_refused_with_advice(tmp_path):
    import gzip

    (tmp_path / "s.tar.gz").write_bytes(gzip.compress(seeds.shard()))
    with pytest.raises(TacitError, match="unpack"):
        open_data(tmp_path / "s.tar.gz")
    (tmp_path / "packed.tar").write_bytes(gzip.compress(seeds.shard()))
    with pytest.raises(TacitError, match="damaged after byte 0"):
        open_data(tmp_path / "packed.tar")
    (tmp_path / "s.tar").write_bytes(b"this is no archive" * 100)
    with pytest.raises(TacitError, match="damaged"):
        open_data(tmp_path / "s.tar")


def test_files_over_the_size_limit_are_not_read(tmp_path):
    (tmp_path / "good.png").write_bytes(PNG)
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(1 << 40)
    found = open_data(tmp_path)
    with pytest.raises(Unreadable, match="1,099,511,627,776 bytes are more than the limit"):
        found.decode(1)


@pytest.mark.parametrize("named", [False, True])
def test_cells_over_the_size_limit_are_not_read(tmp_path, named):
    """Files within a table, as bare bytes and with a name."""
    cells = [PNG, PNG + bytes(5000)]
    column = [{"bytes": cell, "path": "x.png"} for cell in cells] if named else cells
    pq.write_table(pa.table({"image": column}), tmp_path / "t.parquet")
    found = open_data(tmp_path / "t.parquet", limits=Limits(file_bytes=len(PNG)))
    assert found.decode(0).shape == (24, 20, 3)
    with pytest.raises(Unreadable, match="bytes are more than the limit"):
        found.decode(1)


def test_a_bomb_in_every_format_that_states_its_size_first_is_refused_quickly():
    gif = b"GIF89a" + struct.pack("<HH", 65535, 65535) + GIF[10:]
    bmp = PICTURES["bmp"][:18] + struct.pack("<ii", 60000, 60000) + PICTURES["bmp"][26:]
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 16, 2, 0, 0, 0)
    deep = PICTURES["deep.png"][:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + PICTURES["deep.png"][33:]
    ppm = b"P6 60000 60000 255\n" + bytes(100)
    for bomb in (gif, bmp, ppm, deep):
        with pytest.raises(Unreadable, match="limit of 89,478,485"):
            image.decode(bomb)


def test_packed_texts_in_a_picture_are_not_unpacked():
    packed = zlib.compress(bytes(100 << 20), 9)
    for name, front in ((b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")):
        chunk = name + front + packed
        whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for sound in (PNG, PICTURES["deep.png"]):
            try:
                decoded = image.decode(sound[:33] + whole + sound[33:])
            except Unreadable:
                continue
            assert np.array_equal(decoded, image.decode(sound))


def test_one_thin_picture_does_not_blow_up_its_batch(tmp_path):
    random = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(random.integers(0, 256, (20, 24), np.uint8)).save(tmp_path / f"{number}.png")
    Image.new("L", (65535, 1)).save(tmp_path / "wide.png")
    Image.new("L", (1, 65535)).save(tmp_path / "high.png")
    (batch,) = Loader(open_data(tmp_path), None, None, 10, 0, shuffle=False)
    assert len(batch) == 10
    assert batch.data.shape[2:] == (4 * 24, 4 * 24)
    assert sorted(map(tuple, batch.sizes.tolist()))[:1] == [(1, 96)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_no_numbers_are_never_shown_to_anybody(tmp_path, value):
    sound = np.random.default_rng(0).random((24, 20), np.float32)
    broken = sound.copy()
    broken[3, 3] = value
    for name, array in (("0", sound), ("1", broken), ("2", sound)):
        (tmp_path / f"{name}.tif").write_bytes(seeds.tiff(array))
    np.save(tmp_path / "a.npy", np.stack([sound, broken, sound]))
    for data in (tmp_path, tmp_path / "a.npy"):
        found = open_data(data)
        (batch,) = Loader(found, None, None, 3, 0, shuffle=False, max_bad=1.0)
        assert batch.ids.tolist() == [0, 2]
        with pytest.raises(Unreadable, match="NaN or infinite"):
            found.decode(1)


def test_half_pictures_are_refused_even_where_another_library_allowed_them(monkeypatch):
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = PICTURES["jpg"]
    with pytest.raises(Unreadable):
        image.decode(content[: len(content) // 2])
