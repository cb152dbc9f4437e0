"""Trouble made on purpose: what can be wrong with a run, as options, as other data, or as a method that was tampered with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.core.draws import Draws
from tacit.methods.method import Method, Progress, Terms
from tacit.methods.registry import method
from tacit.objectives.distil import cross_view

Forward = Callable[[Method, dict[str, Tensor], Draws, Progress], Terms]


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong.

    Attributes:
        hosts: which methods can have it; with the options that make it.
        data: what becomes of the pictures `[N, H, W]` or `[N, H, W, C]`.
        forward: what becomes of the methods' forward pass.
    """

    hosts: dict[str, dict[str, Any]]
    data: Callable[[np.ndarray], np.ndarray] = lambda pictures: pictures
    forward: dict[str, Forward] = field(default_factory=dict)


ALL = ("simclr", "moco-v3", "dino", "mae")
PAIRED = ("simclr", "moco-v3")
VIEWED = ("simclr", "moco-v3", "dino")


def alike(hosts: tuple[str, ...], **options: Any) -> dict[str, dict[str, Any]]:
    return dict.fromkeys(hosts, options)


def few(pictures: np.ndarray) -> np.ndarray:
    """50 of them."""
    return pictures[np.random.default_rng(0).permutation(len(pictures))[:50]]


def copies(pictures: np.ndarray) -> np.ndarray:
    """20 of them, each thirty times."""
    return np.concatenate([pictures[np.random.default_rng(0).permutation(len(pictures))[:20]]] * 30)


def constant(pictures: np.ndarray) -> np.ndarray:
    """Each of one grey level everywhere."""
    levels = np.random.default_rng(0).integers(0, 256, len(pictures), dtype=np.uint8)
    return np.broadcast_to(levels.reshape(-1, *[1] * (pictures.ndim - 1)), pictures.shape).copy()


# Tampered forward passes ----------------------------------------------------------------------------------------------


def turned(name: str) -> Forward:
    """The loss with its sign turned."""
    plain: Any = method(name).forward

    def forward(self: Method, views: dict[str, Tensor], draws: Draws, progress: Progress) -> Terms:
        terms = plain(self, views, draws, progress)
        return Terms(-terms.total, {key: -value for key, value in terms.parts.items()}, terms.chance, terms.watch)

    return forward


def moco_without_stop(self: Any, views: dict[str, Tensor], draws: Draws, progress: Progress) -> Terms:
    """Keys come from the trained encoder, and gradients flow through them."""
    temperature, total = self.options.temperature, torch.zeros(())
    keys = {name: self.head(self.student(x).pooled) for name, x in views.items()}
    for one, other in (("view1", "view2"), ("view2", "view1")):
        logits = F.normalize(self.predictor(keys[one])) @ F.normalize(keys[other]).T / temperature
        total = total + 2 * temperature * F.cross_entropy(logits, torch.arange(len(logits)))
    return Terms(total, {"moco": total.detach()}, chance=4 * temperature * math.log(len(keys["view1"])))


def dino_without_stop(self: Any, views: dict[str, Tensor], draws: Draws, progress: Progress) -> Terms:
    """The student is its own teacher, and gradients flow through what it teaches."""
    o, large = self.options, torch.cat([views["global1"], views["global2"]])
    small = [view for name, view in views.items() if name.startswith("local")]
    student = self.says(large, small, draws)
    target = ((student[: len(large)] - self.center.of()) / o.teacher_temperature).softmax(dim=-1)
    loss = cross_view(student, target, o.student_temperature, 2 + len(small))
    if self.training:
        self.center.hear(student[: len(large)])
    return Terms(loss, {"cross_view": loss.detach()}, chance=math.log(o.prototypes))


@contextmanager
def tampered(name: str, trouble: Trouble) -> Iterator[None]:
    """Inside, a method has the trouble's forward pass."""
    kind, plain = method(name), method(name).forward
    kind.forward = trouble.forward.get(name, plain)  # pyright: ignore
    try:
        yield
    finally:
        kind.forward = plain


FAR_TOO_HIGH = alike(VIEWED, lr=10.0) | alike(("mae",), lr=0.1)
COLD, HOT = 0.001, 10.0

TROUBLES: dict[str, Trouble] = {
    "none": Trouble(alike(ALL)),
    "rate far too high": Trouble(FAR_TOO_HIGH),
    "temperature 0.001": Trouble(alike(PAIRED, temperature=COLD) | alike(("dino",), student_temperature=COLD)),
    "temperature 10": Trouble(alike(PAIRED, temperature=HOT) | alike(("dino",), student_temperature=HOT)),
    "no centring": Trouble(alike(("dino",), centre=False)),
    "no sharpening": Trouble(alike(("dino",), teacher_temperature=1.0, teacher_temperature_start=1.0)),
    "no centring, no sharpening": Trouble(
        alike(("dino",), centre=False, teacher_temperature=1.0, teacher_temperature_start=1.0)
    ),
    "no stop-gradient": Trouble(alike(("moco-v3", "dino")), forward={"moco-v3": moco_without_stop, "dino": dino_without_stop}),
    "no colour in views": Trouble(alike(VIEWED, jitter=0.0, grey=0.0)),
    "views that are the picture": Trouble(
        alike(PAIRED, jitter=0.0, grey=0.0, flip=0.0, area=1.0)
        | alike(("dino",), jitter=0.0, grey=0.0, flip=0.0, global_area=1.0, local_area=(1.0, 1.0))
    ),
    "batch 2": Trouble(alike(ALL, batch=2)),
    "50 samples": Trouble(alike(ALL, batch=32), data=few),  # 38 of them to train on
    "copies": Trouble(alike(ALL), data=copies),
    "constant pictures": Trouble(alike(ALL), data=constant),
    "sign turned": Trouble(alike(ALL), forward={name: turned(name) for name in ALL}),
    "weights frozen": Trouble(alike(ALL, lr=0.0)),
    "weight decay 10": Trouble(alike(ALL, weight_decay=10.0)),
}
