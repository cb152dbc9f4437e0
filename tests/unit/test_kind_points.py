"""Clouds of points as data: what is understood, what is refused, and how they are shown where no method has a say."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from tacit.core.draws import Draws
from tacit.data.kinds import points
from tacit.data.kinds.kind import Form, choose, kind_named, sides, thumbnail
from tacit.data.open import measure, open_data
from tacit.data.payload import Unreadable
from tacit.data.spec import Batch, Spec
from tacit.data.survey import survey
from tacit.views.normalise import statistics
from tacit.views.points import PointView, Scattered
from tacit.views.sight import sight

RANDOM = np.random.default_rng(0)
CLOUD = RANDOM.normal(size=(200, 4)).astype(np.float32)


def ply(cloud: np.ndarray, names: tuple[str, ...] = ("x", "y", "z", "energy")) -> bytes:
    table = np.rec.fromarrays(list(cloud.T), names=",".join(names[: cloud.shape[1]]))
    file = io.BytesIO()
    PlyData([PlyElement.describe(np.asarray(table), "vertex")]).write(file)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


# What is understood ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [ply(CLOUD), npy(CLOUD), CLOUD, CLOUD.astype(np.float64)])
def test_a_cloud_comes_as_float32_in_its_own_units(payload):
    assert points.form(payload) == Form(4, "float32", (200,))
    decoded = points.decode(payload, Form(4, "float32", (200,)), side=8)
    assert decoded.dtype == np.float32
    assert np.array_equal(decoded, CLOUD)


def test_a_part_is_what_was_asked_for():
    places = np.array([3, 3, 150])
    assert np.array_equal(points.decode(npy(CLOUD), part=lambda extent: (places,)), CLOUD[places])


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (npy(CLOUD[:, :3]), "0 feature"),
        (npy(np.where(CLOUD > 3, np.nan, CLOUD)), "NaN"),
        (npy(np.where(CLOUD > 2, np.inf, CLOUD)), "NaN or infinite"),
        (CLOUD[:, :2], "is no cloud"),
        (CLOUD[:0], "is no cloud"),
        (CLOUD.astype(str), "no numbers"),
        (b"", "empty"),
        (b"ply\n", "truncated"),
    ],
)
def test_what_is_no_such_cloud_is_unreadable(payload, why):
    with pytest.raises(Unreadable, match=why):
        points.decode(payload, Form(4, "float32", (200,)))


def test_most_samples_decide_on_the_features():
    forms = [Form(4, "float32", (n,)) for n in (10, 30, 20)] + [Form(3, "float32", (500,))]
    assert points.agree(forms) == Form(4, "float32", (20,))


def test_points_are_told_from_pictures_volumes_and_tables():
    def kind(names: list[str], first=None) -> str | None:
        found, _ = choose(names, first)
        return found and found.name

    assert kind(["a.ply", "b.ply"]) == kind(["mesh.off"]) == "points"
    assert kind([], CLOUD) == kind(["a.npy"], npy(CLOUD)) == "points"
    assert kind([], RANDOM.integers(0, 255, (40, 40), dtype=np.uint8)) == "image"
    assert kind(["scan.npy"]) == "volume"  # names alone do not tell; most arrays in files of their own are volumes
    assert points.sniff([], RANDOM.normal(size=(500, 40))).certainty == 0


def test_points_have_no_sides():
    assert sides("points", (200,)) == ()
    assert kind_named("points") is points


def test_bundled_clouds_are_found():
    events, objects = open_data("sample:particle_events"), open_data("sample:scanned_objects")
    assert (events.form.channels, objects.form.channels) == (4, 3)
    assert set(objects.labels.tolist()) == {"box", "cylinder"}  # pyright: ignore[reportOptionalMemberAccess]
    assert len(events.select("train").decode(2)) == 1895


# What is measured and shown -------------------------------------------------------------------------------------------


def collection(folder: Path, *clouds: np.ndarray):
    for number, cloud in enumerate(clouds):
        np.save(folder / f"{number}.npy", cloud)
    return open_data(folder, kind="points")


def test_values_keep_their_units(tmp_path):
    """Coordinates in kilometres that lie far away, and a feature that hardly varies beside them."""
    scale, shift = np.array([2e-4, 1e-4, 1e-4, 1e-6]), np.array([0.01, 0, -0.01, 1e-5])
    made = [RANDOM.normal(size=(500, 4)) * scale + shift for _ in range(4)]
    spec = measure(collection(tmp_path, *(each.astype(np.float32) for each in made)))
    assert (spec.low, spec.high, spec.size, spec.channels) == (0.0, 1.0, (500,), 4)
    everything = np.concatenate(made)
    assert np.allclose(spec.mean, everything.mean(0), rtol=1e-4)
    assert np.allclose(spec.std, everything.std(0), rtol=1e-3)
    assert torch.allclose(statistics("data", spec)[1], torch.tensor(spec.std))


def test_a_feature_that_never_varies_is_not_blown_up(tmp_path):
    flat = np.concatenate([CLOUD[:, :3], np.full((200, 1), 7.3, np.float32)], axis=1)
    data = collection(tmp_path, flat, flat)
    spec = measure(data)
    assert float(PointView(200)(batch(flat), Draws(0, 0, torch.arange(1)), spec)[:, 3].abs().max()) < 0.1


def test_a_picture_shows_the_cloud_from_above_and_from_the_side():
    line = np.zeros((100, 3), np.float32)
    line[:, 1] = np.arange(100)  # away from the eye that looks from the side
    picture = points.picture(line)
    assert picture.shape == (64, 128, 1)
    assert picture.dtype == np.float32
    assert (picture.min(), picture.max()) == (0, 1)
    above, side = picture[:, :64, 0], picture[:, 64:, 0]
    assert (above.any(axis=0).sum(), above.any(axis=1).sum()) == (1, 64)
    assert side.astype(bool).sum() == 1
    assert thumbnail(points, line, 32, 0.0, 1.0)[:4] == b"\x89PNG"
    assert points.picture(CLOUD * 0 + 5).max() == 1  # all points in one place


def test_the_survey_finds_copies_and_says_what_is_odd(tmp_path):
    small, far = CLOUD[:20], CLOUD + 1e7
    data = collection(tmp_path, CLOUD, CLOUD, small)
    found = survey(data, measure(data))
    assert found.copies == found.duplicates == pytest.approx(2 / 3)
    assert any("20 to 200" in note for note in found.notes)
    assert any("20 point(s)" in note for note in found.notes)
    (tmp_path / "far").mkdir()
    data = collection(tmp_path / "far", far, far)
    assert any("subtract an offset" in note for note in survey(data, measure(data)).notes)


# Views ----------------------------------------------------------------------------------------------------------------

SPEC = Spec("points", 4, (200,), 0.0, 1.0, (1.0, 2.0, 3.0, 4.0), (2.0, 2.0, 2.0, 0.5))


def batch(*clouds: np.ndarray) -> Batch:
    return Batch.padded(torch.arange(len(clouds)), [each.T for each in clouds])


def shown(view: PointView, *clouds: np.ndarray) -> torch.Tensor:
    made = batch(*clouds)
    return view(made, Draws(0, 0, made.ids), SPEC)


def test_a_view_is_centred_scaled_and_says_where_points_are():
    x = shown(PointView(200), CLOUD, CLOUD[:50])
    assert x.shape == (2, 5, 200)
    expected = np.concatenate([(CLOUD[:, :3] - (1, 2, 3)) / 6, (CLOUD[:, 3:] - 4) / 1, np.ones((200, 1))], axis=1)
    assert np.allclose(x[0].T, expected, atol=1e-6)
    assert torch.equal(x[1, :, :50], x[0, :, :50])
    assert not x[1, :, 50:].any()


@pytest.mark.parametrize(
    "view", [PointView(200, "free"), PointView(200, "upright", step=90), PointView(200, kept=0.3), PointView(200, values=0.5)]
)
def test_a_cloud_is_shown_alike_however_it_is_batched(view):
    alone, among = shown(view, CLOUD[:50]), shown(view, CLOUD[:50], CLOUD)
    size = int(among[0, -1].sum())
    assert torch.allclose(alone[0, :, :size], among[0, :, :size], atol=1e-6)
    assert not alone[0, :, size:].any()
    assert not among[0, :, size:].any()


def test_turns_keep_what_they_promise():
    plain = shown(PointView(200), CLOUD)
    free, upright = shown(PointView(200, "free"), CLOUD), shown(PointView(200, "upright"), CLOUD)
    for other in (free, upright):
        assert torch.allclose(other[:, :3].norm(dim=1), plain[:, :3].norm(dim=1), atol=1e-5)
        assert not torch.allclose(other[:, :2], plain[:, :2], atol=0.01)
        assert torch.equal(other[:, 3:], plain[:, 3:])
    assert torch.allclose(upright[:, 2], plain[:, 2], atol=1e-6)
    quarter = shown(PointView(200, "upright", step=90), CLOUD)
    assert torch.allclose(quarter[:, :2].abs().sort(1).values, plain[:, :2].abs().sort(1).values, atol=1e-5)


def test_points_that_stay_are_some_of_those_there_were_in_their_order():
    plain, thinned = shown(PointView(200), CLOUD)[0].T, shown(PointView(200, kept=0.3), CLOUD)[0].T
    size = int(thinned[:, -1].sum())
    assert 40 < size < 200
    rows = [int((plain == row).all(1).nonzero()[0]) for row in thinned[:size]]
    assert rows == sorted(rows)


def test_large_clouds_are_thinned_evenly():
    window = Scattered(50)
    (few,) = window((30,), [0.9])
    assert few.tolist() == list(range(30))
    starts = [window((1000,), [draw])[0] for draw in (0.0, 0.5, 0.999999)]
    for places in starts:
        assert len(places) == 50
        assert (np.diff(places) == 20).all()
        assert places[0] >= 0
        assert places[-1] < 1000
    assert starts[0][0] != starts[1][0]


def test_raw_input_is_a_histogram_that_knows_no_order():
    eye = sight("points")
    spec = replace(SPEC, mean=(0.0,) * 4, std=(1.0,) * 4)
    made = batch(CLOUD, CLOUD[:50], CLOUD[::-1].copy())
    flat = eye.flat(eye.still(eye.coarse)(made, Draws(0, 0, made.ids), spec))
    assert flat.shape == (3, 8**3 * 2)
    assert torch.allclose(flat[0], flat[2], atol=1e-6)
    assert torch.allclose(flat[:, :512].square().sum(1), torch.ones(3))  # shares
    only = batch(CLOUD[:50])
    alone = eye.flat(eye.still(eye.coarse)(only, Draws(0, 0, torch.tensor([1])), spec))
    assert torch.allclose(alone[0], flat[1], atol=1e-6)
