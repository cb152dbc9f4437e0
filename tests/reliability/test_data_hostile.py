"""Mutated, cut off and hostile files: an error in one line or a reason in `skipped.tsv`, never a crash and never code."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from tacit.core.errors import TacitError
from tacit.data.kinds import image
from tacit.data.open import open_data
from tacit.data.payload import Limits, Unreadable

MUTATIONS = 200
SMALL = Limits(pixels=1_000_000, file_bytes=1 << 20)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))


def picture(seed: int = 0, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (24, 20, 3), dtype=np.uint8)


def encoded(form: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, form, **options)
    return file.getvalue()


def tiff(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


PICTURES = {
    "png": encoded("PNG"),
    "jpg": encoded("JPEG"),
    "progressive.jpg": encoded("JPEG", progressive=True),
    "tif": encoded("TIFF"),
    "lzw.tif": encoded("TIFF", compression="tiff_lzw"),
    "channels.tif": tiff(picture(1, 24, 20, 7).astype(np.uint16) * 257, photometric="minisblack", planarconfig="contig"),
    "pages.tif": tiff(picture(1, 5, 24, 20), photometric="minisblack"),
    "zip.tif": tiff(picture(1, 24, 20, 7), photometric="minisblack", planarconfig="contig", compression="zlib"),
    "bmp": encoded("BMP"),
    "gif": encoded("GIF"),
    "webp": encoded("WEBP"),
    "lossless.webp": encoded("WEBP", lossless=True),
    "jp2": encoded("JPEG2000"),
    "tga": encoded("TGA"),
    "ppm": encoded("PPM"),
}


def mutations(content: bytes, count: int = MUTATIONS):
    """Bytes changed, cut, doubled and shuffled, more often near the beginning, where headers are."""
    random = np.random.default_rng(len(content))
    for number in range(count):
        changed = bytearray(content)
        for _ in range(int(random.integers(1, 6))):
            at = int(len(changed) * random.random() ** (1 + 2 * (number % 2)))
            at = min(at, len(changed) - 1)
            match number % 5:
                case 0 | 1:
                    changed[at] = int(random.integers(256))
                case 2:
                    changed[at : at + 4] = random.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80"])
                case 3:
                    del changed[at : at + int(random.integers(1, 30))]
                case _:
                    changed[at:at] = changed[at : at + int(random.integers(1, 30))]
            if not changed:
                break
        yield bytes(changed)


@pytest.mark.parametrize("name", PICTURES)
def test_a_mutated_picture_is_decoded_or_refused_and_nothing_else(name):
    said = []
    for changed in mutations(PICTURES[name]):
        try:
            decoded = image.decode(changed, name=f"x.{name}", limits=SMALL)
        except Unreadable as reason:
            said.append(str(reason))
        else:
            assert decoded.ndim == 3
            assert decoded.dtype in (np.uint8, np.uint16, np.float32)
            assert decoded.shape[0] * decoded.shape[1] <= SMALL.pixels
    assert all(reason and "\n" not in reason for reason in said)


@pytest.mark.parametrize("name", [n for n in PICTURES if n != "gif"])
def test_a_picture_cut_off_anywhere_is_never_half_read(name):
    content = PICTURES[name]
    whole = image.decode(content, name=f"x.{name}")
    for length in [*range(0, len(content), max(1, len(content) // 150)), len(content) - 1]:
        try:
            decoded = image.decode(content[:length], name=f"x.{name}")
        except Unreadable:
            continue
        # What is left may be no more than a trailer.
        assert np.array_equal(decoded, whole), length


def test_a_gif_cut_off_in_its_pixels_is_refused():
    content = PICTURES["gif"]
    for length in range(0, len(content) - 4, 7):
        with pytest.raises(Unreadable):
            image.decode(content[:length])


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


@pytest.mark.parametrize("form", ["object array", "bare pickle", "pickled npy"])
def test_pickles_are_never_opened(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bomb.npz"
    if form == "object array":
        np.savez(path, images=np.array([Bomb()], dtype=object))
    elif form == "bare pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        path = tmp_path / "bomb.npy"
        np.save(path, np.array([Bomb()], dtype=object))
    with pytest.raises(TacitError):
        open_data(path)
    assert not (tmp_path / "exploded").exists()


def npz(save=np.savez, **arrays) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for i in range(3):
            for name, content in ((f"{i}.png", PICTURES["png"]), (f"{i}.cls", b"4"), (f"{i}.json", b'{"caption": "x"}')):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"path": ["1.png", "2.png"] * 4, "label": ["a", "b"] * 4}), file)
    return file.getvalue()


FILES = {
    "stored.npz": npz(images=picture(0, 4, 12, 12), labels=np.arange(4)),
    "packed.npz": npz(np.savez_compressed, images=picture(0, 4, 12, 12), labels=np.arange(4)),
    "pack.npz": npz(blob=np.frombuffer(PICTURES["png"] * 2, np.uint8), offset=np.arange(3) * len(PICTURES["png"])),
    "shard.tar": tarred(),
    "list.csv": b"path,label,split\n1.png,a,train\n2.png,b,test\n" * 3,
    "list.tsv": b"path\tlabel\n1.png\ta\n2.png\tb\n",
    "list.jsonl": b'{"path": "1.png", "label": 3}\n{"path": "2.png", "label": 4}\n',
    "list.parquet": parquet(),
    "list.txt": b"1.png\n2.png\n",
}


@pytest.mark.parametrize("name", FILES)
def test_a_mutated_source_is_opened_or_refused_and_nothing_else(tmp_path, name):
    for i in (1, 2):
        (tmp_path / f"{i}.png").write_bytes(PICTURES["png"])
    said = []
    for changed in mutations(FILES[name]):
        (tmp_path / name).write_bytes(changed)
        try:
            found = open_data(tmp_path / name, limits=SMALL)
        except TacitError as problem:
            said.append(str(problem))
            continue
        for row in range(min(len(found), 4)):
            try:
                found.decode(row)
            except Unreadable as reason:
                said.append(str(reason))
    assert all(reason and "\n" not in reason for reason in said)


def test_a_mutated_saved_data_set_is_opened_or_refused_and_nothing_else(tmp_path):
    import datasets

    rows = {"image": [{"bytes": PICTURES["png"], "path": None}] * 3, "label": [0, 1, 0]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "d"))
    said = []
    for path in (tmp_path / "d").iterdir():
        content = path.read_bytes()
        for changed in mutations(content, 70):
            path.write_bytes(changed)
            try:
                found = open_data(tmp_path / "d", limits=SMALL)
                found.decode(0)
            except (TacitError, Unreadable) as problem:
                said.append(str(problem))
        path.write_bytes(content)
    assert all(reason and "\n" not in reason for reason in said)


def test_an_archive_that_claims_too_much_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**4, 10**3)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(100))
    with pytest.raises(TacitError, match="not as large as it says"):
        open_data(tmp_path / "a.npz")


def test_a_shard_that_ends_early_gives_what_is_whole_and_says_what_is_not(tmp_path):
    content = tarred()
    end = content.rindex(b"2.png") + 512 + 100
    (tmp_path / "s.tar").write_bytes(content[:end])
    found = open_data(tmp_path / "s.tar")
    assert "damaged" in found.description
    assert found.decode(0).shape == found.decode(1).shape == (24, 20, 3)
    for row in range(2, len(found)):
        with pytest.raises(Unreadable, match=r"truncated|damaged"):
            found.decode(row)


def test_a_shard_with_a_damaged_header_does_not_end_in_silence(tmp_path):
    content = bytearray(tarred())
    at = content.index(b"1.png")
    content[at + 150] ^= 0xFF
    (tmp_path / "s.tar").write_bytes(bytes(content))
    found = open_data(tmp_path / "s.tar")
    assert [p.rsplit("/", 1)[1][:8] for p in found.paths] == ["0.png", "(damaged"]
    with pytest.raises(Unreadable, match="damaged header"):
        found.decode(1)


def test_a_packed_or_foreign_shard_is_refused_with_advice(tmp_path):
    import gzip

    (tmp_path / "s.tar.gz").write_bytes(gzip.compress(tarred()))
    with pytest.raises(TacitError, match="unpack"):
        open_data(tmp_path / "s.tar.gz")
    (tmp_path / "s.tar").write_bytes(b"this is no archive" * 100)
    with pytest.raises(TacitError, match="damaged"):
        open_data(tmp_path / "s.tar")


def test_pipes_devices_and_missing_files_in_a_list_are_bad_samples_and_block_nothing(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "good.png").write_bytes(PICTURES["png"])
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "l.txt").write_text("good.png\npipe.png\n/dev/zero\nfolder.png\nmissing.png\nbad\0name.png\n")
    found = open_data(tmp_path / "l.txt")
    assert found.decode(0).shape == (24, 20, 3)
    for row, said in ((1, "not a regular file"), (2, "not a regular file"), (3, "."), (4, "no such file"), (5, "null")):
        with pytest.raises(Unreadable, match=said):
            found.decode(row)


def test_files_over_the_size_limit_are_not_read(tmp_path):
    (tmp_path / "good.png").write_bytes(PICTURES["png"])
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(1 << 40)
    found = open_data(tmp_path)
    with pytest.raises(Unreadable, match="1,099,511,627,776 bytes are more than the limit"):
        found.decode(1)


def test_a_bomb_in_every_format_that_states_its_size_first_is_refused_quickly():
    gif = b"GIF89a" + struct.pack("<HH", 65535, 65535) + PICTURES["gif"][10:]
    bmp = PICTURES["bmp"][:18] + struct.pack("<ii", 60000, 60000) + PICTURES["bmp"][26:]
    ppm = b"P6 60000 60000 255\n" + bytes(100)
    for bomb in (gif, bmp, ppm):
        with pytest.raises(Unreadable, match="limit of 89,478,485"):
            image.decode(bomb)


def test_half_pictures_are_refused_even_where_another_library_allowed_them(monkeypatch):
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = PICTURES["jpg"]
    with pytest.raises(Unreadable):
        image.decode(content[: len(content) // 2])
