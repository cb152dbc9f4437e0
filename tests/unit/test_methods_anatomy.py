"""Anatomy: which cells meet, whom they are set against, what it says of whole volumes; and Alice's pairs found with it."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tacit
from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.loader import PARTNER
from tacit.data.maps import Maps
from tacit.data.spec import Batch, Spec
from tacit.methods.alice import Alice, AliceOptions
from tacit.methods.anatomy import Anatomy, AnatomyOptions
from tacit.methods.method import Progress
from tacit.nn import build
from tacit.nn.anatomy import AnatomyNet
from tacit.nn.init import seeded
from tacit.nn.swin3d import Swin3D
from tacit.train import session
from tacit.train.folder import RunFolder, read_table
from tacit.views.volume_match import Matching
from tacit.views.volume_overlap import OverlapView, cell_places
from tacit.views.volume_pairs import PairView

SIDE = 16
EXTENT = (SIDE, SIDE, SIDE)
SPEC = Spec("volume", 1, (20, 18, 22))
FIRST = Progress(0, 10, 5)


def tiny(channels: int = 1, **options) -> Anatomy:
    chosen = AnatomyOptions(**{"dims": 8, "coarse": 4, "anchors": 20, **options})
    with seeded(0, "tiny"):
        encoder = AnatomyNet(channels, 4, chosen.dims, chosen.coarse)
        spec = Spec("volume", channels, (20, 18, 22))
        Anatomy.check(chosen, encoder, spec, SIDE, 4)
        return Anatomy(chosen, encoder, spec, SIDE)


def volumes(count: int = 4, first: int = 0, ragged: bool = False) -> Batch:
    random = np.random.default_rng(first)
    sizes = [(20 - 2 * (row % 2) * ragged, 18, 22) for row in range(count)]
    data = [F.interpolate(torch.from_numpy(random.random((1, 1, 5, 5, 5))), size, mode="trilinear")[0] for size in sizes]
    return Batch.padded(torch.arange(first, first + count), [(255 * each).byte().numpy() for each in data])


def seen(made: Anatomy, batch: Batch) -> tuple[dict[str, torch.Tensor], Draws]:
    draws = Draws(0, 0, batch.ids)
    return {name: view(batch, draws.within(name), made.spec) for name, view in made.views().items()}, draws


# Crops that overlap ---------------------------------------------------------------------------------------------------


def test_cells_of_both_crops_lie_where_they_say():
    """In volumes whose value is a coordinate, a crop's values are the places of its voxels."""
    for axis in range(3):
        ramp = np.indices((30, 28, 26))[axis][None].astype(np.float32)
        batch = Batch.padded(torch.arange(5), [ramp] * 5)
        draws, spec = Draws(0, 0, batch.ids), Spec("volume", 1, (30, 28, 26), low=0.0, high=100.0)
        places = OverlapView("places", EXTENT)(batch, draws.within("places"), spec)
        for turn, which in enumerate(("first", "second")):
            crop = OverlapView(which, EXTENT, normalise="none")(batch, draws.within(which), spec)
            wanted = cell_places(places[:, turn], EXTENT, 1)[..., axis].view(-1, SIDE, SIDE, SIDE)
            middle = (slice(None), *[slice(2, -2)] * 3)  # what is enlarged or reduced differs at the borders
            torch.testing.assert_close(100 * crop[:, 0][middle] + 0.5, wanted[middle], rtol=0, atol=0.1)


def test_crops_overlap_and_lie_within_their_volumes_whatever_they_are_batched_with():
    view = OverlapView("places", EXTENT, zoom=0.2)
    sizes = torch.tensor([[60, 50, 40], [12, 60, 20]] * 200)
    corners, sides = view.boxes(sizes, Draws(0, 0, torch.arange(400)))
    assert ((corners >= 0) & (corners + sides <= sizes[:, None])).all()
    assert (sides[1::2, :, 0] == 12).all()
    shared = torch.minimum(corners[:, 0] + sides[:, 0], corners[:, 1] + sides[:, 1]) - corners.amax(dim=1)
    assert (shared >= 0.2 * SIDE).all()
    assert sides[::2].min() < 14 < 18 < sides[::2].max()
    batch = volumes(4, ragged=True)
    for which in ("first", "second", "places"):
        view = OverlapView(which, EXTENT)
        together = view(batch, Draws(0, 0, batch.ids), SPEC)
        d, h, w = batch.sizes[1].tolist()
        one = Batch(batch.ids[1:2], batch.data[1:2, :, :d, :h, :w], batch.sizes[1:2])
        torch.testing.assert_close(view(one, Draws(0, 0, one.ids), SPEC), together[1:2], rtol=0, atol=2e-5)


