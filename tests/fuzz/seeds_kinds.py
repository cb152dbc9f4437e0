"""Sound files of the kinds beside images, as small as they can be: what mutations start from."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import av
import h5py
import nibabel
import numpy as np
import plyfile
import pyarrow as pa
import zarr
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, RLELossless

from tests.fuzz.seeds import noise, npy, npz, parquet, pillow, tiff

CAPTIONS = ("a red fox", "two grey wolves, asleep", "the sea &amp; the sky", "it's late")


def written(write: Callable[[BinaryIO], Any]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def film(container: str, codec: str, **options: str) -> bytes:
    """Twelve frames, a key frame at every sixth."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25, options={"g": "6", **options})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "rgb8" if codec == "gif" else "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(12):
            picture = np.full((32, 32, 3), 20 * number, np.uint8)
            picture[number : number + 9, 8:20] = noise(9, 12, 3)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


def films() -> dict[str, bytes]:
    return {
        "h264.mp4": film("mp4", "libx264", bf="2"),
        "mpeg4.mov": film("mov", "mpeg4"),
        "mpeg4.avi": film("avi", "mpeg4"),
        "h264.mkv": film("matroska", "libx264"),
        "vp8.webm": film("webm", "libvpx", **{"auto-alt-ref": "1", "lag-in-frames": "8"}),
        "vp9.webm": film("webm", "libvpx-vp9"),
        "film.gif": film("gif", "gif"),
    }


def stacks() -> dict[str, bytes]:
    """Pictures of five channels."""
    deep, names = noise(5, 24, 20, dtype="uint16"), ["DAPI", "ER", "RNA", "Actin", "Mito"]
    return {
        "pages.tif": tiff(deep, photometric="minisblack"),
        "zip.tif": tiff(deep, photometric="minisblack", compression="zlib"),
        "ome.tif": tiff(deep, ome=True, metadata={"axes": "CYX", "Channel": {"Name": names}}),
        "imagej.tif": tiff(deep, imagej=True, metadata={"axes": "CYX", "Labels": names}),
        "stack.npy": npy(deep),
    }


def slices(count: int = 4, packed: bool = False) -> list[bytes]:
    """A DICOM series."""
    found = []
    for number in range(count):
        tags = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
        tags.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        tags.SOPClassUID, tags.SOPInstanceUID = CTImageStorage, UID("1.2.3")
        tags.file_meta.MediaStorageSOPClassUID, tags.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, UID("1.2.3")
        tags.SeriesInstanceUID, tags.InstanceNumber = "1.2.3.4", number + 1
        tags.Rows, tags.Columns, tags.SamplesPerPixel, tags.PhotometricInterpretation = 8, 10, 1, "MONOCHROME2"
        tags.ImageOrientationPatient, tags.PixelSpacing = [1, 0, 0, 0, 1, 0], [2.0, 1.5]
        tags.ImagePositionPatient, tags.SliceThickness = [-5, -6, 3.0 * number - 9], 1.0
        tags.BitsAllocated, tags.BitsStored, tags.HighBit, tags.PixelRepresentation = 16, 16, 15, 0
        tags.RescaleSlope, tags.RescaleIntercept = 2.0, -1024.0
        tags.PixelData = noise(8, 10, dtype="uint16").tobytes()
        if packed:
            tags.compress(RLELossless)
        found.append(written(tags.save_as))
    return found


def hdf5(name: str, array: np.ndarray, **attributes: Any) -> bytes:
    def write(file: BinaryIO) -> None:
        with h5py.File(file, "w") as archive:
            archive.create_dataset(name, data=array, chunks=True, compression="gzip").attrs.update(attributes)

    return written(write)


def volumes() -> dict[str, bytes]:
    """Volumes of one file; a series has several."""
    voxels = noise(8, 9, 10).astype(np.int16)
    plain = nibabel.Nifti1Image(voxels, np.diag([-1.5, 2.0, 3.0, 1.0]))
    scaled = nibabel.Nifti2Image(voxels, np.eye(4))
    scaled.header.set_slope_inter(0.5, -100)
    return {
        "plain.nii": plain.to_bytes(),
        "scaled.nii": scaled.to_bytes(),
        "packed.nii.gz": gzip.compress(plain.to_bytes(), mtime=0),
        "scan.h5": hdf5("scan/raw", voxels, element_size_um=[2000.0, 500.0, 250.0]),
        "scan.npy": npy(voxels),
        "scan.npz": npz(np.savez_compressed, scan=voxels),
    }


