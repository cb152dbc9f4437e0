"""Every host takes the same steps on one, two and four ranks, whether weights are copied (DDP) or cut into parts (FSDP2).

In float64, so that what differs is wrong and not rounded: losses, every weight, every buffer, every moment of the optimiser.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from on_ranks import on_ranks, world

from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.data.loader import Loader
from tacit.data.open import measure, open_data
from tacit.data.spec import Batch
from tacit.methods.method import Progress
from tacit.methods.registry import METHODS, method
from tacit.nn.norms import BatchNorm
from tacit.train.config import Training
from tacit.train.session import build_method
from tacit.train.step import Step, passes

SAMPLES, BATCH, STEPS = 77, 32, 3  # two steps an epoch, and thirteen samples that make no batch

DINO = {"prototypes": 23, "head_width": 20, "bottleneck": 11, "local_crops": 1, "local_size": 8}
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "simclr-resnet": (
        "simclr", "resnet-mini", {"head_width": 24},
        {"optimiser": "lars-simclr", "lr": 0.3, "weight_decay": 1e-4, "size": 8},
    ),
    "simclr-vit": ("simclr", "vit-micro/4", {"head_width": 24}, {"optimiser": "adamw", "clip": 0.5}),
    "moco-v3-resnet": (
        "moco-v3", "resnet-mini", {"head_width": 24, "projector_layers": 2, "predictor_norm": False},
        {"optimiser": "sgd", "lr": 0.03, "weight_decay": 1e-4, "size": 8},
    ),
    "moco-v3-vit": ("moco-v3", "vit-micro/4", {"head_width": 24}, {"optimiser": "lars", "lr": 0.3, "weight_decay": 0.1}),
    "dino-vit": (
        "dino", "vit-micro/4", DINO,
        {"optimiser": "adamw", "clip": 0.1, "clip_per_tensor": True, "layer_decay": 0.8, "weight_decay": 0.04,
         "recompute": True},
    ),
    "dino-resnet": (
        "dino", "resnet-mini", {**DINO, "local_size": 4, "head_norm": True, "freeze_last": 0.0},
        {"optimiser": "sgd", "lr": 0.03, "weight_decay": 1e-4, "size": 8},
    ),
    "mae-vit": (
        "mae", "vit-micro/4", {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "mask_ratio": 0.6},
        {"optimiser": "adamw", "clip": 0.5, "weight_decay": 0.05, "weight_decay_end": 0.2},
    ),
}  # fmt: skip
"""Odd widths (23, 20, 11) are cut into parts of unequal length, and of none at all on four ranks."""

STRATEGIES = ("ddp", "fsdp")
ON = {2: ["simclr-resnet", "moco-v3-vit", "dino-vit", "mae-vit"], 4: list(CASES)}
ROUNDED = ["simclr-resnet", "mae-vit"]
HANDED_OVER = ["simclr-resnet", "dino-vit"]
IN_PASSES = ["mae-vit", "simclr-vit", "moco-v3-vit"]
ADAM = {"optimiser": "adamw", "lr": 1e-3}
"""Whose two moments lie in memory as the weights do, in another order on one rank than in parts."""

Taken = dict[str, Any]


class Exact(Step):
    """A step on float64 views."""

    def see(self, batch: Batch, epoch: int) -> tuple[dict[str, torch.Tensor], Draws]:
        views, draws = super().see(batch, epoch)
        return {name: view.double() for name, view in views.items()}, draws


def made(case: str, strategy: str, data: str, exact: bool = True, statistics: bool = True, **more: Any) -> tuple[Step, Loader]:
    """A step of a case and what to feed it, for this rank; without batch-norms where no `statistics` are wanted."""
    name, encoder, options, training = CASES[case]
    shared = {"size": 16, "batch": BATCH, "steps": STEPS, "encoder": encoder, "strategy": strategy, "schedule": "cosine"}
    collection = open_data(data)
    spec, fabric, values = measure(collection), world(strategy), Training(**{**shared, **training, **more})
    system = build_method(method(name), method(name).Options(normalise="data", **options), values, spec)
    for module in [] if statistics else list(system.modules()):
        for child in [child for child, inner in module.named_children() if isinstance(inner, BatchNorm)]:
            setattr(module, child, torch.nn.Identity())
    step = (Exact if exact else Step)(system.double() if exact else system, values, spec, fabric)
    return step, Loader(collection, None, None, BATCH, 0, fabric.global_rank, fabric.world_size)


def taken(step: Step, loader: Loader, first: int = 0, stop: int = STEPS) -> Taken:
    """What some steps came to: the mean of every loss over ranks, and on the first rank all that a checkpoint holds."""
    losses = []
    for number in range(first, stop):
        terms = step(loader.batch(number), Progress(number, STEPS, loader.steps_per_epoch))
        losses.append(distributed.mean(terms.total))
    state = step.state_dict()
    return {"losses": losses, **(state if step.fabric.global_rank == 0 else {})}


def every(data: str, cases: list[str], begun: dict[str, Taken]) -> dict[str, Taken]:
    """What the ranks come to: all steps of every case, and in passes; the first alone; the last after others took the first."""
    found = {}
    for how in STRATEGIES:
        found |= {f"{case} {how}": taken(*made(case, how, data)) for case in cases}
        found |= {f"{case} {how} rounded": taken(*made(case, how, data, exact=False, lr=1e-3)) for case in ROUNDED}
        found |= {f"{case} {how} passes": taken(*made(case, how, data, statistics=False, accumulate=2)) for case in IN_PASSES}
        found |= {f"{case} {how} begun": taken(*made(case, how, data, **ADAM), stop=STEPS - 1) for case in HANDED_OVER}
        for case, state in begun.items():
            step, loader = made(case, how, data, **ADAM)
            step.load_state_dict(state)
            found[f"{case} {how} ended"] = taken(step, loader, STEPS - 1)
    return found


def pictures(folder: Path) -> str:
    """Noise under ramps of all colours, in a file of this folder."""
    ramp = np.linspace(0, 120, 20)[None, :, None, None] * np.random.default_rng(1).uniform(0, 1, (SAMPLES, 1, 1, 3))
    noise = np.random.default_rng(0).integers(0, 130, (SAMPLES, 20, 20, 3))
    np.savez(folder / "images.npz", train_images=(noise + ramp).astype(np.uint8))
    return str(folder / "images.npz")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def begun(data: str) -> dict[str, Taken]:
    """All steps but the last, on this one process."""
    return {case: taken(*made(case, "ddp", data, **ADAM), stop=STEPS - 1) for case in HANDED_OVER}


@pytest.fixture(scope="module")
def together(request: pytest.FixtureRequest, data: str, begun: dict[str, Taken]) -> dict[str, Taken]:
    """What the first of two or four ranks came to."""
    return on_ranks(request.param, every, data, ON[request.param], begun)[0]


def on_two_and_four(cases: dict[int, list[str]]) -> pytest.MarkDecorator:
    few = [(2, case) for case in cases[2]]
    return pytest.mark.parametrize(
        ("together", "case"),
        few + [pytest.param(4, case, marks=pytest.mark.slow) for case in cases[4]],
        indirect=["together"],
        scope="module",
    )


def assert_same(one: Taken, other: Taken, rtol: float, atol: float) -> None:
    for name, (ours, theirs) in pairs(one, other):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def pairs(one: Any, other: Any, name: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The leaves of two trees that are made alike."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), name
        for key in one:
            yield from pairs(one[key], other[key], f"{name}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), name
        for number, (ours, theirs) in enumerate(zip(one, other, strict=True)):
            yield from pairs(ours, theirs, f"{name}/{number}")
    elif isinstance(one, torch.Tensor):
        yield name, (one, other)
    else:
        assert one == other, name


def test_every_method_of_images_is_here():
    """Those of other kinds stand in the contract."""
    for cases in ON.values():
        assert {CASES[case][0] for case in cases} == {name for name in METHODS if method(name).kinds == ("image",)}


@on_two_and_four(ON)
def test_many_ranks_take_the_steps_of_one(case, data, together):
    alone = taken(*made(case, "ddp", data))
    for how in STRATEGIES:
        assert_same(together[f"{case} {how}"], alone, rtol=1e-8, atol=1e-9)


@on_two_and_four({2: ROUNDED, 4: ROUNDED})
def test_in_float32_they_differ_by_rounding(case, data, together):
    """Which steps magnify a little, and a value at the kink of a ReLU at once."""
    alone = torch.stack(taken(*made(case, "ddp", data, exact=False, lr=1e-3))["losses"])
    for how in STRATEGIES:
        there = torch.stack(together[f"{case} {how} rounded"]["losses"])
        torch.testing.assert_close(there[0], alone[0], rtol=1e-6, atol=0)
        torch.testing.assert_close(there, alone, rtol=1e-3 if "resnet" in case else 1e-5, atol=0)


@on_two_and_four({2: HANDED_OVER, 4: HANDED_OVER})
def test_a_run_is_handed_over_between_one_and_many_ranks_and_between_strategies(case, data, begun, together):
    """What the first steps left is the same state, and the last step from there the same step, both ways."""
    whole = taken(*made(case, "ddp", data, **ADAM))
    for how in STRATEGIES:
        assert_same(together[f"{case} {how} begun"], begun[case], rtol=1e-8, atol=1e-9)
        step, loader = made(case, "ddp", data, **ADAM)
        step.load_state_dict(together[f"{case} {how} begun"])
        ended = taken(step, loader, STEPS - 1)
        for last in (ended, together[f"{case} {how} ended"]):
            assert_same({**last, "losses": []}, {**whole, "losses": []}, rtol=1e-8, atol=1e-9)
            torch.testing.assert_close(last["losses"], whole["losses"][-1:], rtol=1e-9, atol=0)


@on_two_and_four({2: IN_PASSES, 4: IN_PASSES})
def test_passes_on_many_ranks_are_those_of_one(case, data, together):
    """Ranks meet once a step, after the last pass of each."""
    alone = taken(*made(case, "ddp", data, statistics=False))
    for how in STRATEGIES:
        assert_same(together[f"{case} {how} passes"], alone, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("case", ["mae-vit", "dino-vit", "simclr-vit", "moco-v3-vit"])
def test_passes_stand_in_for_ranks_but_for_batch_statistics(case, data):
    """Negatives are those of all passes."""
    whole, parts = (taken(*made(case, "ddp", data, statistics=False, accumulate=count)) for count in (1, 4))
    assert_same(parts, whole, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("case", "among"),
    [("simclr-resnet", "batch statistics"), ("simclr-vit", "batch statistics"), ("mae-vit", "")],
)
def test_a_run_says_where_passes_do_not(case, among, data):
    step, _ = made(case, "ddp", data, accumulate=1)
    assert passes(step.method, step.training) == ""
    said = passes(step.method, Training(batch=BATCH, accumulate=2))
    assert said == (
        among and f"a step is made of 2 passes: {among} are those of the 16 samples of a pass, not of the 32 of a step"
    )
