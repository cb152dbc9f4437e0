"""Mod-X as a whole against numbers from its published code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from test_methods_golden_clip import SPEC, AsGiven
from torch import Tensor, nn

from golden import assert_near, golden
from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.data.spec import Batch
from tacit.methods.clip import CLIP
from tacit.methods.method import Progress, Terms
from tacit.methods.mod_x import ModX
from tacit.nn.encoder import Encoded
from tacit.train.config import Training
from tacit.train.optimise import set_rates
from tacit.train.step import Step

MOD_X = golden("mod-x")
FIRST = Progress(0, 1, 1)
SMALL = {"vocabulary": 514, "context": 4, "text": "text-micro", "out": 4}


class Towers(AsGiven):
    """A linear tower, or none: features in, features out."""

    def __init__(self, weight: Tensor | None = None) -> None:
        super().__init__()
        self.weight = None if weight is None else nn.Parameter(weight)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Encoded:
        made = x if self.weight is None else x @ self.weight.T
        return Encoded(made, made)

    def level(self, name: str) -> int:
        return 0


class Read(nn.Module):
    """The same for captions."""

    def __init__(self, weight: Tensor | None = None) -> None:
        super().__init__()
        self.tower = Towers(weight)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tower(tokens).pooled


class Bare(CLIP):
    """A model that consists of these towers alone."""

    def __init__(self, *given: Any, image: Tensor | None = None, text: Tensor | None = None) -> None:
        super().__init__(*given)
        self.double()
        self.student, self.image_head, self.text = Towers(image), nn.Identity(), Read(text)


def model(image: Tensor | None = None, text: Tensor | None = None) -> CLIP:
    return Bare(CLIP.Options(**SMALL), AsGiven(), SPEC, 16, image=image, text=text)


def phase(t: float, old: tuple[Tensor, Tensor] | None, new: tuple[Tensor, Tensor] | None = None, **options: Any) -> ModX:
    """The method between towers `(image, text)`; without any, the features of the current model are given as they are."""
    made = ModX(ModX.Options(**SMALL | options), AsGiven(), SPEC, 16, CLIP(CLIP.Options(**SMALL), AsGiven(), SPEC, 16)).double()
    made.student, made.image_head, made.text = Towers(new and new[0]), nn.Identity(), Read(new and new[1])
    made.previous = model(*(old or (None, None))).requires_grad_(False).eval()
    made.log_scale.data.fill_(t)
    return made


def draws(count: int) -> Draws:
    return Draws(0, 0, torch.arange(count))


def forward(made: ModX, image: Tensor, text: Tensor) -> Terms:
    return made({"image": image, "text": text}, draws(len(image)), FIRST)


def halves(made: ModX) -> ModX:
    """Features of both models side by side: the left ones are the current model's, the right ones the previous one's."""
    for of, part in ((made, 0), (made.previous, 1)):
        of.student.register_forward_pre_hook(lambda _, args, part=part: args[0].chunk(2, dim=1)[part])
        of.text.register_forward_pre_hook(lambda _, args, part=part: args[0].chunk(2, dim=1)[part])
    return made


def test_loss_and_its_gradients():
    case = MOD_X["loss"]
    x = {name: value.detach().clone().requires_grad_() for name, value in case.inputs.items()}
    made = halves(phase(case.hyper["log_scale"], None, alpha=case.hyper["alpha"]))
    terms = forward(made, torch.cat([x["image"], x["image_old"]], 1), torch.cat([x["text"], x["text_old"]], 1))
    assert_near(terms.total, case.out["total"])
    assert_near(terms.parts["clip"], case.out["contrastive"])
    assert_near(terms.parts["align"], case.hyper["alpha"] * case.out["align"])
    for name, kept in (("kept_pictures", "kept_image"), ("kept_captions", "kept_text")):
        assert_near(terms.watch[name], case.out[kept].float().mean(), rtol=1e-6)
    assert_near(terms.watch["align_share"], case.hyper["alpha"] * case.out["align"] / case.out["contrastive"])
    terms.total.backward()
    assert_near(x["image"].grad, case.out["grad_image"])
    assert_near(x["text"].grad, case.out["grad_text"])
    assert_near(made.log_scale.grad[0], case.out["grad_log_scale"])
    assert not x["image_old"].grad.any()
    assert not x["text_old"].grad.any()


def test_a_step():
    """As the loop takes it: everything decays, t too, and t is put back."""
    case = MOD_X["step"]
    h, w, x = case.hyper, case.weights, case.inputs
    made = phase(
        h["log_scale"], (w["w_image_old"], w["w_text_old"]), (w["w_image"], w["w_text"]), alpha=h["alpha"]
    )  # fmt: skip
    training = Training(size=16, batch=4, optimiser="adamw", lr=h["lr"], weight_decay=h["weight_decay"], schedule="constant")
    made.views = lambda: {  # type: ignore[method-assign]
        "image": lambda batch, *_: batch.extra["image"], "text": lambda batch, *_: batch.extra["text"]
    }  # fmt: skip
    step = Step(made, training, SPEC, Fabric(accelerator="cpu", devices=1))
    for group in step.optimiser.param_groups:
        group["eps"] = h["eps"]
    set_rates(step.optimiser, h["lr"])
    count = len(x["image_input"])
    ids, sizes = torch.arange(count), torch.ones(count, 2, dtype=torch.int32)
    extra = {"image": x["image_input"], "text": x["text_input"]}
    terms = step(Batch(ids, torch.zeros(count, 1, 1, 1, dtype=torch.uint8), sizes, extra), FIRST)
    assert_near(terms.total, case.out["total"])
    assert_near(made.student.weight.grad, case.out["grad_w_image"])
    assert_near(made.text.tower.weight.grad, case.out["grad_w_text"])
    assert_near(made.student.weight, case.out["w_image_after"])
    assert_near(made.text.tower.weight, case.out["w_text_after"])
    assert_near(made.log_scale[0], case.out["log_scale_after"])


@pytest.mark.parametrize("ranks", [2])
def test_ranks_have_the_published_loss_and_gradient_together(ranks, monkeypatch):
    case = MOD_X["loss"]
    x = {name: value.detach().clone().requires_grad_() for name, value in case.inputs.items()}
    rows = len(x["image"]) // ranks
    if rows * ranks != len(x["image"]):
        ranks, rows = len(x["image"]), 1
    made = halves(phase(case.hyper["log_scale"], None, alpha=case.hyper["alpha"]))
    both = [torch.cat([x[side], x[f"{side}_old"]], 1) for side in ("image", "text")]
    views = {"image": both[0], "text": both[1]}
    models = (made, made.previous)
    whole = [[*model.compared(model.embed(views, draws(len(both[0]))))[:2]] for model in models]
    found = []
    for rank in range(ranks):
        # Asked for in this order: pictures and captions of the current model, then of the previous one.
        gathered = iter([*whole[0], *whole[1]])
        monkeypatch.setattr(distributed, "gather", lambda _, gathered=gathered: next(gathered))
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        mine = slice(rank * rows, (rank + 1) * rows)
        found.append(forward(made, both[0][mine], both[1][mine]).total)
    assert_near(torch.stack(found).mean(), case.out["total"])
    torch.stack(found).mean().backward()
    assert_near(x["image"].grad, case.out["grad_image"])
    assert_near(x["text"].grad, case.out["grad_text"])


def test_the_scale_is_put_back():
    case = MOD_X["clamp"]
    made = phase(0.0, None)
    for before, after in zip(case.inputs["log_scale"], case.out["clamped"], strict=True):
        made.log_scale.data.fill_(float(before))
        made.after_step(FIRST)
        assert_near(made.log_scale[0], after)
