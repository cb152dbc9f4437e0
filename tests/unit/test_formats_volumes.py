"""Volumes: NIfTI, DICOM series and HDF5, in parts, along the axes of the body, in millimetres."""

from __future__ import annotations

import gzip
import io
import struct
import sys
import tracemalloc

import h5py
import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, ornt_transform
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from tests.unit.broken_files import refused

from tacit.core.errors import TacitError
from tacit.data.kinds.formats import dicom, hdf5, nifti
from tacit.data.payload import Limits, Unreadable

RANDOM = np.random.default_rng(0)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
SMALL = Limits(pixels=100_000, file_bytes=1 << 22)
SERIES = generate_uid(entropy_srcs=["series"])
PART = (slice(1, 4), slice(0, 6, 3), slice(-3, None))


def nii(
    array: np.ndarray, axes: str = "RAS", unit: str = "mm", slope: tuple | None = None, version=nibabel.Nifti1Image
) -> bytes:
    """The bytes of a NIfTI whose axes point as `axes`; `array` is right, anterior, superior."""
    image = version(array, np.diag([1.5, 2.0, 3.0, 1.0]))
    image = image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes)))
    image.header.set_xyzt_units(unit)
    if slope is not None:
        image.header.set_slope_inter(*slope)
    return image.to_bytes()


def numbers(*shape: int, dtype: str = "int16") -> np.ndarray:
    return RANDOM.integers(0, 120, shape).astype(dtype)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SAL", "ILA", "ASR"])
@pytest.mark.parametrize("version", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_nifti_comes_along_the_axes_of_the_body_however_it_lies(axes, version):
    array = numbers(5, 6, 7)
    content = nii(array, axes, version=version)
    known = nifti.header(content)
    assert known.orientation == axes
    assert known.extent == (5, 6, 7)
    assert known.spacing == pytest.approx((1.5, 2, 3))
    assert np.array_equal(nifti.read(content)[..., 0], array)
    assert np.array_equal(nifti.read(gzip.compress(content), PART)[..., 0], array[PART])


def test_nifti_lies_as_nibabel_says_when_it_is_oblique():
    affine = nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.3, -0.4, 2.0) * [1, 2, 3], [4, 5, 6])
    content = nibabel.Nifti1Image(numbers(4, 5, 6), affine).to_bytes()
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_bytes(content))
    known = nifti.header(content)
    assert known.spacing == pytest.approx(canonical.header.get_zooms())
    assert np.array_equal(nifti.read(content)[..., 0], np.asarray(canonical.dataobj))


def test_nifti_keeps_bytes_and_applies_its_scaling():
    plain, scaled = numbers(4, 4, 4, dtype="uint8"), numbers(4, 4, 4)
    assert nifti.header(nii(plain)).dtype == "uint8"
    assert nifti.read(nii(plain)).dtype == np.uint8
    content = nii(scaled, slope=(0.5, -1000))
    assert nifti.header(content).dtype == "float32"
    assert np.array_equal(nifti.read(content)[..., 0], scaled * np.float32(0.5) - 1000)


def test_points_in_time_of_a_nifti_are_channels_and_a_slice_is_a_thin_volume():
    array = numbers(4, 5, 6, 3)
    assert nifti.header(nii(array)).channels == 3
    assert np.array_equal(nifti.read(nii(array, "LPS")), array)
    assert nifti.read(nibabel.Nifti1Image(numbers(4, 5), np.eye(4)).to_bytes()).shape == (4, 5, 1, 1)


def test_units_of_a_nifti_become_millimetres_and_no_orientation_is_made_up():
    assert nifti.header(nii(numbers(3, 3, 3), unit="micron")).spacing == pytest.approx((0.0015, 0.002, 0.003))
    image = nibabel.Nifti1Image(array := numbers(3, 4, 5), None)
    image.header.set_zooms((1, 2, 3))
    known = nifti.header(image.to_bytes())
    assert (known.orientation, known.spacing) == ("", (1, 2, 3))
    assert np.array_equal(nifti.read(image.to_bytes())[..., 0], array)


