"""Volumes: NIfTI, DICOM series, HDF5, Zarr and NumPy's files, as `[D, H, W, C]`, any part of them, all with one spacing.

What a file says of the body is obeyed: axes run up, to the front and to the right, whatever order they lie in. Where spacings
differ, every volume is resampled to their median, axis by axis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tacit.data.kinds.formats import dicom, hdf5, nifti, npy, ome_zarr
from tacit.data.kinds.formats.content import DEFAULT_LIMITS, as_kept, as_labels, guarded, kept, length, opened, refuse_large
from tacit.data.kinds.formats.volume import Volume
from tacit.data.kinds.kind import Form, Sniffed, differ, empty_and_alike, ends_in, shrunk
from tacit.data.payload import Limits, Payload, Unreadable, is_store
from tacit.data.window import Lattice, Part, cut

if TYPE_CHECKING:
    from tacit.data.survey import Survey

name = "volume"
default_encoder = "swin3d-micro"
channel_names = ()
pixels = slice(0, 3)
unit = "voxels"
seeks = True
glance = Lattice(96)

gather = None
together = dicom.EXTENSIONS
"""Files of these that lie in one folder are the slices of one volume, and the first of them stands for it."""

SURE = nifti.EXTENSIONS | dicom.EXTENSIONS
"""These hold volumes, or slices of them, and nothing else."""

SHARED = hdf5.EXTENSIONS | ome_zarr.EXTENSIONS | {".npy", ".npz"}
"""These may hold anything."""

WIDTHS = ("uint8", "uint16", "float32")

THIN = 16
"""Shorter axes than this are padded by most views."""

Box = Sequence[slice]
Read = Callable[[Box], np.ndarray]


def extensions() -> frozenset[str]:
    return SURE | SHARED


def sniff(names: Sequence[str], first: Payload | None) -> Sniffed:
    for certainty, known, what in ((1.0, SURE, "a volume or a slice of one"), (0.3, SHARED, "an array, perhaps a volume")):
        count = sum(ends_in(name, known) for name in names)
        if count:
            why = f"{count} of {len(names)} names looked at have the extension of {what}"
            return Sniffed(certainty * count / len(names), why)
    if isinstance(first, np.ndarray) and first.ndim == 4 and first.dtype != np.uint8:
        return Sniffed(0.7, f"the first sample is an array of {'x'.join(map(str, first.shape))} {first.dtype}: a volume")
    if isinstance(first, np.ndarray) and first.ndim == 3 and min(first.shape) > THIN:
        why = f"the first sample is an array of {'x'.join(map(str, first.shape))}: no axis is short enough for colours"
        return Sniffed(0.6, why)
    return Sniffed(0.0, "no name has the extension of a volume")


@guarded
def form(payload: Payload, name: str = "", limits: Limits = DEFAULT_LIMITS) -> Form:
    return _opened(payload, limits)[0]


def agree(forms: Sequence[Form]) -> Form:
    """The commonest number of channels, the widest dtype, the median spacing of those that say theirs."""
    channels = Counter(form.channels for form in forms).most_common(1)[0][0]
    fitting = [form for form in forms if form.channels == channels]
    known = [form.spacing for form in fitting if form.spacing]
    spacing = tuple(np.median(known, axis=0).tolist()) if known else ()
    extents = [_spaced(form, spacing) for form in fitting]
    dtype = max((form.dtype for form in fitting), key=WIDTHS.index)
    return Form(channels, dtype, tuple(np.median(extents, axis=0).astype(int).tolist()), spacing)


@guarded
def decode(
    payload: Payload,
    form: Form | None = None,
    side: int | None = None,
    name: str = "",
    limits: Limits = DEFAULT_LIMITS,
    part: Part | None = None,
) -> np.ndarray:
    found, read = _opened(payload, limits)
    wanted = form or found
    if found.channels != wanted.channels:
        raise Unreadable(f"{found.channels} channel(s), the other samples have {wanted.channels}")
    if WIDTHS.index(found.dtype) > WIDTHS.index(wanted.dtype):
        raise Unreadable(f"values are {found.dtype}, those of the other samples {wanted.dtype}")
    extent = shrunk("volume", _spaced(found, wanted.spacing), side)
    places = [np.arange(there) for there in extent] if part is None else list(part(extent))
    refuse_large((*map(len, places), found.channels), 4, limits)
    sums = [_weights(there, out, at) for there, out, at in zip(found.extent, extent, places, strict=True)]
    array = read([box for box, _ in sums])
    if array.dtype == np.float32 and not np.isfinite(array).all():
        raise Unreadable("contains NaN or infinite values")
    for axis, (_, weights) in enumerate(sums):
        if weights.ndim == 1:
            whole = np.array_equal(weights, np.arange(array.shape[axis]))
            array = array if whole else array.take(weights, axis=axis)
        else:
            array = np.moveaxis(np.tensordot(weights, array, axes=(1, axis)), 0, axis)
    if wanted.dtype != "float32" and array.dtype == np.float32:
        array = np.rint(array)
    return np.array(array, dtype=wanted.dtype, order="C")  # never the payload itself


@guarded
def mask(
    payload: Payload,
    form: Form | None = None,
    side: int | None = None,
    name: str = "",
    limits: Limits = DEFAULT_LIMITS,
    part: Part | None = None,
) -> np.ndarray:
    """From a volume of labels, turned and resampled as the scan that it belongs to."""
    found, read = _opened(payload, limits)
    if found.channels != 1:
        raise Unreadable(f"{found.channels} channels: one number for each voxel was expected")
    extent = shrunk("volume", _spaced(found, form.spacing if form else ()), side)
    places = [np.arange(there) for there in extent] if part is None else list(part(extent))
    refuse_large((*map(len, places), 1), 8, limits)
    near = [((at + 0.5) * (there / out)).astype(np.int64) for there, out, at in zip(found.extent, extent, places, strict=True)]
    array = read([slice(int(at.min()), int(at.max()) + 1) for at in near])[..., 0]
    return as_labels(cut(array, [at - at.min() for at in near]))


def picture(sample: np.ndarray) -> np.ndarray:
    """Three slices through the middle, side by side: from above, from the front, from the side; up and the front are above."""
    depth, height, width = (side // 2 for side in sample.shape[:3])
    planes = [plane[::-1] for plane in (sample[depth], sample[:, height], sample[:, :, width])]
    tallest = max(len(plane) for plane in planes)
    ground = sample.min()
    framed = [np.pad(p, ((0, tallest - len(p)), (0, 0), (0, 0)), constant_values=ground) for p in planes]
    return np.concatenate(framed, axis=1)


def traits(form: Form, sample: np.ndarray, common: Form) -> dict[str, str]:
    spacing = " x ".join(f"{step:.3g}" for step in form.spacing)
    return {"spacing": f"{spacing} mm" if spacing else "not said", "axes": form.axes or "not said"}


def checks(survey: Survey) -> list[str]:
    found = []
    small, typical, large = ("x".join(map(str, size)) for size in (survey.smallest, survey.typical, survey.largest))
    if small != large:
        found.append(f"sizes differ: {small} to {large} voxels (depth first), typically {typical}")
    if min(survey.smallest) < THIN:
        found.append(f"the thinnest volume has {min(survey.smallest)} voxels along an axis: views pad what is missing")
    if survey.dtype != "uint8":
        found.append(f"{survey.dtype} values: {survey.low:g} to {survey.high:g} (percentiles 0.1 and 99.9) mean 0 to 1")
    if spacings := differ(survey, "spacing", "spacings (depth first)"):
        found.append(f"{spacings}: those that are said are brought to their median")
    if axes := differ(survey, "axes", "directions of axes"):
        found.append(f"{axes}: those that are said are turned up, to the front and to the right")
    return found + empty_and_alike(survey, "volumes")


def _opened(payload: Payload, limits: Limits) -> tuple[Form, Read]:
    """What a volume is by its header, and what reads a box of it."""
    if isinstance(payload, np.ndarray):
        return _array_form(payload.shape, payload.dtype), lambda box: _cut(payload, box)
    if is_store(payload):
        there, read = ome_zarr.volume(payload, limits)
        return Form(there.channels, there.dtype, there.extent, there.spacing or ()), read
    with opened(payload) as file:
        head = file.read(132)
        array = npy.header(file, length(file)) if head.startswith(npy.SIGNATURE) else None
    if dicom.is_dicom(head):
        if not isinstance(payload, Path):
            raise Unreadable("a DICOM series is read from its folder on this machine: copy it here")
        series = dicom.opened_series(dicom.in_folder(payload.parent), limits)
        return _body_form(series.volume), lambda box: _turned(dicom.read(series, box[::-1], limits))
    if head.startswith(hdf5.SIGNATURE):
        found = hdf5.header(payload, limits=limits)
        known = Form(found.channels, found.dtype, found.extent, found.spacing or ())
        return known, lambda box: hdf5.read(payload, box, limits=limits)
    if array is not None:
        return _array_form(array.shape, array.dtype), lambda box: _of_npy(payload, array, box, limits)
    if head.startswith(npy.ZIP):
        return _opened(_of_npz(payload, limits), limits)
    volume, part = nifti.seen(payload, limits)
    return _body_form(volume), lambda box: _turned(part(box[::-1]))


def _of_npy(payload: bytes | Path, found: npy.Header, box: Box, limits: Limits) -> np.ndarray:
    with opened(payload) as file:
        return _cut(npy.box(file, found, box, limits), [])


def _of_npz(payload: bytes | Path, limits: Limits) -> np.ndarray:
    with opened(payload) as file:
        fitting = [array for array in npy.archived(file, limits).values() if array.ndim in (3, 4)]
    if len(fitting) != 1:
        raise Unreadable(f"one array of 3 or 4 axes was expected in the archive; it has {len(fitting)}")
    return fitting[0]


def _array_form(shape: Sequence[int], dtype: np.dtype) -> Form:
    """Of `[D, H, W]` or `[D, H, W, C]`."""
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise Unreadable(f"an array of shape {tuple(shape)} is no volume: [D, H, W] or [D, H, W, C] was expected")
    return Form(shape[3] if len(shape) == 4 else 1, kept(dtype), tuple(shape[:3]))


def _body_form(volume: Volume) -> Form:
    """Readers give right, anterior, superior; here depth comes first."""
    return Form(volume.channels, volume.dtype, volume.extent[::-1], (volume.spacing or ())[::-1], axes=volume.orientation)


def _turned(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 1, 0, 3)


def _cut(array: np.ndarray, box: Box) -> np.ndarray:
    return as_kept(array[tuple(box)] if array.ndim == 4 else array[tuple(box)][..., None])


def _spaced(form: Form, spacing: tuple[float, ...]) -> tuple[int, ...]:
    """The extent that a volume has at another spacing; its own where either is unknown."""
    if not form.spacing or not spacing:
        return form.extent
    scales = (own / common for own, common in zip(form.spacing, spacing, strict=True))
    return tuple(max(1, round(length * scale)) for length, scale in zip(form.extent, scales, strict=True))


def _weights(length: int, out: int, wanted: np.ndarray) -> tuple[slice, np.ndarray]:
    """What to read along an axis for the places `wanted` of `out`, and how they come from that.

    Returns:
        The slice that is read, and either int64 `[n]`, which of it is taken, or float32 `[n, read]`, the weights: linear, and
        as wide as what a place covers where there are fewer places than voxels.
    """
    if length == out:
        first, last = int(wanted.min()), int(wanted.max())
        return slice(first, last + 1), wanted - first
    scale = length / out
    centre = (wanted + 0.5) * scale - 0.5
    distance = np.abs(np.arange(length) - centre.clip(0, length - 1)[:, None])
    weights = (1 - distance / max(scale, 1.0)).clip(0)
    seen = np.flatnonzero(weights.any(axis=0))
    box = slice(int(seen[0]), int(seen[-1]) + 1)
    return box, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)[:, box]
