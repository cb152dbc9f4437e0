"""The kind of films: recognised by their names or shape, decoded in parts, brought to one size, told about."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tacit.data.kinds import video
from tacit.data.kinds.formats import video as format_
from tacit.data.kinds.kind import Form, choose, shrunk, sides, thumbnail, useful_side
from tacit.data.open import measure, open_data
from tacit.data.payload import Limits, Unreadable
from tacit.data.survey import survey
from tacit.data.window import Clip

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))


def frames(count: int = 9, height: int = 16, width: int = 24) -> np.ndarray:
    return RANDOM.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def film(array: np.ndarray, rate: int = 25) -> bytes:
    """A film that keeps every pixel."""
    written = io.BytesIO()
    with av.open(written, "w", format="matroska") as file:
        stream = file.add_stream("ffv1", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *array.shape[1:3], "bgr0"
        for frame in array:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return written.getvalue()


# What it is


def test_films_are_told_by_their_names_and_arrays_by_their_shape():
    assert video.sniff(["a.mp4", "b/c.MKV", "notes.txt"], None).certainty == pytest.approx(2 / 3)
    assert video.sniff(["a.png"], None).certainty == 0
    assert video.sniff(["a.gif"], None).certainty == 0  # pictures, most often
    assert choose([], frames())[0] is video
    assert choose(["clips/1.webm"], None)[0] is video
    assert choose([], film(frames()))[0] is video  # bytes without a name
    assert video.sniff([], b"\0\0\0\x18ftypisom").certainty > 0.5
    assert video.sniff([], b"\0\0\0\x18ftypavif").certainty == 0  # a picture in a film's clothes
    assert video.sniff([], np.zeros((4, 8, 8), np.uint8)).certainty == 0  # many pictures, or channels


def test_the_form_comes_from_the_header_and_the_typical_one_is_the_median():
    assert video.form(film(frames())) == video.form(frames()) == Form(3, "uint8", (9, 16, 24))
    forms = [Form(3, "uint8", extent) for extent in ((4, 8, 9), (10, 8, 7), (300, 64, 8))]
    assert video.agree(forms) == Form(3, "uint8", (10, 8, 8))


def test_only_lengths_of_frames_are_shrunk():
    assert sides("video", (9, 16, 24)) == (16, 24)
    assert shrunk("video", (9, 16, 24), 8) == (9, 8, 12)
    assert useful_side("video", 8, (9, 16, 24)) == 12
    assert useful_side("video", 16, (9, 16, 24)) is None


# Decoding


@pytest.mark.parametrize("held", ["film", "array"])
def test_any_frames_are_decoded_as_they_were(held):
    array = frames()
    payload = film(array) if held == "film" else array
    assert np.array_equal(video.decode(payload), array)
    part = lambda extent: (np.array([7, 0, 0, 3]),)  # noqa: E731
    assert np.array_equal(video.decode(payload, part=part), array[[7, 0, 0, 3]])
    small = video.decode(payload, side=8, part=part)
    assert small.shape == (4, 8, 12, 3)
    expected = Image.fromarray(array[3]).resize((12, 8), Image.Resampling.BOX, reducing_gap=2.0)
    assert np.array_equal(small[3], np.asarray(expected))
    assert video.decode(payload, side=99).shape == array.shape


def test_nothing_but_the_wanted_frames_is_decoded(monkeypatch):
    asked, read = [], format_.read
    monkeypatch.setattr(
        format_, "read", lambda content, wanted, *rest: asked.append(list(wanted)) or read(content, wanted, *rest)
    )
    window = Clip(3, 2)
    clip = video.decode(film(frames()), part=lambda extent: window(extent, [0.6]))
    assert asked == [[3, 5, 7]]
    assert clip.shape == (3, 16, 24, 3)


def test_grey_frames_become_three_channels():
    grey = frames()[..., :1]
    for array in (grey, grey[..., 0]):
        assert np.array_equal(video.decode(array), grey.repeat(3, -1))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no film at all",
        film(frames())[:200],
        np.zeros((4, 8, 8, 3), np.float32),
        np.zeros((4, 8, 8, 2), np.uint8),
        np.zeros((8, 8), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_what_is_no_film_is_refused(payload):
    for read in (video.form, video.decode):
        with pytest.raises(Unreadable):
            read(payload)


def test_films_that_would_fill_the_memory_are_refused_and_parts_of_them_are_not():
    limits = Limits(pixels=16 * 24, file_bytes=9 * 16 * 24 * 3 - 1)
    with pytest.raises(Unreadable):
        video.decode(frames(), limits=limits)
    assert len(video.decode(frames(), limits=limits, part=lambda extent: (np.arange(4),))) == 4
    with pytest.raises(Unreadable):
        video.form(film(frames()), limits=Limits(pixels=100))


# What a person sees of it


def test_a_picture_is_a_strip_of_first_middle_and_last_frame():
    array = frames()
    assert np.array_equal(video.picture(array), np.concatenate([array[0], array[4], array[8]], axis=1))
    assert np.array_equal(video.picture(array[:1]), array[0])
    with Image.open(io.BytesIO(thumbnail(video, array, 48))) as shown:
        assert shown.size == (48, 11)


class Films:
    """Films in memory."""

    def __init__(self, *films: np.ndarray | bytes) -> None:
        self.films = films

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, row: int) -> np.ndarray | bytes:
        return self.films[row]


def surveyed(*films: np.ndarray):
    collection = open_data(Films(*films))
    return survey(collection, measure(collection))


def test_the_owner_is_told_of_lengths_sizes_and_films_without_content():
    found = surveyed(
        *(frames(4) for _ in range(3)), *(frames(9, 20, 24) for _ in range(4)), np.full((4, 16, 24, 3), 7, np.uint8)
    )
    said = " | ".join(video.checks(found))
    assert "4 to 9 frames" in said
    assert "4 frame(s)" in said
    assert "16x24 to 20x24 pixels" in said
    assert "one value everywhere" in said
    assert video.checks(surveyed(*(frames(9) for _ in range(8)))) == []


def test_the_owner_is_told_of_copies():
    same = frames(9)
    assert "near-duplicate" in " ".join(video.checks(surveyed(*[same] * 3, *(frames(9) for _ in range(5)))))


def test_a_folder_of_films_is_understood_and_glanced_at(tmp_path):
    for number in range(8):
        (tmp_path / "films" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "films" / "ab"[number % 2] / f"{number}.mkv").write_bytes(film(frames(12)))
    (tmp_path / "films" / "a" / "notes.txt").write_text("not a film")
    collection = open_data(tmp_path / "films")
    assert (collection.kind.name, len(collection)) == ("video", 8)
    assert collection.form == Form(3, "uint8", (12, 16, 24))
    assert len(collection.decode(0, part=lambda extent: video.glance(extent, []))) == video.glance.frames == 8


# Films that lie as numbered pictures


def moving(count: int = 12, height: int = 24, width: int = 32) -> np.ndarray:
    """A soft ball that rolls through the picture."""
    y, x = np.mgrid[:height, :width]
    path = np.linspace(0.1, 0.9, count) * width
    balls = [
        200 * np.exp(-((x - at) ** 2 + (y - height / 2) ** 2) / 40) + RANDOM.integers(0, 9, (height, width)) for at in path
    ]
    return np.stack([np.stack(balls)] * 3, axis=-1).astype(np.uint8)


def laid(folder: Path, array: np.ndarray, name: str = "frame_{:04d}.png", first: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(array, first):
        Image.fromarray(frame).save(folder / name.format(number))
    return folder


@pytest.mark.parametrize("name", ["frame_{:04d}.png", "{:05d}.png", "img{}.png", "shot-{}_rgb.png"])
def test_folders_of_numbered_frames_are_films(tmp_path, name):
    films = [moving(8 + number) for number in range(4)]
    for number, array in enumerate(films):
        laid(tmp_path / "ab"[number % 2] / f"clip{number}", array, name)
    collection = open_data(tmp_path)
    assert collection.kind is video
    assert "numbered pictures" in collection.description
    assert collection.labels is not None
    assert [len(collection.decode(row)) for row in range(len(collection))] == [8, 10, 9, 11]  # a/clip0, a/clip2, b/clip1 ...
    assert np.array_equal(collection.decode(3), films[3])
    small = collection.decode(3, 12, part=lambda extent: (np.array([10, 2, 2]),))
    assert small.shape == (3, 12, 16, 3)
    expected = Image.fromarray(films[3][10]).resize((16, 12), Image.Resampling.LANCZOS, reducing_gap=2.0)
    assert np.abs(small[0].astype(int) - np.asarray(expected).astype(int)).max() <= 2


def test_a_folder_for_each_film_is_no_class(tmp_path):
    for number in range(3):
        laid(tmp_path / f"clip{number}", moving())
    collection = open_data(tmp_path)
    assert (len(collection), collection.labels) == (3, None)
    assert "class" not in collection.description


def test_only_the_wanted_frames_are_read(tmp_path, monkeypatch):
    array = moving()
    first = laid(tmp_path / "clip", array) / "frame_0001.png"
    read, content = [], video.beside.content
    monkeypatch.setattr(video.beside, "content", lambda path, limits: read.append(path.name) or content(path, limits))
    part = video.decode(first, part=lambda extent: (np.array([7, 3, 7]),))
    assert np.array_equal(part, array[[7, 3, 7]])
    assert read == ["frame_0001.png", "frame_0004.png", "frame_0008.png"]  # the first one says how large they are


@pytest.mark.parametrize("odd", ["noise", "short", "gap", "size", "stems", "one folder"])
def test_numbered_pictures_that_may_be_no_films_stay_images(tmp_path, odd):
    """Classes of pictures are often numbered, too."""
    for number in range(1 if odd == "one folder" else 3):
        folder = laid(tmp_path / f"c{number}", frames(12, 24, 32) if odd == "noise" else moving(6 if odd == "short" else 12))
        if odd == "gap":
            (folder / "frame_0005.png").unlink()
        if odd == "size":
            Image.fromarray(moving(1, 24, 40)[0]).save(folder / "frame_0007.png")
        if odd == "stems":
            laid(folder, moving(), "other{}.png")
    assert open_data(tmp_path).kind.name == "image"


def test_a_person_may_say_that_they_are_films(tmp_path):
    laid(tmp_path / "both", frames(5), "a_{:02d}.jpg", first=10)
    laid(tmp_path / "both", moving(4)[..., 0], "b_{}.png", first=9)
    (tmp_path / "both" / "b_10.png").unlink()
    (tmp_path / "both" / "poster.png").write_bytes(b"beside them")
    collection = open_data(tmp_path, kind="video")
    assert sorted(len(collection.decode(row)) for row in range(len(collection))) == [3, 5]
    assert "of 8 files (1 beside them left out)" in collection.description


def test_pictures_beside_films_are_no_films(tmp_path):
    for number in range(8):
        (tmp_path / f"{number}.mkv").write_bytes(film(frames(9)))
        Image.fromarray(frames(1)[0]).save(tmp_path / f"{number}.jpg")
    collection = open_data(tmp_path)
    assert (collection.kind.name, len(collection)) == ("video", 8)


def test_frames_that_do_not_fit_are_refused(tmp_path):
    folder = laid(tmp_path / "clip", moving())
    Image.fromarray(moving(1, 24, 40)[0]).save(folder / "frame_0007.png")
    with pytest.raises(Unreadable, match=r"frame_0007\.png has 24x40 pixels, the first one 24x32"):
        video.decode(folder / "frame_0001.png")
    (folder / "frame_0003.png").write_bytes(b"broken")
    with pytest.raises(Unreadable):
        video.decode(folder / "frame_0001.png")
    with pytest.raises(Unreadable, match="on this machine"):
        video.form((folder / "frame_0002.png").read_bytes(), "clip/frame_0002.png")
    alone = laid(tmp_path / "alone", moving(1)) / "frame_0001.png"
    with pytest.raises(Unreadable, match="a picture is no film"):
        video.form(alone)
    with pytest.raises(Unreadable, match="limit"):
        video.decode(folder / "frame_0001.png", limits=Limits(file_bytes=100))


def test_a_frame_that_changes_is_another_film(tmp_path):
    for number in range(2):
        laid(tmp_path / f"clip{number}", moving())
    before = open_data(tmp_path).fingerprint
    Image.fromarray(moving(30)[20]).save(tmp_path / "clip1" / "frame_0005.png")
    assert open_data(tmp_path).fingerprint != before


# What doctor names


def test_films_in_which_nothing_moves_are_named(tmp_path):
    still, moved = moving(1).repeat(9, 0), moving(9)
    grain = still + RANDOM.integers(0, 5, still.shape).astype(np.uint8)
    for name, array in {"still": still, "grain": grain, "moved": moved}.items():
        (tmp_path / f"{name}.mkv").write_bytes(film(array))
    collection = open_data(tmp_path)
    notes = survey(collection, measure(collection)).notes
    assert [note for note in notes if "nothing moves" in note] == [
        "nothing moves in 2 film(s), from which no motion can be learned: grain.mkv, still.mkv"
    ]


def test_films_at_other_rates_are_named(tmp_path):
    for number, rate in enumerate((25, 25, 25, 10, 60, 25)):
        (tmp_path / f"{number}.mkv").write_bytes(film(moving(9), rate))
    collection = open_data(tmp_path)
    notes = survey(collection, measure(collection)).notes
    assert "frames per second differ: 25 (4 of them), 10 (3.mkv), 60 (4.mkv): a clip shows more or less time" in notes