@pytest.mark.parametrize("packed", [False, True])
def test_a_nifti_that_claims_more_than_it_can_hold_is_refused_before_memory_is_taken(packed):
    content = bytearray(nii(numbers(4, 4, 4)))
    struct.pack_into("<4h", content, 40, 3, 10_000, 10_000, 10_000)
    tracemalloc.start()
    for read in (nifti.header, nifti.read):
        with pytest.raises(Unreadable, match="truncated: 2,000,000,000,"):
            read(gzip.compress(bytes(content)) if packed else bytes(content))
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_a_packed_nifti_with_a_changed_voxel_is_refused():
    content = bytearray(gzip.compress(nii(numbers(8, 8, 8)), 0))
    content[-200] ^= 1
    with pytest.raises(Unreadable, match="CRC"):
        nifti.read(bytes(content))


def test_of_a_nifti_above_the_limit_parts_can_be_read():
    content, limits = nii(array := numbers(40, 40, 40)), Limits(file_bytes=20_000)
    with pytest.raises(Unreadable, match="more than the limit of 20,000 bytes; take a part"):
        nifti.read(content, limits=limits)
    assert np.array_equal(nifti.read(content, (slice(20), slice(5, 20), slice(3, 5)), limits)[..., 0], array[:20, 5:20, 3:5])


def test_parts_without_voxels_are_refused():
    for part in ((slice(3, 3), slice(None), slice(None)), (slice(None),), (slice(None, None, -1), slice(None), slice(None))):
        with pytest.raises(Unreadable, match="part"):
            nifti.read(nii(numbers(4, 4, 4)), part)


slices = st.slices(6).filter(lambda one: (one.step or 1) > 0 and len(range(6)[one]))


@settings(max_examples=20, deadline=None)
@given(st.tuples(slices, slices, slices), st.sampled_from(["LAI", "SPR", "ARS"]))
def test_any_part_is_that_part_of_the_whole(part, axes):
    array = np.arange(216, dtype=np.int16).reshape(6, 6, 6)
    assert np.array_equal(nifti.read(nii(array, axes), part)[..., 0], array[part])


def series(array: np.ndarray, **changes) -> list[bytes]:
    """Slices of an axial series: `array` is right, anterior, superior; `changes` are lists with a value for each slice."""
    found = []
    for number in range(array.shape[2]):
        tags = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
        tags.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        tags.SeriesInstanceUID, tags.InstanceNumber = SERIES, number + 1
        tags.Rows, tags.Columns = array.shape[1], array.shape[0]
        tags.ImageOrientationPatient, tags.PixelSpacing = [1, 0, 0, 0, 1, 0], [2.0, 1.5]
        tags.ImagePositionPatient, tags.SliceThickness = [-5, -6, 3.0 * number - 9], 1.0
        tags.SamplesPerPixel, tags.PhotometricInterpretation, tags.PixelRepresentation = 1, "MONOCHROME2", 0
        tags.BitsAllocated, tags.BitsStored, tags.HighBit = 16, 16, 15
        for name, values in changes.items():
            if values[number] is None:
                delattr(tags, name)
            else:
                setattr(tags, name, values[number])
        tags.PixelData = np.ascontiguousarray(array[::-1, ::-1, number].T).astype("<u2").tobytes()
        file = io.BytesIO()
        tags.save_as(file)
        found.append(file.getvalue())
    return found


def test_a_dicom_series_is_sorted_by_place_and_comes_along_the_axes_of_the_body():
    array = numbers(5, 6, 7, dtype="uint16")
    files = series(array, InstanceNumber=[4, 2, 3, 1, 7, 6, 5])
    shuffled = [files[n] for n in (3, 0, 6, 2, 5, 1, 4)]
    known = dicom.opened_series(shuffled)
    assert known.volume == dicom.header(shuffled)
    assert (known.volume.extent, known.volume.dtype, known.volume.orientation) == ((5, 6, 7), "uint16", "LPS")
    assert known.volume.spacing == pytest.approx((1.5, 2, 3))
    assert np.array_equal(dicom.read(shuffled)[..., 0], array)
    assert np.array_equal(dicom.read(known, PART)[..., 0], array[PART])


