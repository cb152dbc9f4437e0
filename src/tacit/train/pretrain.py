"""The main job: from data and a method's name to a run folder."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from tacit.core import signals
from tacit.core.allocator import keep_freed_memory
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.core.version import __version__
from tacit.data.collection import Collection
from tacit.data.index import spread
from tacit.data.kinds.kind import as_taken, shrunk, sides
from tacit.data.loader import Loader
from tacit.data.open import measure, open_data
from tacit.data.spec import Batch, Spec
from tacit.data.survey import Survey, survey
from tacit.data.text.wording import Wording, Words, every_caption, fingerprint
from tacit.data.window import Window
from tacit.methods.method import Method, Options, Progress
from tacit.methods.registry import method as method_class
from tacit.nn import build
from tacit.train import loggers, ranks, trust
from tacit.train.config import Training
from tacit.train.folder import RunFolder
from tacit.train.machine import describe, pick_device, seconds_per_call
from tacit.train.probe import Probe
from tacit.train.recipe import Recipe, resolve
from tacit.train.session import Listener, build_method, train
from tacit.train.situation import Budget, Situation
from tacit.train.step import Step, refuse_uneven
from tacit.views.view import View, windows

SMALLEST = 8
"""Fewer samples than this are refused: there is nothing to hold back and nothing to compare."""


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


def pretrain(request: Request, listener: Listener | None = None) -> RunFolder:
    """Train, and write everything that a run folder holds; with `resume`, go on with the run in `out` where there is one.

    Raises:
        TacitError: the request cannot be met; nothing was written.
        Stopped: the verdict ended the run; the folder holds everything up to there.
    """
    fabric = ranks.join(pick_device(request.device), request.given.get("strategy", "ddp"))
    with ranks.company("the same command starts again"):
        path, config = ranks.by_first(fabric, lambda: _begun(request) or _prepare(request))
    return _go_on(RunFolder(path), config, request.data, fabric, listener or Listener())


def _begun(request: Request) -> tuple[str, dict[str, Any]] | None:
    """The run that the request would go on with: its path and its configuration."""
    if not request.resume:
        return None
    if request.out is None:
        raise TacitError("--resume goes on with the run in --out; give that folder too")
    folder = RunFolder(request.out)
    if not folder.config.exists():
        return None
    config = folder.read_config()
    kept = config["run"] | config["method"] | config["train"]
    asked = {"method": request.method, "steps": request.budget.steps, **request.given}
    if (strategy := asked.pop("strategy", None)) is not None:
        config["train"]["strategy"] = strategy
    for name, value in asked.items():
        if value is not None and value != kept.get(name, value):
            raise TacitError(
                f"{request.out} was begun with {name}={kept[name]}, not {value}, and a run keeps its values; "
                "give the same ones, or choose another --out"
            )
    trust.remember(str(request.given.get("encoder", "")))
    trust.require(config["train"]["encoder"], request.out)
    return str(folder.path), config


@signals.told("interrupted before anything was written; the same command starts again")
def _prepare(request: Request) -> tuple[str, dict[str, Any]]:
    """Look at the data, decide every value, and begin a run folder: its path, and the configuration that lies in it."""
    start = time.monotonic()
    method = method_class(request.method)
    collection = training_part(_opened(request, method))
    if collection.kind.name not in method.kinds:
        raise TacitError(f"{method.name} takes {' or '.join(method.kinds)}, but here are {collection.description}")
    if len(collection) < SMALLEST:
        raise TacitError(
            f"{len(collection)} sample(s) in {request.data}; pretraining needs {SMALLEST} at the least, "
            "and some hundreds to be of use"
        )
    RunFolder.unused(request.out, method.name, short_name(request.data))
    trust.remember(str(request.given.get("encoder", "")))
    device = pick_device(request.device)
    spec = measure(collection)
    seen = survey(collection, spec)
    recipe = decide(method, request, collection, spec, seen, device, start)
    refuse_uneven(recipe.training, ranks.count())
    words = _words(method, recipe.options, collection)
    _rehearse(build_method(method, recipe.options, recipe.training, spec), recipe.training)
    config = _config(request, collection, spec, seen, recipe, device)
    if words is not None:
        config["data"]["tokenizer"] = fingerprint(words.tokenizer.content)
    environment = {"tacit": __version__, "command": shlex.join(["tacit", *sys.argv[1:]]), **describe()}
    folder = RunFolder.begun(request.out, method.name, short_name(request.data), config, environment, words)
    return str(folder.path), config


def _opened(request: Request, method: type[Method]) -> Collection:
    """The data, as a kind that the method takes where it can be understood so: pictures are pairs to a method of pairs."""

    def opened(kind: str | None) -> Collection:
        return open_data(request.data, kind=kind, split=request.split, columns=request.columns)

    collection = opened(request.kind)
    kind = collection.kind.name
    taken = as_taken(kind, method.kinds) if request.kind is None else kind
    return collection if taken == kind else opened(taken)


def _words(method: type[Method], options: Options, collection: Collection) -> Words | None:
    """What makes tokens of the captions, learned from them; None where the method reads none."""
    if (wording := method.wording(options)) is None:
        return None
    captions = list(every_caption(collection.index.table))
    if not captions:
        raise TacitError(
            f"{method.name} needs a caption for each sample, but {collection.description}, has none; "
            "give a manifest with a column 'caption', or shards with a .txt beside each picture"
        )
    return Words(wording.trained(captions), wording)


def resume(path: str | Path, data: Any = None, listener: Listener | None = None, strategy: str | None = None) -> RunFolder:
    """Go on with a run exactly where its last checkpoint left it, or from the start where there is none.

    Args:
        data: the data again, where it lies elsewhere now, or was a Python object that no path leads to.
        strategy: how weights lie on several ranks from now on, `ddp` or `fsdp`.
    """
    folder = RunFolder.existing(path)
    config = folder.read_config()
    trust.require(config["train"]["encoder"], path)
    config["train"] |= {} if strategy is None else {"strategy": strategy}
    fabric = ranks.join(pick_device(config["run"]["device"]), config["train"].get("strategy", "ddp"))
    return _go_on(folder, config, data, fabric, listener or Listener())


def _go_on(folder: RunFolder, config: dict[str, Any], data: Any, fabric: Fabric, listener: Listener) -> RunFolder:
    """Train from where the run stands to its end, on the very data that it was begun on."""
    if folder.finished:
        if fabric.global_rank == 0:
            listener.say(f"{folder.path} is finished: nothing is left to do")
        return folder
    collection = reopen(config, data)
    if collection.fingerprint != config["data"]["fingerprint"]:
        raise TacitError(
            f"{config['data']['path']} changed since {folder.path} was started (files were added, removed or altered); "
            "put it back as it was, or start a new run with --init"
        )
    with ranks.company(f"`tacit resume {folder.path}` goes on"):
        return train(folder, collection, config, fabric, listener)


def reopen(config: dict[str, Any], data: Any = None) -> Collection:
    """What a run was trained on, from its configuration."""
    described = config["data"]
    if data is None and described["path"].startswith("<"):
        raise TacitError(f"the run was started on {described['path']}, a Python object; give it again as data")
    path = described["path"] if data is None else data
    return training_part(
        open_data(path, kind=described["kind"], split=described.get("split"), columns=described.get("columns"))
    )


def decide(
    method: type[Method], request: Request, collection: Collection, spec: Spec, seen: Survey, device: torch.device, start: float
) -> Recipe:
    """Every value of a run on this data and device; `start` is when its time began to count (`time.monotonic`)."""
    situation = Situation(
        method,
        spec,
        seen,
        request.mirrored,
        request.budget,
        device.type,
        lambda options, training: trial_seconds(method, options, training, collection, spec, device),
        lambda: time.monotonic() - start,
    )
    return resolve(request.recipe, situation, request.given)


def training_part(collection: Collection) -> Collection:
    """The split `train` where there is one, all samples else: test data is never trained on."""
    return collection.select("train") if "train" in collection.index.splits else collection


def _rehearse(method: Method, training: Training) -> None:
    """Find out before anything is written whether the first weights can be read and the views be made."""
    if training.init:
        build.initialise(method.student, training.init)
    if training.log_to:
        loggers.require(training.log_to)
    if training.probe:
        Probe(training.probe, method.spec, method.extent(method.options, training.size), training.seed)
    views = method.views()
    made_up = _made_up(views, method.spec, method.spec.size, 1, method.wording(method.options))
    for name, view in views.items():
        view(made_up.of(name), Draws(training.seed, 0, made_up.ids, f"{name}/"), method.spec)


def trial_seconds(
    method: type[Method], options: Options, training: Training, collection: Collection, spec: Spec, device: torch.device
) -> float:
    """Measured seconds of one step: on noise of the right size, or, where it counts what is in them, on real samples."""
    keep_freed_memory()
    step = Step(build_method(method, options, training, spec), training, spec, ranks.alone(device))
    count = training.batch // ranks.count()
    if sides(spec.kind, spec.size):
        extent = shrunk(spec.kind, spec.size, training.store_side or None)
        batch = _made_up(step.views, spec, extent, count, method.wording(options))
    else:
        some = spread(len(collection), count)
        batch = Loader(
            collection, None, some, count, training.seed, shuffle=False, max_bad=1.0, windows=windows(step.views)
        ).batch(0)
    progress = Progress(0, training.steps, max(1, training.steps // 10))
    return seconds_per_call(lambda: step(batch, progress), device)


def _made_up(views: Mapping[str, View], spec: Spec, extent: Sequence[int], count: int, wording: Wording | None) -> Batch:
    """Samples of noise with this extent, or the parts of them that views want, and captions of any words."""
    generator = torch.Generator().manual_seed(0)

    def noise(extent: Sequence[int]) -> Batch:
        data = torch.randint(0, 256, (count, spec.channels, *extent), generator=generator).to(torch.uint8)
        return Batch(torch.arange(count), data, torch.tensor([list(extent)], dtype=torch.int32).expand(count, -1))

    def part(window: Window) -> Batch:
        places = window(extent, [0.5] * window.drawn)
        return noise([*map(len, places), *extent[len(places) :]])

    batch = noise(extent)
    extra = {} if wording is None else {"tokens": wording.made_up(count, generator)}
    return replace(batch, extra=extra, parts={name: part(window) for name, window in windows(views).items()})


def _config(
    request: Request, collection: Collection, spec: Spec, seen: Survey, recipe: Recipe, device: torch.device
) -> dict[str, Any]:
    """The content of `config.toml`."""
    data = {
        "path": _location(request.data),
        "kind": collection.kind.name,
        "samples": len(collection),
        "fingerprint": collection.fingerprint,
        "understood": collection.description,
        "split": request.split,
        "columns": request.columns,
        "duplicates": round(seen.duplicates, 4),
    }
    return {
        "run": {"method": request.method, "recipe": request.recipe, "device": device.type, "tacit": __version__},
        "data": {name: value for name, value in data.items() if value is not None},
        "spec": spec.to_dict(),
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


def short_name(data: Any) -> str:
    """What data is called in the names of folders and files."""
    if not isinstance(data, str | os.PathLike):
        return type(data).__name__.lower()
    name = os.fspath(data).rstrip("/").rpartition("/")[2].removeprefix("sample:")
    return name.partition(".")[0] or "data"
