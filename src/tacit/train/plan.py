"""What a run will be, decided before anything is written: its data, every value, and what it needs first."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tacit.core.errors import TacitError
from tacit.core.version import __version__
from tacit.data.collection import Collection
from tacit.data.open import measure, open_as
from tacit.data.spec import Spec
from tacit.data.survey import Survey, survey
from tacit.data.text.wording import Words, every_caption, fingerprint
from tacit.methods.method import Method, Options
from tacit.methods.registry import method as method_class
from tacit.train import needs as runs
from tacit.train import ranks, trust
from tacit.train.config import Training
from tacit.train.folder import training_of
from tacit.train.machine import pick_device
from tacit.train.needs import Need, Needs
from tacit.train.recipe import QUICK_MINUTES, Recipe, resolve
from tacit.train.session import build_method
from tacit.train.situation import DEFAULT_MINUTES, Budget, Situation
from tacit.train.step import refuse_uneven
from tacit.train.trial import Trial, rehearse

SMALLEST = 8
"""Fewer samples than this are refused: there is nothing to hold back and nothing to compare."""

HANDED_DOWN = (
    "seed", "batch", "precision", "held_back", "max_bad", "store", "checkpoint_every", "strategy", "stop_on",
)  # fmt: skip
"""What the user sets for a run also holds for what is trained for it first."""


@dataclass
class Request:
    """What the user asked for. See `tacit.pretrain`."""

    method: str
    data: Any
    out: str | Path | None = None
    recipe: str = "auto"
    budget: Budget = field(default_factory=Budget)
    given: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    kind: str | None = None
    split: str | None = None
    columns: dict[str, str] | None = None
    mirrored: bool | None = None
    resume: bool = False
    needs: dict[str, str | Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All that a run begins with.

    Attributes:
        config: the content of its `config.toml`.
        words: what makes tokens of its captions, where it reads any.
        needs: the runs within it that have to be trained first, by name.
    """

    config: dict[str, Any]
    words: Words | None
    needs: dict[str, Plan]

    @property
    def need(self) -> Need:
        """What the run will be to the one that it is trained for."""
        return Need(self.config, self.words)


@dataclass(frozen=True)
class Found:
    """The data of a run: its samples, what they look like, and what was seen of them."""

    collection: Collection
    spec: Spec
    seen: Survey


def planned(request: Request) -> Plan:
    """Look at the data and decide every value. The run's time begins to count here."""
    start = time.monotonic()
    method = method_class(request.method)
    runs.asked(method, request.needs)
    collection = training_part(open_as(request.data, method.kinds, request.kind, request.split, request.columns))
    if collection.kind.name not in method.kinds:
        raise TacitError(f"{method.name} takes {' or '.join(method.kinds)}, but here are {collection.description}")
    if len(collection) < SMALLEST:
        raise TacitError(
            f"{len(collection)} sample(s) in {request.data}; pretraining needs {SMALLEST} at the least, "
            "and some hundreds to be of use"
        )
    trust.remember(str(request.given.get("encoder", "")))
    spec = measure(collection)
    return plan_on(Found(collection, spec, survey(collection, spec)), request, start)


def plan_on(found: Found, request: Request, start: float) -> Plan:
    """Decide every value of a run on this data; `start` is when its time began to count (`time.monotonic`)."""
    method = method_class(request.method)
    first = first_plans(found, request)
    needs = {name: plan.need for name, plan in first.items()}
    needs |= {name: runs.given(name, path, method.needs[name]) for name, path in request.needs.items()}
    found = replace(found, spec=method.spec_given(found.spec, {name: need.spec for name, need in needs.items()}))
    if first:
        request = replace(request, budget=_budget(request).part(1 - _share(request)))
    device = pick_device(request.device)
    recipe = decide(found, request, device, start, needs)
    refuse_uneven(recipe.training, ranks.count())
    words = _words(method, recipe.options, found.collection, needs)
    rehearse(build_method(method, recipe.options, recipe.training, found.spec, runs.untrained(needs)), recipe.training)
    config = _config(request, found, recipe, device)
    if words is not None:
        config["data"]["tokenizer"] = fingerprint(words.tokenizer.content)
    if needs:
        config["needs"] = {name: need.place(name) for name, need in needs.items()}
    return Plan(config, words, first)