def test_dicom_values_are_rescaled_slice_by_slice():
    array = numbers(3, 4, 3, dtype="uint16")
    files = series(array, RescaleSlope=[1, 2, 0.5], RescaleIntercept=[-1024, 0, 1])
    assert dicom.header(files).dtype == "float32"
    assert np.array_equal(dicom.read(files)[..., 0], array * np.float32([1, 2, 0.5]) + np.float32([-1024, 0, 1]))


def test_only_slices_of_the_part_are_decoded(monkeypatch):
    known = dicom.opened_series(series(numbers(4, 4, 9, dtype="uint16")))
    read, seen = dicom._pixels, []
    monkeypatch.setattr(dicom, "_pixels", lambda *given: (seen.append(given[0].at), read(*given))[1])
    dicom.read(known, (slice(None), slice(None), slice(2, 7, 2)))
    assert seen == [-3, 3, 9]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SeriesInstanceUID": [SERIES, SERIES, generate_uid(), SERIES]}, "a mixed series: SeriesInstanceUID"),
        ({"PixelSpacing": [[2, 1.5], [2, 1.5], [2, 1.6], [2, 1.5]]}, "a mixed series: PixelSpacing"),
        ({"ImageOrientationPatient": [[1, 0, 0, 0, 1, 0]] * 3 + [[1, 0, 0, 0, 0, -1]]}, "a mixed series: ImageOrientation"),
        ({"ImagePositionPatient": [[0, 0, z] for z in (0, 1, 1, 2)]}, "two slices lie at one place"),
        ({"ImagePositionPatient": [[0, 0, z] for z in (0, 1, 3, 4)]}, "gaps: slices are 1.00 to 2.00 apart"),
        ({"NumberOfFrames": [2, 2, 2, 2]}, "several frames"),
        ({"Rows": [4, 4, 4, 60_000]}, "a mixed series: Rows"),
        ({"Rows": [60_000] * 4, "Columns": [60_000] * 4}, "slices of 60000x60000 pixels"),
    ],
)
def test_what_is_not_one_dicom_volume_is_refused_with_the_reason(changes, reason):
    with pytest.raises(Unreadable, match=reason):
        dicom.header(series(numbers(4, 4, 4, dtype="uint16"), **changes))


def test_a_series_that_does_not_say_where_it_lies_is_sorted_by_number_as_it_lies():
    array = numbers(4, 5, 3, dtype="uint16")
    files = series(array, ImagePositionPatient=[None] * 3, ImageOrientationPatient=[None] * 3)
    known = dicom.header(files[::-1])
    assert (known.orientation, known.spacing) == ("", (1.5, 2.0, 1.0))
    assert np.array_equal(dicom.read(files[::-1])[..., 0], array[::-1, ::-1])


def test_dicom_files_of_a_folder_are_found_by_what_they_are(tmp_path):
    files = series(numbers(4, 4, 3, dtype="uint16"))
    for number, content in enumerate(files):
        (tmp_path / f"IM{number}").write_bytes(content)
    (tmp_path / "notes.txt").write_text("no slice")
    (tmp_path / "more").mkdir()
    found = dicom.in_folder(tmp_path)
    assert [path.name for path in found] == ["IM0", "IM1", "IM2"]
    assert np.array_equal(dicom.read(found), dicom.read(files))


def test_dicom_that_would_unpack_to_anything_is_refused():
    content = series(numbers(4, 4, 1, dtype="uint16"))[0]
    with pytest.raises(Unreadable, match="deflated"):
        dicom.header([content.replace(b"1.2.840.10008.1.2.1\0", dicom.DEFLATED)])


def h5(write) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as archive:
        write(archive)
    return file.getvalue()


