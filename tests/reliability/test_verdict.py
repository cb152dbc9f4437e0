"""A verdict depends on nothing but the run: not on chance, not on how many processes it has; and it costs little."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from on_ranks import on_ranks
from torch.utils.flop_counter import FlopCounterMode

import tacit
from tacit.data.spec import Batch, Spec
from tacit.methods.method import Progress
from tacit.methods.registry import method
from tacit.train import loop, ranks
from tacit.train.config import Training
from tacit.train.session import build_method
from tacit.train.step import Step
from tacit.train.watch import CHECKS, Watch
from tacit.views.sights import image as shown

SAMPLE = "sample:fashion_mnist_sprite"
CPU = torch.device("cpu")


def run(out: str, encoder: str) -> dict[str, Any]:
    options = {"precision": "float32", "batch": 32, "size": 16, "encoder": encoder, "held_back": 130}
    return tacit.pretrain("simclr", SAMPLE, out=out, steps=8, options=options, device="cpu").verdict


@pytest.mark.parametrize("encoder", ["resnet-mini", "vit-micro/4"])
def test_the_same_run_has_the_same_verdict_and_so_has_one_on_two_ranks(tmp_path: Path, encoder: str) -> None:
    one, again = run(str(tmp_path / "one"), encoder), run(str(tmp_path / "again"), encoder)
    assert one == again
    two, seen_by_second = on_ranks(2, run, str(tmp_path / "two"), encoder)
    assert two == seen_by_second
    assert two["verdict"] == one["verdict"]
    # Another number of threads adds up in another order: the same but for the last digits.
    assert two["baselines"]["untrained"] == pytest.approx(one["baselines"]["untrained"], rel=1e-9)
    assert two["baselines"]["input"] == pytest.approx(one["baselines"]["input"], rel=1e-9)
    assert two["figures"]["effective_rank"] == pytest.approx(one["figures"]["effective_rank"], rel=0.05)


def test_a_collapse_ends_the_run_unless_it_is_told_not_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look after a step finds one; what was trained up to there is kept."""
    plain = loop.judge
    monkeypatch.setattr(loop, "judge", lambda *known: dataclasses.replace(plain(*known), verdict="collapsed", advice=["stop"]))
    options = {"precision": "float32", "batch": 32, "size": 16, "encoder": "vit-micro/8", "held_back": 16}
    with pytest.raises(tacit.Stopped, match=r"collapsed after 1 steps: .*; try: stop"):
        tacit.pretrain("simclr", SAMPLE, out=tmp_path / "one", steps=20, options=options, device="cpu")
    stopped = tacit.load(tmp_path / "one", device="cpu")
    assert (stopped.verdict["verdict"], stopped.verdict["step"]) == ("collapsed", 1)
    went_on = tacit.pretrain(
        "simclr", SAMPLE, out=tmp_path / "two", steps=4, options=options | {"stop_on": "none"}, device="cpu"
    )
    assert (went_on.verdict["verdict"], went_on.verdict["step"]) == ("collapsed", 4)


NORMAL = {"simclr": 153_000, "moco-v3": 107_000, "dino": 86_000, "mae": 489_000}
"""Samples of 64 pixels that 20 minutes see on two slow cores: 13.3 times what was seen in 90 seconds."""


@pytest.mark.parametrize("name", NORMAL)
def test_all_looks_of_a_normal_run_cost_less_than_three_hundredths_of_its_steps(name: str) -> None:
    """Counted in multiplications, which no other process on the machine changes."""
    spec, kind, size = Spec("image", 3, (96, 96)), method(name), 64
    training = Training(encoder="vit-mini/8" if kind.tokens else "resnet-mini", size=size, batch=32)
    known = {"decoder_width": 64, "decoder_depth": 2, "decoder_heads": 4, "head_width": 512, "local_crops": 2, "local_size": 32}
    options = {key: value for key, value in known.items() if key in kind.Options.model_fields}
    step = Step(build_method(kind, kind.Options(**options), training, spec), training, spec, ranks.alone(CPU))
    sizes = torch.tensor([[96, 96]], dtype=torch.int32).expand(32, -1)
    batch = Batch(torch.arange(32), torch.randint(0, 256, (32, 3, 96, 96)).to(torch.uint8), sizes)
    watch = Watch(batch, {"crops": shown.crops([size, size]), "light": shown.light([size, size])}, spec, seed=0)

    with FlopCounterMode(display=False) as taken:
        step(batch, Progress(0, 1000, 16))
    seen = step.method.encoder, step.method.projector, CPU
    with FlopCounterMode(display=False) as first:
        watch.look_untrained(*seen)
    with FlopCounterMode(display=False) as each:
        watch.look(*seen)
    held = 64 / 32
    looks = held * (first.get_total_flops() + (len(CHECKS) - 1) * each.get_total_flops())
    assert 0 < looks < 0.03 * NORMAL[name] / 32 * taken.get_total_flops()
