"""What to know about data before training on it: how it was understood, what is wrong with it, what a run would cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import torch

from tacit.core.errors import TacitError
from tacit.data.collection import Collection
from tacit.data.kinds.kind import kind_named, sides
from tacit.data.open import measure
from tacit.data.spec import Spec
from tacit.data.survey import Survey, survey
from tacit.methods.registry import METHODS, method
from tacit.train.machine import memory_megabytes, pick_device
from tacit.train.plan import SMALLEST, Found, Request, decide, first_plans, training_part
from tacit.train.situation import Budget
from tacit.train.trial import Trial


@dataclass(frozen=True)
class Cost:
    """What a method would cost on this data with the recipe `auto`.

    Attributes:
        encoder, size, batch: what `auto` would choose.
        seconds: of one pass over the data, measured here.
        memory: most that this process held while it was measured, in megabytes.
        unfit: why the method does not fit; the rest is then empty.
    """

    encoder: str = ""
    size: int = 0
    batch: int = 0
    seconds: float = 0.0
    memory: float = 0.0
    unfit: str = ""


@dataclass(frozen=True)
class Findings:
    """What `tacit doctor` says.

    Attributes:
        description: how the input was understood, and why.
        spec: what samples look like.
        survey: what was seen of them.
        costs: by method.
        device: where costs were measured.
    """

    description: str
    spec: Spec
    survey: Survey
    device: str
    costs: dict[str, Cost] = field(default_factory=dict)

    def text(self) -> str:
        """For a terminal."""
        s = self.survey
        unit = kind_named(self.spec.kind).unit
        shown = f", {s.low:g} to {s.high:g} shown as 0 to 1" if sides(self.spec.kind, self.spec.size) else ""
        width = max((len(name) for name in self.costs), default=0) + 2
        extents = [" x ".join(map(str, extent)) for extent in (s.smallest, s.typical, s.largest)]
        means = ", ".join(f"{mean:.3f} +- {std:.3f}" for mean, std in zip(s.mean, s.std, strict=True))
        lines = [
            self.description,
            f"looked at {s.looked_at} of {s.samples} samples",
            f"sizes     {extents[1]} {unit} typically, from {extents[0]} to {extents[2]}",
            f"values    {s.dtype}, {s.channels} channel(s){shown}; mean +- deviation {means}",
            f"copies    {s.copies:.1%} exact, {s.duplicates:.1%} with a near-duplicate",
        ]
        if s.splits:
            lines.append("splits    " + ", ".join(f"{name} {count}" for name, count in s.splits.items()))
        if s.classes:
            lines.append(f"labels    {s.classes} different ones; they serve evaluation only")
        lines.append(f"broken    {len(s.broken)} of {s.looked_at} looked at")
        lines += [f"            {path}: {reason}" for path, reason in list(s.broken.items())[:20]]
        lines += [f"note      {note}" for note in s.notes]
        if self.costs:
            lines += ["", f"methods with the recipe auto, measured on this {self.device}:"]
        for name, cost in self.costs.items():
            if cost.unfit:
                lines.append(f"  {name:<{width}}does not fit: {cost.unfit}")
            else:
                lines.append(
                    f"  {name:<{width}}{cost.encoder} at {cost.size} {unit}, batch {cost.batch}: "
                    f"{cost.seconds:.1f} s a pass, {cost.memory:.0f} MB at most"
                )
        return "\n".join(lines)


def examine(collection: Collection, device: str = "auto", hosts: bool = True) -> Findings:
    """Look at data as `pretrain` would, and measure a few steps of each method where `hosts` is true."""
    splits = collection.index.splits
    collection = training_part(collection)
    place = pick_device(device)
    spec = measure(collection)
    seen = replace(survey(collection, spec), splits=splits)
    found = Findings(collection.description, spec, seen, place.type)
    for name in sorted(METHODS) if hosts else ():
        try:
            found.costs[name] = _cost(name, collection, spec, seen, place)
        except TacitError as problem:
            found.costs[name] = Cost(unfit=str(problem))
    return found


def _cost(name: str, collection: Collection, spec: Spec, seen: Survey, device: torch.device) -> Cost:
    chosen = method(name)
    if collection.kind.name not in chosen.kinds:
        raise TacitError(f"it takes {' or '.join(chosen.kinds)}")
    if len(collection) < SMALLEST:
        raise TacitError(f"{len(collection)} samples are too few, it needs {SMALLEST} at the least")
    request, data = Request(name, None, budget=Budget(steps=2000)), Found(collection, spec, seen)
    needs = {name: plan.need for name, plan in first_plans(data, request).items()}
    recipe = decide(data, request, device, time.monotonic(), needs)
    t = recipe.training
    seconds = Trial(chosen, collection, spec, device, needs).seconds(recipe.options, t)
    return Cost(t.encoder, t.size, t.batch, seconds * len(collection) / t.batch, memory_megabytes(device))
