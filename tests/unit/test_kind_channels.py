"""The kind of pictures whose channels are no colours: what is taken for it, and what is kept of it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from tacit.core.errors import TacitError
from tacit.data.kinds import channels
from tacit.data.kinds.formats import beside
from tacit.data.kinds.kind import as_taken, kind_named, recognised, thumbnail
from tacit.data.loader import Loader
from tacit.data.open import measure, open_data
from tacit.data.payload import Limits, Unreadable
from tacit.data.survey import survey
from tacit.data.window import Lattice

RANDOM = np.random.default_rng(0)


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    if dtype == "float32":
        return RANDOM.random(shape, dtype=np.float32)
    return RANDOM.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def tiff(array: np.ndarray, names: tuple[str, ...] = (), **options) -> bytes:
    """One page a channel, as microscopes write them; with names in OME's words."""
    written = io.BytesIO()
    if names:
        options |= {"ome": True, "metadata": {"axes": "CYX", "Channel": {"Name": list(names)}}}
    tifffile.imwrite(written, array, **{"photometric": "minisblack", **options})
    return written.getvalue()


def npy(array: np.ndarray) -> bytes:
    written = io.BytesIO()
    np.save(written, array)
    return written.getvalue()


def folder(place: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


# What is taken for it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5, 6, 10])
def test_planes_that_are_no_colours_are_recognised(tmp_path, count):
    data = folder(tmp_path, {f"{n}.tif": tiff(noise(count, 12, 12)) for n in range(3)})
    found = open_data(data)
    assert found.kind is channels
    assert f"{count} planes, which are no colours" in found.description


def test_channels_with_names_are_recognised_where_there_are_three_of_them(tmp_path):
    data = folder(tmp_path, {f"{n}.ome.tif": tiff(noise(3, 12, 12), ("DNA", "ER", "actin")) for n in range(3)})
    found = open_data(data)
    assert found.kind is channels
    assert "names its 3 channel(s): DNA, ER, actin" in found.description


def test_mixed_numbers_of_channels_are_recognised(tmp_path):
    data = folder(tmp_path, {f"{n}.tif": tiff(noise(3 if n % 3 else 5, 12, 12)) for n in range(6)})
    found = open_data(data)
    assert found.kind is channels
    assert found.form.extent == (5, 12, 12)


@pytest.mark.parametrize("shape", [(12, 12), (12, 12, 3), (12, 12, 4), (3, 12, 12), (1, 12, 12)])
def test_grey_and_colours_stay_images(tmp_path, shape):
    photometric = "rgb" if shape[-1] in (3, 4) else "minisblack"
    data = folder(tmp_path, {f"{n}.tif": tiff(noise(*shape), photometric=photometric) for n in range(3)})
    assert open_data(data).kind.name == "image"


def test_many_planes_without_names_may_be_a_volume():
    assert channels.sniff(["a.tif"], tiff(noise(16, 20, 20))).certainty == 1
    assert channels.sniff(["a.tif"], tiff(noise(17, 20, 20))).certainty == 0
    assert channels.sniff(["a.npy"], npy(noise(17, 20, 20))).certainty == 0
    assert channels.sniff(["a.tif"], tiff(noise(17, 20, 20), tuple(f"c{n}" for n in range(17)))).certainty == 1


def test_one_named_channel_is_a_grey_image(tmp_path):
    data = folder(tmp_path, {f"{n}.ome.tif": tiff(noise(1, 12, 12, dtype="uint16"), ("DNA",)) for n in range(3)})
    assert open_data(data).kind.name == "image"


def test_images_of_other_formats_are_not_even_looked_at():
    def read(place: int, limits: Limits) -> bytes:
        raise AssertionError("was looked at")

    chosen, _ = recognised(["a.png", "b.jpg"], read)
    assert chosen is not None
    assert chosen.name == "image"


def test_what_cannot_be_read_decides_nothing():
    def read(place: int, limits: Limits) -> bytes:
        if place < 8:
            raise Unreadable("gone")
        return tiff(noise(6, 8, 8))

    chosen, why = recognised([f"{n}.tif" for n in range(16)], read)
    assert chosen is channels
    assert "6 planes" in why


def test_shards_are_looked_into(tmp_path):
    """The bundled cells, which have 3, 5 and 6 channels, lie in shards."""
    found = open_data("sample:cells")
    assert found.kind is channels
    assert found.form.extent == (6, 64, 64)
    assert found.index.splits == {"train": 122, "test": 44}


def test_a_person_may_say_so(tmp_path):
    data = folder(tmp_path, {f"{n}.tif": tiff(noise(12, 12, 3), photometric="rgb") for n in range(3)})
    assert open_data(data, kind="channels").decode(0).shape == (3, 12, 12, 1)


def test_methods_of_images_read_channels_and_the_other_way_round():
    assert as_taken("channels", ("image",)) == "image"
    assert as_taken("image", ("channels",)) == "channels"
    assert as_taken("channels", ("image", "channels")) == "channels"
    assert as_taken("video", ("channels",)) == "video"


# What is kept of it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("form", [tiff, npy])
def test_every_value_is_kept(dtype, form):
    array = noise(5, 8, 9, dtype=dtype)
    decoded = channels.decode(form(array))
    assert decoded.dtype == dtype
    assert np.array_equal(decoded[..., 0], array)


def test_an_array_is_a_sample_too():
    array = noise(5, 8, 9)
    assert channels.form(array).extent == (5, 8, 9)
    assert np.array_equal(channels.decode(array)[..., 0], array)


def test_the_form_has_the_most_channels_and_the_widest_numbers():
    forms = [channels.form(tiff(noise(c, h, 9, dtype=d))) for c, h, d in ((3, 8, "uint8"), (7, 12, "uint16"), (2, 10, "uint8"))]
    agreed = channels.agree(forms)
    assert (agreed.channels, agreed.dtype, agreed.extent, agreed.names) == (1, "uint16", (7, 10, 9), ())
    few = noise(2, 8, 8)
    assert np.array_equal(channels.decode(tiff(few), agreed)[..., 0], few.astype(np.uint16) * 257)


def test_more_channels_or_wider_numbers_than_the_others_are_refused():
    form = channels.agree([channels.form(tiff(noise(3, 8, 8)))])
    with pytest.raises(Unreadable, match="4 channels, the other samples have at most 3"):
        channels.decode(tiff(noise(4, 8, 8)), form)
    with pytest.raises(Unreadable, match="values are uint16, those of the other samples uint8"):
        channels.decode(tiff(noise(3, 8, 8, dtype="uint16")), form)


def test_names_are_kept_where_all_agree_and_checked(tmp_path):
    names = ("DNA", "ER", "actin")
    data = folder(tmp_path, {f"{n}.tif": tiff(noise(3, 12, 12), names) for n in range(3)})
    collection = open_data(data)
    assert measure(collection).names == names
    with pytest.raises(Unreadable, match="channels DNA, actin, ER; those of the other samples are DNA, ER, actin"):
        channels.decode(tiff(noise(3, 12, 12), ("DNA", "actin", "ER")), collection.form)
    channels.decode(tiff(noise(3, 12, 12)), collection.form)  # says nothing, contradicts nothing
    assert open_data("sample:cells").form.names == ()


@pytest.mark.parametrize(
    "array", [noise(12, 12), noise(2, 3, 12, 12), noise(12, 12, 3), noise(70, 80, 80), np.zeros((0, 8, 8))]
)
def test_what_has_no_channels_in_front_is_refused(array):
    with pytest.raises(Unreadable, match=r"\[C, H, W\] was expected"):
        channels.decode(array)
    with pytest.raises(Unreadable):
        channels.decode(npy(array))


def test_what_is_no_number_is_refused():
    array = noise(3, 8, 8, dtype="float32")
    array[0, 0, 0] = np.nan
    with pytest.raises(Unreadable, match="NaN"):
        channels.decode(npy(array))
    with pytest.raises(Unreadable, match="no numbers"):
        channels.decode(np.zeros((3, 8, 8), dtype="U1"))


@pytest.mark.parametrize("content", [b"", b"II*\0", tiff(noise(3, 8, 8))[:300], npy(noise(3, 8, 8))[:90]])
def test_broken_files_are_unreadable_and_nothing_else(content):
    with pytest.raises(Unreadable):
        channels.decode(content)
    assert channels.sniff(["a.tif"], content).certainty == 0


@pytest.mark.parametrize(
    "whole", [tiff(noise(5, 9, 8), tuple("abcde"), compression="zlib"), npy(noise(5, 9, 8, dtype="uint16"))]
)
def test_mutated_bytes_are_read_or_refused(whole):
    for trial in range(200):
        mutated = bytearray(whole)
        for place in RANDOM.integers(0, len(whole), 1 + trial % 8):
            mutated[place] = RANDOM.integers(0, 256)
        try:
            decoded = channels.decode(bytes(mutated[: len(whole) - trial % 3]))
        except Unreadable:
            continue
        assert decoded.ndim == 4


def test_samples_are_shrunk_channel_by_channel():
    array = np.stack([np.full((40, 30), value, dtype=np.uint8) for value in (10, 200, 90)])
    decoded = channels.decode(tiff(array), side=15)
    assert decoded.shape == (3, 20, 15, 1)
    assert (decoded[..., 0] == np.array([10, 200, 90])[:, None, None]).all()


def test_a_part_is_a_part_of_the_whole():
    payload = tiff(noise(5, 8, 8))
    window = Lattice(4)
    part = channels.decode(payload, part=lambda extent: window(extent, ()))
    places = window((5, 8, 8), ())
    assert np.array_equal(part, channels.decode(payload)[np.ix_(*places)])


# What a person sees of it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(1, (6, 7)), (2, (6, 14)), (3, (12, 14)), (5, (12, 21))])
def test_a_picture_shows_every_channel(count, size):
    sample = 1 + noise(count, 6, 7, 1) // 2
    shown = channels.picture(sample)
    assert shown.shape == (*size, 1)
    for plane in sample:
        assert any(
            np.array_equal(shown[top : top + 6, left : left + 7], plane)
            for top in range(0, size[0], 6)
            for left in range(0, size[1], 7)
        )
    assert shown.min() == sample.min()
    with Image.open(io.BytesIO(thumbnail(kind_named("channels"), sample, 8))) as small:
        assert max(small.size) <= 8


def test_doctor_says_what_differs(tmp_path):
    files = {f"{n}.tif": tiff(noise(2 + n, 12 + n, 12, dtype="uint16")) for n in range(4)}
    collection = open_data(folder(tmp_path, files))
    notes = "\n".join(survey(collection, measure(collection)).notes)
    assert "numbers of channels differ: 2 to 5, typically 3" in notes
    assert "sizes differ: 12x12 to 15x12" in notes
    assert "uint16 values are kept" in notes


def test_batches_are_padded_and_know_how_much():
    collection = open_data("sample:cells", split="test")
    batch = next(iter(Loader(collection, None, list(range(8)), 8, 0, shuffle=False)))
    assert batch.data.shape == (8, 1, 6, 64, 64)
    assert batch.data.dtype == torch.uint8
    counts = batch.sizes[:, 0].tolist()
    assert set(counts) == {3, 5, 6}
    for row, count in enumerate(counts):
        assert (batch.data[row, 0, count:] == 0).all()
        assert (batch.data[row, 0, :count].flatten(1).amax(1) > 0).all()


def test_the_kind_is_in_the_table():
    assert kind_named("channels") is channels
    with pytest.raises(TacitError, match=r"unknown kind of data 'channel'.*channels"):
        kind_named("channel")


# A file for each channel ----------------------------------------------------------------------------------------------


def png(array: np.ndarray) -> bytes:
    written = io.BytesIO()
    Image.fromarray(array).save(written, "PNG")
    return written.getvalue()


@pytest.mark.parametrize(
    ("path", "said", "rest"),
    [
        ("p/A01_f1_DAPI.tif", "DAPI", "p/A01_f1_|.tif"),
        ("p/A01_f1_Alexa 488.tif", "Alexa 488", "p/A01_f1_|.tif"),
        ("cell1_c0.png", "c0", "cell1_|.png"),
        ("B02_s4_w2.tif", "w2", "B02_s4_|.tif"),
        ("r01c01f01p01-ch3sk1fk1fl1.tiff", "ch3", "r01c01f01p01-|sk1fk1fl1.tiff"),
        ("img_channel000_position001_z000.tif", "channel000", "img_|_position001_z000.tif"),
        ("1_A1_blue_red.jpg", "red", "1_A1_blue_|.jpg"),
        ("plate/DAPI/A01.tif", "DAPI", "plate/|/A01.tif"),
        ("ch2/dapi_1.tif", "dapi", "ch2/|_1.tif"),
        ("DNA/plate/x.tif", "DNA", "|/plate/x.tif"),
    ],
)
def test_names_say_their_channel(path, said, rest):
    found = beside.channel(path)
    assert found is not None
    assert (found.name, f"{found.before}|{found.after}") == (said, rest)


@pytest.mark.parametrize("path", ["a/cat_001.png", "red/1.png", "c1/1.png", "derby.tif", "r01c01.tif", "cw1x.tif"])
def test_names_that_say_none(path):
    assert beside.channel(path) is None


def test_channels_stand_in_the_order_of_counting():
    assert beside.in_order({"c10", "c2", "C1"}) == ["C1", "c2", "c10"]


@pytest.mark.parametrize("names", ["{}_f1_{}.tif", "{1}/{0}.tif", "plate/{}-{}.tif"])
def test_files_of_one_channel_are_put_together(tmp_path, names):
    pictures = {f"A{n:02d}": noise(3, 12, 10 + n, dtype="uint16") for n in range(4)}
    stains = ("DAPI", "ER", "GFP")
    files = {
        names.format(well, stain): tiff(plane)
        for well, planes in pictures.items()
        for stain, plane in zip(stains, planes, strict=True)
    }
    found = open_data(folder(tmp_path, files | {"metadata.csv": b"well,dose"}))
    assert found.kind is channels
    assert "each file is one channel of a picture, by their names: DAPI, ER, GFP" in found.description
    assert (len(found), found.labels, found.form.names) == (4, None, stains)
    assert (found.form.extent[0], found.form.dtype) == (3, "uint16")
    for row, planes in enumerate(pictures.values()):
        assert np.array_equal(found.decode(row)[..., 0], planes)
    assert measure(found).names == stains


def test_grey_pictures_of_any_format_are_channels_too(tmp_path):
    pictures = noise(5, 2, 12, 12)
    files = {f"{s}/cell{n}_c{c}.png": png(pictures[n, c]) for n in range(5) for c in range(2) for s in ("train",)}
    found = open_data(folder(tmp_path, files))
    assert (found.kind, len(found), found.form.names) == (channels, 5, ("c0", "c1"))
    assert found.index.splits == {"train": 5}
    assert np.array_equal(found.decode(2)[..., 0], pictures[2])


def test_a_channel_that_is_missing_leaves_its_place_dark(tmp_path):
    planes = noise(3, 12, 12)
    files = {f"{n}_{s}.tif": tiff(p) for n in range(6) for s, p in zip(("DAPI", "GFP", "RFP"), planes, strict=True)}
    del files["1_GFP.tif"], files["2_RFP.tif"], files["3_DAPI.tif"]
    found = open_data(folder(tmp_path, files))
    assert (len(found), found.form.names) == (6, ("DAPI", "GFP", "RFP"))
    middle, last, first = (found.decode(row)[..., 0] for row in (1, 2, 3))
    assert np.array_equal(middle, planes * np.array([1, 0, 1], np.uint8)[:, None, None])
    assert np.array_equal(last, planes[:2])
    assert np.array_equal(first[1:], planes[1:])
    assert not first[0].any()


def test_missing_and_empty_channels_are_named(tmp_path):
    files = {
        f"{n}_c{c}.png": png(noise(12, 12) if (n, c) != (4, 1) else np.full((12, 12), 9, np.uint8))
        for n in range(6)
        for c in range(3)
    }
    del files["2_c2.png"], files["3_c2.png"]
    found = open_data(folder(tmp_path, files))
    notes = survey(found, measure(found)).notes
    assert "channel c2: missing in 2 picture(s): 2_c0.png, 3_c0.png" in notes
    assert "channel c1: one value everywhere in 1 picture(s): 4_c0.png" in notes


def test_planes_of_one_file_stand_where_their_names_do(tmp_path):
    names, planes = ("DNA", "ER", "actin"), noise(3, 12, 12)
    files = {f"{n}.tif": tiff(planes, names) for n in range(3)} | {"few.tif": tiff(planes[[0, 2]], ("DNA", "actin"))}
    found = open_data(folder(tmp_path, files))
    assert found.form.names == names
    assert np.array_equal(found.decode(3)[..., 0], planes * np.array([1, 0, 1], np.uint8)[:, None, None])


def test_files_with_several_channels_are_not_put_together(tmp_path):
    files = {f"plate_c{n}.tif": tiff(noise(5, 12, 12)) for n in range(4)}
    found = open_data(folder(tmp_path, files))
    assert (found.kind, len(found), found.form.extent[0]) == (channels, 4, 5)


def test_colour_pictures_whose_names_look_like_channels_stay_images(tmp_path):
    files = {f"{n}_c{c}.png": png(noise(12, 12, 3)) for n in range(4) for c in range(2)}
    assert open_data(folder(tmp_path, files)).kind.name == "image"


def test_channels_of_one_picture_have_one_size(tmp_path):
    files = {f"{n}_c{c}.png": png(noise(12, 12)) for n in range(4) for c in range(2)} | {"3_c1.png": png(noise(12, 13))}
    found = open_data(folder(tmp_path, files))
    with pytest.raises(Unreadable, match="differ in size: 12x12 and 12x13"):
        found.decode(3)
    assert len(survey(found, measure(found)).broken) == 1


def test_folders_above_the_data_name_no_channel(tmp_path):
    for name in ("dna", "rna"):
        folder(tmp_path / name, {f"{n}.tif": tiff(noise(12, 12)) for n in range(3)})
    found = open_data(tmp_path / "dna", kind="channels")
    assert [found.decode(row).shape[0] for row in range(len(found))] == [1, 1, 1]
