"""Steps as a run makes them, without the run: what several benchmarks time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tacit.data.collection import Collection
from tacit.data.loader import Loader
from tacit.data.open import open_as
from tacit.data.spec import Batch, Spec
from tacit.data.store import Store
from tacit.methods.method import Options, Progress
from tacit.methods.registry import method as method_class
from tacit.train import needs, ranks
from tacit.train.config import Training, validated
from tacit.train.plan import Request, planned, training_part
from tacit.train.session import build_method
from tacit.train.situation import Budget
from tacit.train.step import Step
from tacit.views.view import windows

STEPS = 2000
HALFWAY = Progress(STEPS // 2, STEPS, STEPS // 10)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Built:
    """All that the steps of a run are made of.

    Attributes:
        collection: the samples, captions with what makes tokens of them.
        options, training: every value, as it was asked for or as `auto` has it.
        needs: what the method stands on, as it is before its training.
    """

    method: str
    collection: Collection
    spec: Spec
    options: Options
    training: Training
    needs: dict[str, Any]
    device: torch.device

    def step(self, **options: Any) -> Step:
        """From the first weights of its own; `options` of the method may be otherwise."""
        kind, own = method_class(self.method), self.options.model_copy(update=options)
        made = build_method(kind, own, self.training, self.spec, self.needs)
        return Step(made, self.training, self.spec, ranks.alone(self.device))

    def loader(self, step: Step, store: Store | None = None) -> Loader:
        """What gives batches of the real samples."""
        return Loader(
            self.collection, store, None, self.training.batch, self.training.seed,
            windows=windows(step.views), partners=step.method.partners,
        )  # fmt: skip

    def batch(self, step: Step) -> Batch:
        """A full batch of them, on the device."""
        found = self.loader(step).batch(0).to(self.device)
        assert len(found) == self.training.batch
        return found


def built(method: str, data: str | Path, device: torch.device = CPU, recipe: str = "auto", **given: Any) -> Built:
    """What a run of `STEPS` steps on this data would be made of; `given` as after `--set`."""
    request = Request(method, data, recipe=recipe, budget=Budget(steps=STEPS), given=given, device=str(device))
    plan, kind = planned(request), method_class(method)
    return Built(
        method,
        replace(training_part(open_as(data, kind.kinds)), words=plan.words),
        Spec.from_dict(plan.config["spec"]),
        validated(kind.Options, plan.config["method"], "options"),
        validated(Training, plan.config["train"], "training"),
        needs.untrained({name: first.need for name, first in plan.needs.items()}),
        device,
    )


def pictures(folder: Path, side: int, count: int) -> Path:
    """A file of so many pictures of noise, `side` pixels high and wide."""
    path = folder / f"{side}-{count}.npy"
    if not path.exists():
        np.save(path, np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8))
    return path


def settled(call: Callable[[], object], device: torch.device) -> None:
    """A call, until the device is through with it."""
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