def first_plans(found: Found, request: Request) -> dict[str, Plan]:
    """The runs that have to come first, where the user gave none, each within its part of the time."""
    method = method_class(request.method)
    needed = method.needed(request.given, request.recipe, len(found.collection))
    missing = {name: told for name, told in needed.items() if name not in request.needs}
    handed_down = {name: value for name, value in request.given.items() if name in HANDED_DOWN}
    plans = {}
    for name, told in missing.items():
        maker = method_class(method.needs[name])
        inner = replace(
            request,
            method=maker.name,
            recipe="auto" if request.recipe.startswith("paper") and not maker.paper_training else request.recipe,
            budget=_budget(request).part(_share(request) / len(missing)),
            given=handed_down | told,
            needs={},
        )
        plans[name] = plan_on(found, inner, time.monotonic())
    return plans


def decide(found: Found, request: Request, device: torch.device, start: float, needs: Needs) -> Recipe:
    """Every value of a run on this data and device; `start` is when its time began to count (`time.monotonic`)."""
    method = method_class(request.method)
    trial = Trial(method, found.collection, found.spec, device, needs)
    situation = Situation(
        method,
        found.spec,
        found.seen,
        request.mirrored,
        request.budget,
        device.type,
        trial.seconds,
        trial.memory,
        trial.looks,
        trial.reading,
        lambda: time.monotonic() - start,
    )
    inherited = method.inherits({name: need.config["method"] | need.config["train"] for name, need in needs.items()})
    return resolve(request.recipe, situation, request.given, _encoder_of(request.given) | inherited)


def _encoder_of(given: Mapping[str, Any]) -> dict[str, str]:
    """The encoder of the run whose weights this one starts from, where nobody names another."""
    if "encoder" in given or not (earlier := training_of(given.get("init"))):
        return {}
    trust.require(earlier["encoder"], given["init"])
    return {"encoder": earlier["encoder"]}


def training_part(collection: Collection) -> Collection:
    """The split `train` where there is one, all samples else: test data is never trained on."""
    return collection.select("train") if "train" in collection.index.splits else collection


def short_name(data: Any) -> str:
    """What data is called in the names of folders and files."""
    if not isinstance(data, str | os.PathLike):
        return type(data).__name__.lower()
    name = os.fspath(data).rstrip("/").rpartition("/")[2].removeprefix("sample:")
    return name.partition(".")[0] or "data"


def _budget(request: Request) -> Budget:
    """That of the whole, spelled out where time is to be divided."""
    if request.budget != Budget() or request.recipe.startswith("paper"):
        return request.budget
    return Budget(minutes=QUICK_MINUTES if request.recipe == "quick" else DEFAULT_MINUTES)


def _share(request: Request) -> float:
    return request.given.get("needs_share", Training.model_fields["needs_share"].default)


def _words(method: type[Method], options: Options, collection: Collection, needs: Needs) -> Words | None:
    """What makes tokens of the captions: that of what came first, or learned from them; None where the method reads none."""
    if (wording := method.wording(options)) is None:
        return None
    captions = list(every_caption(collection.index.table))
    if not captions:
        raise TacitError(
            f"{method.name} needs a caption for each sample, but {collection.description}, has none; "
            "give a manifest with a column 'caption', or shards with a .txt beside each picture"
        )
    for need in needs.values():
        if need.words is not None:  # ids have to keep their meaning
            return Words(need.words.tokenizer, wording)
    return Words(wording.trained(captions), wording)


def _config(request: Request, found: Found, recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """The content of `config.toml`."""
    collection = found.collection
    data = {
        "path": _location(request.data),
        "kind": collection.kind.name,
        "samples": len(collection),
        "fingerprint": collection.fingerprint,
        "understood": collection.description,
        "split": request.split,
        "columns": request.columns,
        "duplicates": round(found.seen.duplicates, 4),
    }
    return {
        "run": {"method": request.method, "recipe": request.recipe, "device": device.type, "tacit": __version__},
        "data": {name: value for name, value in data.items() if value is not None},
        "spec": found.spec.to_dict(),
        "method": recipe.options.model_dump(exclude_none=True),
        "train": recipe.training.model_dump(exclude_none=True),
        "origin": recipe.origin,
        "usual": {name: value for name, value in recipe.usual.items() if value is not None},
    }


def _location(data: Any) -> str:
    """What leads to the data again from any folder: a URL or a name as it is, a path made absolute."""
    if not isinstance(data, str | os.PathLike):
        return f"<{type(data).__name__}>"
    text = os.fspath(data)
    return text if "://" in text or text.startswith("sample:") else str(Path(text).absolute())
