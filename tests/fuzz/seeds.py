"""Sound files of every form that tacit reads, as small as they can be: what mutations start from."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
from PIL import Image

PATHS = ["1.png", "2.png"]
"""The files that manifests name; they lie beside them."""


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def pillow(form: str, array: np.ndarray | None = None, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(24, 20, 3) if array is None else array).save(file, form, **options)
    return file.getvalue()


def tiff(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def deep_png(array: np.ndarray) -> bytes:
    import imagecodecs

    return imagecodecs.png_encode(array)


def pictures() -> dict[str, bytes]:
    """By extension, which may have words before it."""
    small, seven, frames = noise(24, 20, 3), noise(24, 20, 7), [Image.fromarray(255 - noise(24, 20, 3)) for _ in range(2)]
    bitmap, icon, large = noise(24, 20) > 127, noise(32, 32, 4), pillow("PNG", np.zeros((128, 128, 3), np.uint8))
    sun = struct.pack(">8I", 0x59A66A95, 20, 24, 24, small.nbytes, 1, 0, 0) + small.tobytes()
    cards = ["SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    2",
             "NAXIS1  =                   20", "NAXIS2  =                   24", "END"]  # fmt: skip
    fits = "".join(card.ljust(80) for card in cards).ljust(2880).encode() + noise(24, 20).tobytes().ljust(2880, b"\0")
    return {
        "png": pillow("PNG"),
        "grey16.png": pillow("PNG", noise(24, 20, dtype="uint16")),
        "deep.png": deep_png(noise(24, 20, 3, dtype="uint16")),
        "deep-alpha.png": deep_png(noise(24, 20, 4, dtype="uint16")),
        "palette.png": pillow("PNG", bitmap),
        "jpg": pillow("JPEG"),
        "progressive.jpg": pillow("JPEG", progressive=True),
        "mpo": pillow("MPO", save_all=True, append_images=frames),
        "gif": pillow("GIF"),
        "moving.gif": pillow("GIF", save_all=True, append_images=frames),
        "webp": pillow("WEBP"),
        "lossless.webp": pillow("WEBP", lossless=True),
        "moving.webp": pillow("WEBP", save_all=True, append_images=frames),
        "avif": pillow("AVIF"),
        "bmp": pillow("BMP"),
        "tif": pillow("TIFF"),
        "lzw.tif": pillow("TIFF", compression="tiff_lzw"),
        "jpeg.tif": pillow("TIFF", compression="jpeg"),
        "channels16.tif": tiff(seven.astype(np.uint16) * 257, photometric="minisblack", planarconfig="contig"),
        "float.tif": tiff(seven.astype(np.float32), photometric="minisblack", planarconfig="contig"),
        "pages.tif": tiff(noise(5, 24, 20), photometric="minisblack"),
        "zip.tif": tiff(seven, photometric="minisblack", planarconfig="contig", compression="zlib"),
        "zstd.tif": tiff(seven, photometric="minisblack", planarconfig="contig", compression="zstd"),
        "tiles.tif": tiff(noise(48, 32, 7), photometric="minisblack", planarconfig="contig", tile=(16, 16)),
        "big.tif": tiff(seven, photometric="minisblack", planarconfig="contig", bigtiff=True),
        "ome.tif": tiff(noise(5, 24, 20), ome=True, metadata={"axes": "CYX"}),
        "imagej.tif": tiff(noise(5, 24, 20, dtype="uint16"), imagej=True, metadata={"axes": "CYX"}),
        "jp2": pillow("JPEG2000"),
        "ppm": pillow("PPM"),
        "pgm": pillow("PPM", noise(24, 20)),
        "tga": pillow("TGA"),
        "ico": pillow("ICO", icon),
        "icns": b"icns" + struct.pack(">I", 16 + len(large)) + b"ic07" + struct.pack(">I", 8 + len(large)) + large,
        "dds": pillow("DDS", icon),
        "pcx": pillow("PCX"),
        "sgi": pillow("SGI"),
        "qoi": pillow("QOI"),
        "im": pillow("IM"),
        "xbm": pillow("XBM", bitmap),
        "msp": pillow("MSP", bitmap),
        "ras": sun,
        "fits": fits,
    }


def npz(save=np.savez, **arrays) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def hdf5(**arrays) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as archive:
        for name, array in arrays.items():
            archive.create_dataset(name, data=array, chunks=True, compression="gzip")
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def shard(form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for number in range(3):
            parts = ((f"{number}.png", pillow("PNG")), (f"{number}.cls", b"4"), (f"{number}.json", b'{"caption": "x"}'))
            for name, content in (*parts, (f"{'long/' * 25}{number}.txt", b"a caption")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def parquet(table: pa.Table, **options) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def sources() -> dict[str, bytes]:
    """By file name."""
    picture = pillow("PNG")
    named = pa.table({"path": PATHS * 4, "label": ["a", "b"] * 4, "size": list(range(8))})
    cells = [{"bytes": picture, "path": "1.png"}] * 4
    return {
        "stored.npz": npz(images=noise(4, 12, 12), labels=np.arange(4)),
        "packed.npz": npz(np.savez_compressed, train_images=noise(4, 12, 12, 3), train_labels=np.arange(4)),
        "pack.npz": npz(blob=np.frombuffer(picture * 2, np.uint8), offset=np.arange(3) * len(picture)),
        "array.npy": npy(noise(4, 12, 12, 3)),
        "labelled.h5": hdf5(data=noise(4, 12, 12, 3), label=np.arange(4)),
        "pax.tar": shard(),
        "gnu.tar": shard(tarfile.GNU_FORMAT),
        "list.csv": b"path,label,split\n" + b"1.png,a,train\n2.png,b,test\n" * 3,
        "list.tsv": b"path\tlabel\n1.png\ta\n2.png\tb\n",
        "list.jsonl": b'{"path": "1.png", "label": 3, "more": [{"a": 2}]}\n{"path": "2.png", "label": 4, "more": []}\n',
        "list.parquet": parquet(named),
        "zstd.parquet": parquet(named, compression="zstd", use_dictionary=False),
        "bytes.parquet": parquet(pa.table({"image": cells, "label": [1, 2, 3, 4]})),
        "list.txt": b"1.png\n2.png\n",
    }


def saved_data_set(folder: Path) -> None:
    """As Hugging Face's `save_to_disk` leaves it, with two splits."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": pillow("PNG"), "path": None}] * 3, "label": [0, 1, 0]}
    one = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(str(folder))


def folder_of_pictures(folder: Path, count: int = 24) -> Path:
    """Colour pictures of one size in two class folders."""
    random = np.random.default_rng(0)
    for number in range(count):
        place = folder / ("cats" if number % 2 else "dogs")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(place / f"{number}.png")
    return folder
