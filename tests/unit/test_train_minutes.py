"""How many steps `auto` plans for a run of minutes: what their own options take, beside what the verdict takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import tacit
from tacit.data import store as stores
from tacit.data.cache import cache_folder
from tacit.data.open import measure, open_data
from tacit.data.spec import Spec
from tacit.data.window import Box
from tacit.methods.registry import method
from tacit.train import trial
from tacit.train.config import Training
from tacit.train.recipe import Recipe, resolve
from tacit.train.situation import Budget, Reading, Situation
from tacit.train.watch import LOOKS, Watch

FREE = Reading()


def planned(
    name: str, seconds: Callable[[Any], float], looks: float = 0.0, read: Reading = FREE, device: str = "cpu", **given: Any
) -> Recipe:
    """Two minutes, in which a step takes `seconds(options)` and the verdict `looks` seconds of the run."""
    seen: Any = SimpleNamespace(samples=5000, duplicates=0.0, sparse=0.0, flat=0.0, captions=())
    situation = Situation(
        method(name), Spec("image", 3, (32, 32)), seen, None, Budget(2.0), device,
        measure=lambda o, t: seconds(o), look=lambda o, t: looks, read=lambda o, t: read,
    )  # fmt: skip
    return resolve("auto", situation, {"precision": "float32", "batch": 64, **given})


@pytest.mark.parametrize(("looks", "steps"), [(0.0, 1140), (20.0, 950), (1e6, 570)])
def test_the_time_that_the_verdict_takes_is_left_to_it_up_to_a_half(looks: float, steps: int):
    assert planned("simclr", lambda o: 0.1, looks).training.steps == steps


@pytest.mark.parametrize(
    ("read", "device", "given", "steps", "store"),
    [
        (Reading(14.0, 0.001), "cpu", {}, 1000, "auto"),  # of 114 s, 14 are for the store
        (Reading(100.0, 0.001), "cpu", {}, 695, "never"),  # a store would leave time for 140
        (Reading(math.inf, 0.001), "cpu", {}, 695, "auto"),  # there is no room for one
        (Reading(100.0, 0.001), "cpu", {"store": "always"}, 140, "always"),
        (Reading(math.inf, 0.001), "cpu", {"store": "never"}, 695, "never"),
        (Reading(100.0, 0.001), "cuda", {}, 1140, "never"),  # decoded beside the step
        (Reading(100.0, 0.002), "cuda", {}, 890, "never"),  # which then waits
    ],
)
def test_decoding_is_part_of_the_time_and_done_in_the_way_that_leaves_more_of_it(
    read: Reading, device: str, given: dict[str, Any], steps: int, store: str
):
    training = planned("simclr", lambda o: 0.1, read=read, device=device, **given).training
    assert (training.steps, training.store) == (steps, store)


def test_every_step_is_tried_on_samples_as_they_will_be_decoded():
    seen: Any = SimpleNamespace(samples=5000, duplicates=0.0, sparse=0.0, flat=0.0, captions=())
    sides = []

    def noted(options: Any, training: Training) -> float:
        sides.append(training.store_side)
        return 0.1

    photographs = Spec("image", 3, (3000, 4000))
    situation = Situation(method("simclr"), photographs, seen, None, Budget(2.0), "cpu", measure=noted, weigh=noted, look=noted)
    recipe = resolve("auto", situation, {})
    assert set(sides) == {recipe.training.store_side}
    assert 0 < recipe.training.store_side < 100


def test_made_up_samples_are_no_more_than_views_want():
    views: Any = dict.fromkeys("ab", SimpleNamespace(window=Box((8, 8, 8))))
    made = trial.made_up(views, Spec("volume", 1, (512, 512, 512)), (512, 512, 512), 2, None)
    assert made.data.shape == made.parts["a"].data.shape == (2, 1, 8, 8, 8)
    assert made.data.dtype == torch.uint8


def test_reading_is_measured_and_free_where_samples_lie_decoded(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (96, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", train_images=images)
    data = open_data(str(tmp_path / "some.npz"))
    decode, decoded = data.kind.decode, []
    monkeypatch.setattr(data.kind, "decode", lambda *of, **how: decoded.append(of) or decode(*of, **how))
    monkeypatch.setattr(trial.time, "perf_counter", lambda: 0.01 * len(decoded))  # a clock that decoding alone moves on
    tried = trial.Trial(method("simclr"), data, measure(data), torch.device("cpu"), {})
    options = method("simclr").Options()

    def reading(**given: Any) -> Reading:
        return tried.reading(options, Training(size=16, encoder="resnet-mini", batch=32, steps=10, warmup=1, **given))

    before = len(decoded)
    never, found = reading(store="never"), reading()
    assert never.once == math.inf
    assert never.each == found.each == pytest.approx(0.01)
    assert found.once == pytest.approx(96 * 0.01 * trial.WRITING)
    assert len(decoded) - before == 2 * 96  # once for either: what is the same is not measured again
    stores.prepare(data, None, cache_folder() / "stores", None)
    assert reading() == Reading()
    assert reading(store="never").each == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("without", "crop", "steps", "crops"),
    [
        (0.10, 0.10, 1140, 0),  # with the two crops of 2,000 steps only 380
        (0.05, 0.00, 2280, 2),
        (0.0735, 0.003, 1551, 0),  # of fewer than 1,500 steps has none; more with crops last too long
        (0.07, 0.03, 1628, 0),  # likewise: with the crops of so many steps they would be 876
        (0.015, 0.003, 5428, 2),  # the four crops of 5,000 steps would leave 4,222
    ],
)
def test_steps_fill_the_time_with_their_own_options_or_else_with_the_cheaper_ones(
    without: float, crop: float, steps: int, crops: int
):
    recipe = planned("dino", lambda o: without + crop * o.local_crops)
    assert (recipe.training.steps, recipe.options.model_dump()["local_crops"]) == (steps, crops)


def test_a_run_looks_as_often_as_is_planned(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (96, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", train_images=images)
    looked, look = [], Watch.look
    monkeypatch.setattr(Watch, "look", lambda *of: looked.append(1) or look(*of))
    tacit.pretrain("simclr", tmp_path / "some.npz", out=tmp_path / "run", steps=60, options={"batch": 32, "stop_on": "none"})
    assert len(looked) == LOOKS


def test_a_look_is_measured_on_a_few_samples_and_counted_for_all(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (96, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", train_images=images)
    data, looked = open_data(str(tmp_path / "some.npz")), []

    def timed(call: Callable[[], Any], device: torch.device, **how: Any) -> float:
        looked.append(len(call().scores["crops"]))
        return 0.5

    monkeypatch.setattr(trial, "seconds_per_call", timed)
    tried = trial.Trial(method("simclr"), data, measure(data), torch.device("cpu"), {})
    options, small = method("simclr").Options(), {"size": 16, "encoder": "resnet-mini", "batch": 32, "steps": 10, "warmup": 1}
    assert tried.looks(options, Training(**small, held_back=64)) == 10 * 0.5 * 2
    assert looked == [32]
    assert tried.looks(options, Training(**small, held_back=0)) == 0.0
