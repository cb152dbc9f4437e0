"""Recipes: every column of a paper resolves and is, at the published size, what was published; `auto` fits what is given."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.methods.method import Progress
from tacit.methods.registry import METHODS, method
from tacit.train.recipe import Recipe, resolve
from tacit.train.session import build_method
from tacit.train.situation import Budget, Situation

PHOTOGRAPHS = Spec("image", 3, (256, 256))
COLUMNS = [(name, column) for name in METHODS for column in ("", *method(name).paper_columns)]


def published(name: str, column: str = "", **given: Any) -> Recipe:
    seen: Any = SimpleNamespace(samples=1_300_000)  # all of a survey that a paper's recipe asks for
    situation = Situation(method(name), PHOTOGRAPHS, seen, None, Budget(), "cpu", measure=lambda options, training: math.nan)
    return resolve(f"paper:{column}" if column else "paper", situation, given)


@pytest.mark.parametrize(("name", "column"), COLUMNS)
def test_every_column_of_a_paper_is_a_recipe(name, column):
    recipe, card = published(name, column), method(name).paper_columns.get(column, {})
    values = recipe.training.model_dump() | recipe.options.model_dump()
    assert {key: values[key] for key in card if key in values} == {key: card[key] for key in card if key in values}
    whole = method(name).paper_training | card
    rate = whole["lr"] if "lr" in whole else whole["lr_per_256"] * recipe.training.batch / 256
    assert recipe.training.lr == pytest.approx(rate)
    changed = {key for key in card if key in method(name).Options.model_fields}
    assert {key for key in changed if recipe.origin[f"method.{key}"] != f"paper: as published for {column}"} == set()


def test_what_is_given_beats_a_column():
    recipe = published("simclr", "cifar", temperature=0.3, batch=256)
    assert recipe.options.model_dump(include={"temperature", "jitter"}) == {"temperature": 0.3, "jitter": 0.5}
    assert recipe.training.batch == 256
    assert recipe.training.lr == pytest.approx(1.0)
    assert recipe.origin["method.temperature"] == "given"


def test_an_unknown_column_is_refused_with_the_nearest():
    with pytest.raises(TacitError, match="paper:cifar"):
        published("simclr", "cifr")


PUBLISHED = {
    # Encoder and decoder of ViT-B/16, without the two fixed tables of positions.
    "mae": 111_907_840 - 197 * (768 + 512),
    # ResNet-50 without its classifier, and the second version's head: no biases, no shift at its end.
    "simclr": 23_508_032 + 2 * (2048 * 2048 + 2 * 2048) + 2048 * 128 + 128,
    # ViT-S/16 with fixed positions; projector 4096-4096-256; predictor 4096-256; the patch projection is frozen.
    "moco-v3": 21_665_664
    - 197 * 384
    - (16 * 16 * 3 + 1) * 384
    + (384 * 4096 + 2 * 4096 + 4096 * 4096 + 2 * 4096 + 4096 * 256)
    + (256 * 4096 + 2 * 4096 + 4096 * 256),
    # ViT-S/16, and a head of 2048, 2048, 256 to 65,536 prototypes of fixed length.
    "dino": 21_665_664 + 385 * 2048 + 2049 * 2048 + 2049 * 256 + 256 * 65_536,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_at_the_published_size_a_whole_batch_passes_and_the_weights_are_as_many(name):
    """On the meta device, which knows shapes and computes nothing."""
    recipe = published(name)
    t = recipe.training
    with torch.device("meta"):
        made = build_method(method(name), recipe.options, t, PHOTOGRAPHS)
        views: dict[str, Any] = dict(made.views())
        views = {view: torch.empty(t.batch, 3, shape.size, shape.size) for view, shape in views.items()}
        rows = torch.arange(t.batch)
    assert sum(p.numel() for p in made.parameters() if p.requires_grad) == PUBLISHED[name]
    terms = made(views, Draws(0, 0, rows), Progress(0, t.steps, t.steps))
    assert terms.total.shape == ()


def test_auto_takes_a_rate_that_suits_the_optimiser_that_was_asked_for():
    seen: Any = SimpleNamespace(samples=5000, duplicates=0.0, sparse=0.0, flat=0.0, captions=())
    small = Spec("image", 3, (32, 32))

    def rate(**given: Any) -> float:
        situation = Situation(method("simclr"), small, seen, None, Budget(steps=100), "cpu", measure=lambda o, t: 1.0)
        return resolve("auto", situation, {"precision": "float32", **given}).training.lr

    assert rate() == pytest.approx(4e-3)
    assert rate(optimiser="sgd") == pytest.approx(0.06)
    assert rate(optimiser="lars") == pytest.approx(0.3)
    assert rate(optimiser="sgd", lr=0.5) == 0.5


@pytest.mark.parametrize(
    ("name", "budget", "given", "batch", "steps"),
    [
        ("simclr", Budget(samples=20_000), {}, 64, 312),
        ("simclr", Budget(epochs=4), {}, 64, 340),
        ("simclr", Budget(samples=200_000), {}, 128, 1562),
        ("simclr", Budget(samples=20_000), {"batch": 256}, 256, 78),
        ("simclr", Budget(steps=100), {}, 256, 100),
        ("mae", Budget(samples=20_000), {}, 32, 625),
        ("mae", Budget(samples=160_000), {}, 32, 5000),
        ("mae", Budget(samples=320_000), {}, 64, 5000),
        ("mae", Budget(samples=1_280_000), {}, 128, 10_000),
        ("mae", Budget(samples=5_120_000), {}, 256, 20_000),
    ],
)
def test_batches_are_smaller_where_steps_would_be_few(name: str, budget: Budget, given: dict[str, Any], batch: int, steps: int):
    small = Spec("image", 3, (32, 32))
    seen: Any = SimpleNamespace(samples=6000, duplicates=0.0, sparse=0.0, flat=0.0, captions=())
    situation = Situation(method(name), small, seen, None, budget, "cpu", measure=lambda o, t: 1.0, training=given)
    fitted = resolve("auto", situation, given).training
    assert (fitted.batch, fitted.steps) == (batch, steps)


def test_short_runs_of_convolutions_train_on_small_views_and_take_features_of_larger_ones():
    seen: Any = SimpleNamespace(samples=5000, duplicates=0.0, sparse=0.0, flat=0.0, captions=())

    def sizes(name: str, minutes: float | None, device: str = "cpu", **given: Any) -> tuple[int, int]:
        situation = Situation(method(name), PHOTOGRAPHS, seen, None, Budget(minutes), device, measure=lambda o, t: 1.0)
        training = resolve("auto", situation, {"precision": "float32", **given}).training
        return training.size, training.shown_size

    assert [sizes("simclr", minutes) for minutes in (1.5, 10, None, 60)] == [(16, 24), (16, 24), (32, 48), (32, 48)]
    assert [sizes("simclr", minutes) for minutes in (61, 240, 241)] == [(64, 96), (64, 96), (96, 96)]
    assert sizes("simclr", 30, size=96) == (96, 96)
    assert sizes("mae", 1.5) == (64, 64)
    assert sizes("simclr", 1.5, "cuda") == (128, 128)
    assert sizes("simclr", 1.5, size=24) == (24, 24)
    assert sizes("simclr", 1.5, encoder="vit-micro/4") == (32, 32)
    assert sizes("simclr", 1.5, encoder="resnet18") == (16, 24)
    assert sizes("simclr", 1.5, feature_size=48) == (16, 48)


def test_single_pixels_are_hidden_only_in_the_smallest_pictures():
    seen: Any = SimpleNamespace(samples=500, duplicates=0.0, sparse=0.0, flat=0.0, captions=())

    def chosen(side: int) -> tuple[int, str, bool]:
        situation = Situation(
            method("mae"), Spec("image", 1, (side, side)), seen, None, Budget(2), "cpu", measure=lambda o, t: 1.0
        )
        found = resolve("auto", situation, {"precision": "float32"})
        return found.training.size, found.training.encoder, found.options.norm_pix

    assert [chosen(side) for side in (5, 8, 11, 12)] == [
        (5, "vit-mini/1", False), (8, "vit-mini/2", False), (10, "vit-mini/2", False), (12, "vit-mini/2", False),
    ]  # fmt: skip
    assert chosen(28) == (28, "vit-mini/4", True)


def test_short_runs_on_volumes_train_on_small_crops_unless_places_of_a_crop_are_set_apart():
    seen: Any = SimpleNamespace(samples=500, duplicates=0.0, sparse=0.0, flat=0.0, captions=())

    def sizes(name: str, minutes: float, side: int = 36, device: str = "cpu", **given: Any) -> tuple[int, int]:
        spec = Spec("volume", 1, (side, side, side))
        situation = Situation(method(name), spec, seen, None, Budget(minutes), device, measure=lambda o, t: 1.0)
        training = resolve("auto", situation, {"precision": "float32", **given}).training
        return training.size, training.shown_size

    assert [sizes("alice", 3, side) for side in (30, 36, 200)] == [(16, 16), (16, 32), (16, 32)]
    assert [sizes("alice", minutes) for minutes in (10, 11)] == [(16, 32), (32, 32)]
    assert sizes("alice", 3, size=32) == (32, 32)
    assert sizes("alice", 3, encoder="swin3d-mini") == (32, 32)
    assert sizes("alice", 3, 200, "cuda") == (64, 64)
    assert sizes("anatomy", 3) == (32, 32)


def test_brief_runs_on_films_hide_fewer_tubelets():
    seen: Any = SimpleNamespace(samples=500, duplicates=0.0, sparse=0.0, flat=0.0, captions=())

    def chosen(minutes: float, side: int, device: str = "cpu") -> tuple[str, float]:
        spec = Spec("video", 3, (16, side, side))
        situation = Situation(method("child-video"), spec, seen, None, Budget(minutes), device, measure=lambda o, t: 1.0)
        recipe = resolve("auto", situation, {"precision": "float32"})
        return recipe.training.encoder, recipe.options.model_dump()["mask_ratio"]

    assert [chosen(minutes, 32) for minutes in (3, 10)] == [("video-vit-micro/2x8", 0.75), ("video-vit-micro/2x4", 0.9)]
    assert [chosen(minutes, 64)[0] for minutes in (3, 10)] == ["video-vit-micro/2x8", "video-vit-micro/2x8"]
    assert chosen(3, 16) == ("video-vit-micro/2x4", 0.75)
    assert chosen(3, 112, "cuda")[0] == "video-vit-small/2x14"