def test_hdf5_volumes_are_read_in_parts_and_sizes_are_millimetres():
    array = numbers(5, 6, 7, 2, dtype="uint16")

    def write(archive):
        found = archive.create_dataset("scan/raw", data=array, chunks=(2, 3, 4, 1), compression="gzip")
        found.attrs["element_size_um"] = [2000.0, 500.0, 250.0]
        archive["scan/labels"] = np.arange(5)

    content = h5(write)
    known = hdf5.header(content)
    assert (known.extent, known.channels, known.dtype, known.spacing) == ((5, 6, 7), 2, "uint16", (2, 0.5, 0.25))
    assert np.array_equal(hdf5.read(content), array)
    assert np.array_equal(hdf5.read(content, PART, "scan/raw"), array[PART])


def test_hdf5_links_that_lead_elsewhere_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as archive:
        archive["raw"] = np.zeros((3, 3, 3))
    (tmp_path / "secret.bin").write_bytes(bytes(27))

    def write(archive):
        archive["linked"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "raw")
        archive["soft"] = h5py.SoftLink("/linked")
        outside = archive.create_dataset("outside", (3, 3, 3), "u1", external=[(str(tmp_path / "secret.bin"), 0, 27)])
        assert outside.shape == (3, 3, 3)
        layout = h5py.VirtualLayout((3, 3, 3), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "raw", (3, 3, 3))
        archive.create_virtual_dataset("virtual", layout)

    content = h5(write)
    for name, reason in {"linked": "a link", "soft": "a link", "outside": "other files", "virtual": "other files"}.items():
        with pytest.raises(Unreadable, match=reason):
            hdf5.read(content, name=name)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"shape": (10_000, 10_000, 10_000), "dtype": "u1", "chunks": (10, 10, 10)}, "truncated: 1,000,000,000,000 bytes"),
        ({"shape": (80, 80, 80), "dtype": "f8", "chunks": (80, 80, 80)}, "more than the limit of 65,536 bytes"),
        ({"shape": (3, 3, 3), "dtype": h5py.string_dtype()}, "one array of 3 or 4 axes was expected"),
        ({"shape": (3, 3), "dtype": "u1"}, r"it has /raw \(3, 3\)"),
    ],
)
def test_hdf5_arrays_that_are_no_volume_or_too_large_are_refused(options, reason):
    content = h5(lambda archive: archive.create_dataset("raw", **options))
    content += bytes(0 if "1,000" in reason else 50_000)
    with pytest.raises(Unreadable, match=reason):
        hdf5.read(content, limits=Limits(file_bytes=1 << 16))


def test_without_its_library_a_format_says_what_to_install(monkeypatch):
    scan, slices = nii(numbers(3, 3, 3)), series(numbers(3, 3, 2, dtype="uint16"))
    for module in ("nibabel.nifti1", "pydicom"):
        monkeypatch.setitem(sys.modules, module, None)
    for read in (lambda: nifti.header(scan), lambda: dicom.header(slices)):
        with pytest.raises(TacitError, match=r"pip install 'tacit\[medical\]'"):
            read()


@pytest.mark.parametrize("form", ["nii", "nii.gz", "dicom", "hdf5"])
def test_broken_volumes_are_read_or_refused_in_one_line(form):
    array = numbers(6, 7, 8, dtype="uint16")
    slices = series(array[..., :3])
    packed = h5(lambda archive: archive.create_dataset("raw", data=array, chunks=(3, 4, 4), compression="gzip"))
    sound = {"nii": nii(array), "nii.gz": gzip.compress(nii(array)), "dicom": slices[0], "hdf5": packed}[form]
    reader = {"nii": nifti, "nii.gz": nifti, "dicom": dicom, "hdf5": hdf5}[form]

    def read(content: bytes) -> None:
        given = [content, *slices[1:]] if form == "dicom" else content
        known = reader.header(given, limits=SMALL)
        volume = reader.read(given, limits=SMALL)
        assert volume.shape == (*known.extent, known.channels)
        assert volume.dtype == known.dtype

    assert refused(read, sound) > 0
