"""PoLAr-MAE beyond its golden numbers: the card's invariants, its options, what `auto` chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tacit.core import distributed
from tacit.core.distributed import mean_of_rows
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.kinds.points import picture
from tacit.data.spec import Batch, Spec
from tacit.methods.method import Facts, Progress, Terms
from tacit.methods.polar_mae import PolarMAE
from tacit.nn import build
from tacit.nn.points.grouping import radius_of, volumetric
from tacit.train.config import Training
from tacit.train.session import build_method

FIRST = Progress(0, 10, 10)
SMALL: dict[str, Any] = {
    "radius": 0.25, "pointnet": 4, "slots": 6, "decoder_depth": 1, "drop_path": 0.0, "dropout": 0.0, "norm": "token",
}  # fmt: skip
SIZES = (60, 45, 20, 33)


def spec(channels: int = 4) -> Spec:
    return Spec("points", channels, (60,), 0.0, 1.0, (0.5,) * channels, (0.3,) * channels)


def method(channels: int = 4, **options: Any) -> PolarMAE:
    training = Training(encoder="point-vit-micro", size=60, batch=8)
    made = build_method(PolarMAE, PolarMAE.Options(**SMALL | options), training, spec(channels))
    assert isinstance(made, PolarMAE)
    return made


def batch(channels: int = 4, *, pad: int = 0) -> Batch:
    clouds = [Draws(3, 0, torch.tensor([row])).uniform("cloud", channels, n)[0].numpy() for row, n in enumerate(SIZES)]
    made = Batch.padded(torch.arange(len(SIZES)), clouds)
    return Batch(made.ids, torch.nn.functional.pad(made.data, (0, pad)), made.sizes)


def step(made: PolarMAE, given: Batch) -> Terms:
    draws = Draws(0, 0, given.ids)
    views = {name: view(given, draws.within(name), made.spec) for name, view in made.views().items()}
    return made(views, draws, FIRST)


def total(made: PolarMAE, given: Batch) -> Tensor:
    with torch.no_grad():
        return step(made, given).total


def gradient(made: PolarMAE, name: str) -> Tensor:
    found = made.get_parameter(name).grad
    assert found is not None
    return found


# Invariants -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["masked_batch", "token"])
def test_padding_and_the_order_of_the_batch_change_no_loss(norm):
    made, given = method(norm=norm), batch()
    plain = total(made, given)
    assert torch.allclose(total(made, batch(pad=17)), plain, atol=1e-6)
    turn = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(total(made, given.each(lambda x: x[turn])), plain, atol=1e-6)


def test_hidden_and_seen_are_all_tokens():
    made, given = method(mask_ratio=0.6), batch()
    view = made.views()["view"](given, Draws(0, 0, given.ids), made.spec)
    found = made.predict(view, Draws(0, 0, given.ids))
    counts = found.tokens.valid.sum(1)
    assert not (found.mask & ~found.tokens.valid).any()
    assert torch.equal(found.mask.sum(1), (counts * torch.tensor(0.6)).long())
    assert len(found.points) == found.mask.sum()
    assert not found.encoded[found.mask].any()  # what is hidden was not seen


def test_each_loss_moves_its_own_head():
    for options, moved, still in (
        ({"energy": 0.0}, ("point_head.weight",), ()),
        ({"chamfer": 0.0}, ("value_head.weight", "ordered.first.fc1.weight"), ("point_head.weight",)),
    ):
        made = method(**options)
        assert (made.value_head is None) == ("energy" in options)
        step(made, batch()).total.backward()
        for name in (*moved, "student.trunk.blocks.0.attn.qkv.weight", "student.tokenizer.first.fc1.weight", "mask_token"):
            assert gradient(made, name).any(), name
        for name in still:
            assert not gradient(made, name).any(), name


def test_the_shape_says_nothing_to_the_features_head_nor_the_features_to_the_shape():
    """Chamfer has no gradient into the ordered net, the energy none into the point head."""
    made = method()
    terms = step(made, batch())
    energy_only = method(chamfer=0.0)
    energy_only.load_state_dict(made.state_dict())
    terms.total.backward()
    step(energy_only, batch()).total.backward()
    for name in ("value_head.weight", "ordered.second.fc2.weight"):
        assert torch.allclose(gradient(made, name), gradient(energy_only, name), atol=1e-7)


def test_the_one_token_learns_and_weighs_nothing():
    made = method()
    terms = step(made, batch())
    assert torch.allclose(terms.total, terms.parts["chamfer"] + terms.parts["energy"])
    terms.total.backward()
    assert gradient(made, "constant").any()
    before = {name: value.clone() for name, value in terms.watch.items()}
    made.constant.data += 1
    after = step(made, batch())
    assert torch.allclose(after.total, terms.total)
    assert after.watch["chamfer_of_one_token"] > before["chamfer_of_one_token"]


def test_chance_of_the_features_is_their_variance():
    made, given = method(), batch()
    terms = step(made, given)
    assert made.value_head is not None
    torch.nn.init.zeros_(made.value_head.weight)
    view = made.views()["view"](given, Draws(0, 0, given.ids).within("view"), made.spec)
    found = made.predict(view, Draws(0, 0, given.ids))
    true = found.tokens.patches[found.mask][found.tokens.point_mask[found.mask]][:, 3]
    assert torch.allclose(terms.watch["energy_of_the_mean"], true.var(correction=0), atol=1e-6)
    with torch.no_grad():
        made.value_head.bias.fill_(float(true.mean()))
    assert torch.allclose(step(made, given).parts["energy"], true.var(correction=0), atol=1e-5)


def test_places_alone_are_predicted_where_that_is_asked_for():
    """Then the features still have their own head; and without features there is none."""
    made = method(predicted="pos")
    assert made.point_head.out_features == 6 * 3
    assert set(step(made, batch()).parts) == {"chamfer", "energy"}
    bare = method(channels=3)
    assert bare.value_head is None
    assert set(step(bare, batch(3)).parts) == {"chamfer"}


def test_clouds_of_one_token_have_nothing_to_hide():
    made = method(radius=9.0)
    terms = step(made, batch())
    assert terms.total == 0
    terms.total.backward()  # and nothing breaks


def test_nothing_is_dropped_in_evaluation():
    made = method(drop_path=0.5, dropout=0.5).eval()
    assert total(made, batch()) == total(made, batch())
    quiet = method().eval()
    quiet.load_state_dict(made.state_dict())
    assert total(quiet, batch()) == total(made, batch())
    assert total(made.train(), batch()) != total(quiet.train(), batch())


def test_the_mean_over_ranks_is_that_over_all_tokens(monkeypatch):
    """Two ranks with 3 and 5 values: the mean of what they get is the mean of the eight."""
    parts = [torch.tensor([1.0, 2, 3]), torch.tensor([4.0, 5, 6, 7, 8])]
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "total", lambda local: torch.tensor(8.0))
    assert torch.stack([mean_of_rows(part) for part in parts]).mean() == 4.5


def test_the_encoder_reloads_alone():
    made = method().eval()
    encoder = build.encoder(**made.student.config, seed=5)
    encoder.load_state_dict(made.student.state_dict())
    given = batch()
    view = made.views()["view"](given, Draws(0, 0, given.ids), made.spec)
    assert torch.equal(encoder.eval()(view).pooled, made.student(view).pooled)


def test_pictures():
    made, given = method().eval(), batch()
    draws = Draws(0, 0, given.ids)
    views = {name: view(given, draws.within(name), made.spec) for name, view in made.views().items()}
    (drawn,) = made.pictures(views, draws).values()
    assert drawn.shape == (3, 4 * 97, len(SIZES) * 97)
    assert (drawn.min(), drawn.max()) == (0, 1)


# Options --------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused():
    with pytest.raises(TacitError, match="leaves nothing to predict"):
        method(channels=3, chamfer=0.0)
    with pytest.raises(TacitError, match="point-vit-micro"):
        PolarMAE.check(PolarMAE.Options(), build.encoder("resnet-mini", 3, 8), spec(3), 60, 8)
    with pytest.raises(TacitError, match="7 channels were given"):
        method().student(torch.zeros(1, 7, 10))


def filled(cloud: np.ndarray) -> tuple[float, float]:
    """What a survey says of the picture of one cloud: the share of its cells, and of its patches, with a point."""
    shown = picture(cloud)[..., 0] > 0
    patches = shown.reshape(8, 8, 16, 8).any(axis=(1, 3))
    return float(shown.mean()), float(patches.mean())


def curve(n: int) -> np.ndarray:
    return np.cumsum(np.random.default_rng(1).normal(size=(n, 3)).cumsum(0), axis=0)


def surface(n: int) -> np.ndarray:
    points = np.random.default_rng(1).normal(size=(n, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize("cloud", [curve(1100), surface(1100), np.random.default_rng(1).uniform(size=(1100, 3))])
def test_auto_finds_a_radius_for_curves_surfaces_and_filled_boxes(cloud):
    placed = (cloud - cloud.mean(0)) / (3 * np.sqrt(cloud.var(0).mean()))
    tokens = len(volumetric([placed], radius_of(*filled(cloud), 64), neighbours=1100)[0].centre)
    assert 24 <= tokens <= 170


def test_auto_follows_the_data():
    def auto(**known: Any) -> dict[str, Any]:
        usual: dict[str, Any] = {
            "spec": spec(), "samples": 500, "duplicates": 0.0, "sparse": 0.97, "flat": 0.7, "mirrored": None, "batch": 32,
            "steps": 2000, "size": 60, "extent": (60,), "encoder": "point-vit-micro", "width": 96, "device": "cpu",
        }  # fmt: skip
        return {name: chosen.value for name, chosen in PolarMAE.auto(Facts(**usual | known)).items()}

    small, gpu = auto(), auto(device="cuda")
    assert (small["norm"], small["relative_bias"], small["neighbours"]) == ("token", "distance", 60)
    assert gpu["pointnet"] > small["pointnet"]
    assert auto(sparse=0.8, flat=0.1)["radius"] > small["radius"]
    PolarMAE.Options(**{name: value for name, value in small.items() if not name.startswith("train.")})