# The loss -------------------------------------------------------------------------------------------------------------


def slow_level(vectors, where, anchors, near, far, hardest, temperature, strangers) -> float:
    """InfoNCE of one direction by loops: `vectors[crop][cell]`, `where[crop][cell]`, in double precision."""
    losses = []
    for i, order in enumerate(anchors):
        mine, other = (0, 1)
        distance = {a: [math.dist(where[mine][i][a], p) for p in where[other][i]] for a in range(len(where[mine][i]))}
        low = [min(p[k] for p in where[other][i]) - near for k in range(3)]
        high = [max(p[k] for p in where[other][i]) + near for k in range(3)]
        outside = [any(not lo <= x <= hi for lo, x, hi in zip(low, p, high, strict=True)) for p in where[mine][i]]
        for a in sorted(range(len(order)), key=lambda a: (outside[a], order[a]))[:20]:
            partner = min(range(len(distance[a])), key=distance[a].__getitem__)
            if distance[a][partner] > near:
                continue
            anchor = vectors[mine][i][a]
            negatives = [
                float(anchor @ vectors[crop][i][cell])
                for crop in (mine, other)
                for cell, place in enumerate(where[crop][i])
                if math.dist(where[mine][i][a], place) > far
            ]
            chosen = sorted(negatives, reverse=True)[:hardest] + [float(anchor @ s) for s in strangers[i]]
            own = float(anchor @ vectors[other][i][partner])
            losses.append(math.log(sum(math.exp((n - own) / temperature) for n in [own, *chosen])))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("hardest", "strangers"), [(7, 0), (40, 6)])