def store(path: Path, axes: str, version: Literal[2, 3], shards: tuple[int, ...] | None = None) -> None:
    """A Zarr store of a picture of five channels (`cyx`) or planes (`zyx`) in one level."""
    group = zarr.open_group(path, mode="w", zarr_format=version)
    group.create_array("0", shape=(5, 24, 20), chunks=(1, 12, 10), shards=shards, dtype="uint16")[:] = noise(
        5, 24, 20, dtype="uint16"
    )
    units = [{"name": axis, "type": "space", "unit": "micrometer"} if axis in "zyx" else {"name": axis} for axis in axes]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [2.0, 0.5, 0.5]}]}
    labels = [{"label": name} for name in ("DAPI", "ER", "RNA", "Actin", "Mito")]
    said = {"multiscales": [{"axes": units, "datasets": [level]}], "omero": {"channels": labels}}
    group.attrs.update(said if version == 2 else {"ome": {"version": "0.5", **said}})


STORED: dict[str, tuple[Literal[2, 3], str]] = {
    "zattrs": (2, ".zattrs"),
    "zarray": (2, "0/.zarray"),
    "piece": (2, "0/1.0.0"),
    "group": (3, "zarr.json"),
    "array": (3, "0/zarr.json"),
    "shard": (3, "0/c/0/0/0"),
}
"""What is attacked of a store: the version, and the file in it."""


def clouds() -> dict[str, bytes]:
    """Forty points with their energy, or with none."""
    points = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    rows = np.zeros(len(points), [(name, "<f4") for name in ("x", "y", "z", "energy")])
    for name, column in zip(rows.dtype.names or (), points.T, strict=True):
        rows[name] = column
    face = np.array([([0, 1, 2],)], dtype=[("vertex_indices", "O")])
    elements = [plyfile.PlyElement.describe(rows, "vertex"), plyfile.PlyElement.describe(face, "face")]
    text = [" ".join(f"{value:.4f}" for value in row) for row in points[:, :3]]
    return {
        "binary.ply": written(plyfile.PlyData(elements).write),
        "text.ply": written(plyfile.PlyData(elements, text=True).write),
        "mesh.off": "\n".join(["OFF", "40 1 0", *text, "3 0 1 2", ""]).encode(),
        "mesh.obj": "\n".join(["# a mesh", *(f"v {row}" for row in text), "f 1 2 3", ""]).encode(),
        "cloud.npy": npy(points),
        "columns.npy": npy(rows),
        "cloud.npz": npz(np.savez_compressed, points=points[:, :3], energy=points[:, 3]),
        "cloud.h5": hdf5("points", points),
        "cloud.parquet": parquet(pa.table(dict(zip(("x", "y", "z", "energy"), points.T, strict=True)))),
    }


def captioned_shard() -> bytes:
    def write(file: BinaryIO) -> None:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for number, caption in enumerate(CAPTIONS):
                for name, content in ((f"{number}.png", pillow("PNG")), (f"{number}.txt", caption.encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))

    return written(write)


def pairs() -> dict[str, bytes]:
    """Lists of pictures with captions; the pictures lie beside them."""
    several = pa.table({"path": ["1.png", "2.png"], "caption": [list(CAPTIONS[:2]), list(CAPTIONS[2:])]})
    return {
        "pairs.csv": "\n".join(
            ["path,caption", *(f'{1 + n % 2}.png,"{said}"' for n, said in enumerate(CAPTIONS)), ""]
        ).encode(),
        "pairs.jsonl": b'{"path": "1.png", "captions": ["a fox", "red"]}\n{"path": "2.png", "captions": ["it\'s late"]}\n',
        "pairs.parquet": parquet(several),
        "pairs.tar": captioned_shard(),
    }