def test_a_level_is_its_slow_twin(hardest, strangers):
    """Mutations: the nearest as negatives; own cells as strangers; one direction alone."""
    made = tiny()
    maps = F.normalize(Draws(1, 0, torch.arange(6)).normal("maps", 8, 3, 3, 3).double(), dim=1)
    corner = Draws(1, 0, torch.arange(3)).uniform("corner", 2, 3, high=4.0).double()
    places = torch.cat([corner, torch.tensor([[[1.1] * 3, [0.9] * 3]]).double().expand(3, -1, -1)], dim=2)
    draws = Draws(0, 0, torch.arange(3))
    loss, share = made.level(maps, places, 4, (2.5, 3.0), hardest, draws, strangers)
    vectors = [each.flatten(2).transpose(1, 2) for each in maps.chunk(2)]
    where = [cell_places(each, (3, 3, 3), 4).tolist() for each in places.unbind(1)]
    cells, each = torch.cat(vectors, dim=1), -(-strangers // 2)
    order = draws.permutation("strangers", 54)[:, :each]
    others = [[cells[j, c] for j in range(3) if j != i for c in order[j].tolist()] for i in range(3)]
    wanted = [
        slow_level(turned(vectors), turned(where), draws.uniform(f"anchors{turn}", 27).tolist(), 2.5, 3.0, hardest, 0.5, others)
        for turn, turned in enumerate((list, lambda both: both[::-1]))
    ]
    assert float(loss) == pytest.approx(sum(wanted) / 2, rel=1e-9)
    assert 0 < float(share) <= 1


def test_a_volume_that_is_alone_has_no_strangers():
    made, batch = tiny(), volumes(1)
    assert made.strangers(torch.zeros(1, 4, 8), 10, Draws(0, 0, batch.ids)) is None
    assert torch.isfinite(made(*seen(made, batch), FIRST).total)


def test_it_learns_to_find_places_again():
    made, batch = tiny(), volumes(4)
    optimiser = torch.optim.Adam(made.parameters(), 1e-2)
    losses = []
    for step in range(12):
        draws = Draws(0, step, batch.ids)
        views = {name: view(batch, draws.within(name), made.spec) for name, view in made.views().items()}
        optimiser.zero_grad()
        terms = made(views, draws, FIRST)
        terms.total.backward()
        optimiser.step()
        losses.append(float(terms.total.detach()))
    assert sum(losses[-3:]) < sum(losses[:3]) - 0.3


@pytest.mark.parametrize(
    ("encoder", "size", "why"),
    [
        ("swin3d-micro", 16, "fine and coarse maps"),
        ("anatomy-mini", 24, "do not divide"),
        ("anatomy-mini", 16, "do not divide"),
    ],
)
def test_what_cannot_be_is_refused(encoder, size, why):
    options = Anatomy.Options()
    made = build.encoder(encoder, 1, (size,) * 3, **Anatomy.encoder_options(options, encoder))
    with pytest.raises(TacitError, match=why):
        Anatomy.check(options, made, SPEC, size, 4)


# Whole volumes --------------------------------------------------------------------------------------------------------


def test_volumes_are_described_without_their_padding():
    made, batch = tiny(), volumes(3, ragged=True)
    together = dict(made.describe([batch]))
    for row in range(3):
        d, h, w = batch.sizes[row].tolist()
        alone = Batch(batch.ids[row : row + 1], batch.data[row : row + 1, :, :d, :h, :w], batch.sizes[row : row + 1])
        ((_, maps),) = made.describe([alone])
        for one, other in zip(maps, together[row], strict=True):
            assert np.array_equal(one, other)
        assert maps[0].shape == (8, -(-d // 2), 9, 11)


def test_maps_are_made_once_whole_and_read_by_row(tmp_path):
    made = [(0, [np.ones((2, 3, 4)), np.zeros((2, 1, 1))]), (2, [np.full((2, 2, 2), 0.5), np.full((2, 1, 2), 3.0)])]

    def cut_off():
        yield made[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Maps.made(tmp_path / "maps", cut_off())
    assert not list(tmp_path.iterdir())
    for said in (made, ()):  # the second time nothing is asked for
        maps = Maps.made(tmp_path / "maps", iter(said))
        assert [row in maps for row in range(4)] == [True, False, True, False]
        assert [each.tolist() for each in maps[2]] == [each.tolist() for each in made[1][1]]
        assert maps[0][0].dtype == np.float16
    whole = (tmp_path / "maps.f16").read_bytes()
    (tmp_path / "maps.f16").write_bytes(whole[:-1])
    assert Maps.made(tmp_path / "maps", iter(made))[2][1].max() == 3
    assert (tmp_path / "maps.f16").read_bytes() == whole
    with pytest.raises(TacitError, match="no sample can be read"):
        Maps.made(tmp_path / "other", iter(()))


# Pairs ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def described(tmp_path) -> Maps:
    """Random unit vectors for eight volumes, at stride 2 and 8."""
    random, batch = np.random.default_rng(0), paired()
    sizes = dict(zip(batch.ids.tolist(), batch.sizes.tolist(), strict=True))
    other = batch.parts[PARTNER]
    sizes |= dict(zip(other.ids.tolist(), other.sizes.tolist(), strict=True))

    def unit(row: int, stride: int) -> np.ndarray:
        vectors = random.standard_normal((6, *(-(-side // stride) for side in sizes[row])))
        return vectors / np.linalg.norm(vectors, axis=0)

    return Maps.made(tmp_path / "maps", ((row, [unit(row, 2), unit(row, 8)]) for row in sorted(sizes)))


def paired() -> Batch:
    batch = volumes(4, ragged=True)
    batch.parts[PARTNER] = volumes(4, first=4, ragged=True)
    return batch


def score(maps: Maps, query: int, key: int, point: list[int]) -> tuple[float, list[int]]:
    """The best cell of the key volume for a voxel of the query volume, by loops in double precision."""

    def both(row: int) -> tuple[np.ndarray, np.ndarray]:
        fine, coarse = (np.asarray(each, dtype=np.float64) for each in maps[row])
        grown = F.interpolate(torch.from_numpy(coarse)[None], fine.shape[1:], mode="trilinear", align_corners=False)[0].numpy()
        return fine, grown / np.linalg.norm(grown, axis=0)

    (fine, coarse), (fine_key, coarse_key) = both(query), both(key)
    at = (slice(None), *(side // 2 for side in point))
    best, where = -2.0, [0, 0, 0]
    for cell in itertools.product(*map(range, fine_key.shape[1:])):
        here = (slice(None), *cell)
        like = (fine[at] @ fine_key[here] + coarse[at] @ coarse_key[here]) / 2
        if like > best:
            best, where = float(like), [2 * side for side in cell]
    return best, where


@pytest.mark.parametrize("threshold", [0.8, 2.0])
def test_pairs_are_their_slow_twin(described, threshold):
    """The first of the tries that is good enough, or the last. Mutations: the first try always; another volume's vectors."""
    from tacit.views.volume_crops import body_points
    from tacit.views.volume_pairs import body

    batch, tries = paired(), 11
    view = PairView("anchor", (4, 4, 4), "matched", matching=Matching(described, 2, threshold), tries=tries)
    draws = Draws(0, 0, batch.ids, "pair/")
    here, there, found = view.found(batch, batch.parts[PARTNER], draws, SPEC)
    points = body_points(body(batch, SPEC), draws.uniform("point", tries), batch.sizes.long())
    taken = []
    for row in range(4):
        slow = [score(described, row, 4 + row, point) for point in points[row].tolist()]
        number = next((i for i, (value, _) in enumerate(slow) if value > threshold), tries - 1)
        taken.append(number)
        assert here[row].tolist() == points[row, number].tolist()
        assert there[row].tolist() == slow[number][1]
        assert float(found[row]) == pytest.approx(slow[number][0], rel=1e-5)
    assert len(set(taken)) > 1 or threshold == 2.0


def test_a_volume_with_itself_gives_the_own_cell(described):
    """Invariant 8 of Alice's card, through what is stored in half precision."""
    batch = paired()
    batch.parts[PARTNER] = batch.rows(0, 4)
    view = PairView("query", (4, 4, 4), "matched", matching=Matching(described, 2, 0.7), tries=3)
    here, there, found = view.found(batch, batch.parts[PARTNER], Draws(0, 0, batch.ids, "pair/"), SPEC)
    assert torch.equal(here // 2, there // 2)
    assert ((here - there).abs() < 2).all()
    torch.testing.assert_close(found, torch.ones(4, 1), rtol=0, atol=2e-3)


def test_matched_views_are_the_same_in_any_batch_and_others_at_another_time(described):
    batch = paired()

    def shown(batch: Batch, epoch: int = 0) -> list[torch.Tensor]:
        matching, draws = Matching(described, 2, 0.5), Draws(0, epoch, batch.ids)
        views = {
            which: PairView(which, (6, 6, 6), "matched", matching=matching, tries=9) for which in ("query", "anchor", "score")
        }
        return [view(batch, draws.within(name), SPEC) for name, view in views.items()]

    whole = shown(batch)
    for row in range(4):
        for one, all in zip(shown(batch.rows(row, row + 1)), whole, strict=True):
            assert torch.equal(one, all[row : row + 1])
    assert not torch.equal(shown(batch, 1)[1], whole[1])
    matching, view = Matching(described, 2, 0.5), None
    for epoch in (0, 1, 0):  # one that has just looked elsewhere
        view = PairView("anchor", (6, 6, 6), "matched", matching=matching, tries=9)
        assert torch.equal(view(batch, Draws(0, epoch, batch.ids).within("anchor"), SPEC), shown(batch, epoch)[1])


def test_where_nothing_was_said_of_a_volume_its_partner_is_found_by_position(described):
    batch = paired()
    batch.parts[PARTNER].ids[2] = 77
    draws = Draws(0, 0, batch.ids)
    matched = PairView("anchor", (6, 6, 6), "matched", matching=Matching(described, 2, 0.5), tries=9)(batch, draws, SPEC)
    by_position = PairView("anchor", (6, 6, 6), "position", tries=9)(batch, draws, SPEC)
    assert torch.equal(matched[2], by_position[2])
    assert not torch.equal(matched[0], by_position[0])
    untold = PairView("anchor", (6, 6, 6), "matched", tries=9)(batch, draws, SPEC)
    assert torch.equal(untold, by_position)


# Runs -----------------------------------------------------------------------------------------------------------------

ALICE = {
    "batch": 4, "size": 16, "encoder": "swin3d-micro", "precision": "float32", "checkpoint_every": "1", "held_back": 4,
    "prototypes": 12, "head_width": 10, "bottleneck": 6, "casa_hidden": 16, "stop_on": "none", "match_tries": 9,
}  # fmt: skip


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for number, sample in enumerate(volumes(16).data):
        image = nibabel.Nifti1Image(sample[0].numpy(), np.eye(4))
        (folder / f"{number:03d}.nii").write_bytes(image.to_bytes())
    return folder


def alice(scans: Path, out: Path, steps: int = 3, needs: dict | None = None, **options) -> tacit.Run:
    given = {**ALICE, "partner": "matched", **options}
    return tacit.pretrain("alice", scans, out=out, steps=steps, options=given, device="cpu", needs=needs or {})


@pytest.fixture(scope="module")
def run(scans, tmp_path_factory) -> tacit.Run:
    return alice(scans, tmp_path_factory.mktemp("run") / "out")


def test_alice_trains_its_anatomy_first_and_finds_pairs_with_it(run):
    assert (run.path / "needs/anatomy/encoder.json").is_file()
    maps = Maps.made(run.path / "needs/anatomy-maps", iter(()))
    assert all(row in maps for row in range(16))
    metrics = read_table(run.path / "metrics.csv")
    assert all(-1 <= value <= 1 and value != 0 for value in metrics["match"] if value is not None)
    held = torch.load(run.path / "checkpoints/last.pt", weights_only=True)["method"]
    assert not any("anatomy" in name for name in held)


@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_is_asked_once_before_the_run_and_the_first_one_alone(rank, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(distributed, "world_size", lambda: 1 if distributed._apart else 2)
    monkeypatch.setattr(distributed, "meet", lambda: seen.append("met"))
    fabric = SimpleNamespace(global_rank=rank, broadcast=lambda said: (None, "", 0))
    method = SimpleNamespace(before_run=lambda every, folder: seen.append(distributed.world_size()))
    session._prepare(method, iter(()), RunFolder(tmp_path), fabric)  # pyright: ignore[reportArgumentType]
    assert seen == ([1, "met"] if rank == 0 else ["met", 2])


def test_a_run_that_goes_on_makes_what_is_missing_of_the_maps_and_ends_the_same(run, scans, tmp_path, monkeypatch):
    class PowerCut(Exception):
        pass

    describe, calls = Anatomy.describe, []

    def interrupted(self, every):
        for number, each in enumerate(describe(self, every)):
            calls.append(number)
            if len(calls) == 5:
                raise PowerCut
            yield each

    monkeypatch.setattr(Anatomy, "describe", interrupted)
    with pytest.raises(PowerCut):
        alice(scans, tmp_path / "cut")
    assert not list((tmp_path / "cut/needs").glob("anatomy-maps*"))
    resumed = tacit.resume(tmp_path / "cut")
    assert len(calls) == 5 + 16
    for name in ("metrics.csv", "figures.csv", "encoder.safetensors", "needs/anatomy-maps.f16"):
        assert (resumed.path / name).read_bytes() == (run.path / name).read_bytes(), name


def test_an_anatomy_can_be_given_and_then_pairs_are_matched(run, scans, tmp_path):
    given = alice(scans, tmp_path / "given", steps=1, needs={"anatomy": run.path / "needs/anatomy"}, partner="matched")
    assert given.config["needs"]["anatomy"]["fingerprint"]
    same = (run.path / "needs/anatomy-maps.f16").read_bytes()
    assert (given.path / "needs/anatomy-maps.f16").read_bytes() == same
    with pytest.raises(TacitError, match="partner=matched, not position; leave it out"):
        alice(scans, tmp_path / "no", needs={"anatomy": run.path / "needs/anatomy"}, partner="position")
    with pytest.raises(TacitError, match="a run of alice cannot be what another one needs"):
        alice(scans, tmp_path / "no", needs={"anatomy": run.path})
    assert not (tmp_path / "no").exists()


def test_which_runs_need_an_anatomy():
    assert Alice.needed({}, "paper", 10) == {"anatomy": {}}
    assert Alice.needed({}, "auto", 10) == Alice.needed({"partner": "self"}, "paper", 10) == {}
    assert list(Alice.needed({}, "auto", 100)) == list(Alice.needed({"partner": "matched"}, "quick", 10)) == ["anatomy"]
    assert Alice.inherits({"anatomy": {}}) == {"partner": "matched"}
    assert Alice.inherits({}) == {}


def test_an_anatomy_of_other_channels_is_refused():
    options = AliceOptions(prototypes=12, head_width=10, bottleneck=6, casa_hidden=16, mask_patch=2)
    with pytest.raises(TacitError, match="volumes of 2 channels, here are 1"):
        Alice(options, Swin3D(1, 8, (1, 2), (2, 2), (1, 2)), SPEC, 8, anatomy=tiny(2))
