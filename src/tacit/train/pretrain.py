"""The main job: from data and a method's name to a run folder."""

from __future__ import annotations

import os
import shlex
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors.torch import save

from tacit.core import distributed, files, signals
from tacit.core.allocator import keep_freed_memory
from tacit.core.draws import Draws, Order
from tacit.core.errors import Stopped, TacitError
from tacit.core.picture import png
from tacit.core.version import __version__
from tacit.data import store as stores
from tacit.data.cache import cache_folder
from tacit.data.collection import Collection
from tacit.data.loader import Loader
from tacit.data.open import measure, open_data
from tacit.data.rows import Rows
from tacit.data.skipped import screen, write_skipped
from tacit.data.spec import Batch, Spec
from tacit.data.survey import Survey, survey
from tacit.methods.method import Method, Options, Progress
from tacit.methods.registry import method as method_class
from tacit.nn import build
from tacit.nn.init import seeded
from tacit.nn.vit import VisionTransformer
from tacit.train import loggers, ranks, trust
from tacit.train.advice import Setting, departures
from tacit.train.auto import Budget, Situation
from tacit.train.config import Training, validated
from tacit.train.folder import RunFolder
from tacit.train.loop import Loop, StoppedByVerdict
from tacit.train.machine import describe, pick_device, seconds_per_call
from tacit.train.probe import Probe
from tacit.train.recipe import Recipe, resolve
from tacit.train.step import Step, passes, refuse_uneven
from tacit.train.verdict import Verdict
from tacit.train.watch import Watch, evaluating
from tacit.views.normalise import statistics
from tacit.views.probe import light_view, probe_view

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


class Listener:
    """Who hears how a run goes on; this one keeps it to itself."""

    def say(self, line: str) -> None:
        """A line for people; it also stands in `log.txt`."""

    def tell(self, step: int, steps: int, loss: float, speed: dict[str, float], verdict: str) -> None:
        """Progress: steps done, steps in all, last loss, a row of `speed.csv`, the verdict so far."""


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
    collection = training_part(open_data(request.data, kind=request.kind, split=request.split, columns=request.columns))
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
    recipe = decide(method, request, spec, seen, device, start)
    refuse_uneven(recipe.training, ranks.count())
    _rehearse(build_method(method, recipe.options, recipe.training, spec), recipe.training)
    config = _config(request, collection, spec, seen, recipe, device)
    environment = {"tacit": __version__, "command": shlex.join(["tacit", *sys.argv[1:]]), **describe()}
    folder = RunFolder.begun(request.out, method.name, short_name(request.data), config, environment)
    return str(folder.path), config


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
        return _train(folder, collection, config, fabric, listener)


def reopen(config: dict[str, Any], data: Any = None) -> Collection:
    """What a run was trained on, from its configuration."""
    described = config["data"]
    if data is None and described["path"].startswith("<"):
        raise TacitError(f"the run was started on {described['path']}, a Python object; give it again as data")
    path = described["path"] if data is None else data
    return training_part(
        open_data(path, kind=described["kind"], split=described.get("split"), columns=described.get("columns"))
    )


def decide(method: type[Method], request: Request, spec: Spec, seen: Survey, device: torch.device, start: float) -> Recipe:
    """Every value of a run on this data and device; `start` is when its time began to count (`time.monotonic`)."""
    situation = Situation(
        method,
        spec,
        seen,
        request.mirrored,
        request.budget,
        device.type,
        lambda options, training: trial_seconds(method, options, training, spec, device),
        lambda: time.monotonic() - start,
    )
    return resolve(request.recipe, situation, request.given)


def training_part(collection: Collection) -> Collection:
    """The split `train` where there is one, all samples else: test data is never trained on."""
    return collection.select("train") if "train" in collection.index.splits else collection


def build_method(method: type[Method], options: Options, training: Training, spec: Spec) -> Method:
    """A method with its first weights, which depend on the seed alone. Refuses what cannot work."""
    extra = method.encoder_options(options, training.encoder)
    encoder = build.encoder(training.encoder, spec.channels, training.size, seed=training.seed, **extra)
    refuse_uneven(training)
    if training.warmup > training.steps:
        raise TacitError(f"warmup={training.warmup} is longer than the run of {training.steps} steps; lower it")
    method.check(options, encoder, spec, training.size, training.batch // training.accumulate)
    if training.recompute:
        if not isinstance(encoder, VisionTransformer):
            raise TacitError("--recompute is for transformers: batch-norm would count every batch twice; use a vit")
        encoder.recompute = True
    with seeded(training.seed, "method"):
        made = method(options, encoder, spec, training.size)
    if training.compile:
        made.student.compile()
    return made


def _rehearse(method: Method, training: Training) -> None:
    """Find out before anything is written whether the first weights can be read and the views be made."""
    if training.init:
        build.initialise(method.student, training.init)
    if training.log_to:
        loggers.require(training.log_to)
    if training.probe:
        Probe(training.probe, method.spec, training.size, training.seed)
    extent, ids = method.spec.size, torch.zeros(1, dtype=torch.int64)
    blank = Batch(ids, torch.zeros(1, method.spec.channels, *extent, dtype=torch.uint8), torch.tensor([extent]))
    for name, view in method.views().items():
        view(blank, Draws(training.seed, 0, ids, f"{name}/"), method.spec)


def trial_seconds(method: type[Method], options: Options, training: Training, spec: Spec, device: torch.device) -> float:
    """Measured seconds of one step on made-up samples of the right size."""
    keep_freed_memory()
    step = Step(build_method(method, options, training, spec), training, spec, ranks.alone(device))
    shrink = min(1.0, (training.store_side or min(spec.size)) / min(spec.size))
    extent = [max(round(side * shrink), training.size) for side in spec.size]
    count = training.batch // ranks.count()
    data = torch.randint(0, 256, (count, spec.channels, *extent), generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([extent], dtype=torch.int32).expand(count, -1)
    batch = Batch(torch.arange(count), data.to(torch.uint8), sizes)
    progress = Progress(0, training.steps, max(1, training.steps // 10))
    return seconds_per_call(lambda: step(batch, progress), device)


def _train(folder: RunFolder, collection: Collection, config: dict[str, Any], fabric: Fabric, listener: Listener) -> RunFolder:
    keep_freed_memory()
    spec = Spec.from_dict(config["spec"])
    method_type = method_class(config["run"]["method"])
    training: Training = validated(Training, config["train"], "config.toml [train]")
    options: Options = validated(method_type.Options, config["method"], "config.toml [method]")
    first = fabric.global_rank == 0

    with folder.at_work(first), open(folder.log if first else os.devnull, "a") as log:

        def say(line: str) -> None:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
            log.flush()
            if first:
                listener.say(line)

        say(collection.description)
        for name, why in config["origin"].items():
            owner, _, key = name.partition(".")
            if why.startswith("auto"):
                say(f"  {key} = {config[owner].get(key)}  ({why.removeprefix('auto: ')})")
        store = _store(collection, training, say)
        held, kept = divide(len(collection), training)
        loader = Loader(
            collection, store, kept, training.batch, training.seed, fabric.global_rank, fabric.world_size,
            side=training.store_side or None, max_bad=training.max_bad,
        )  # fmt: skip
        beside = Loader(
            collection, store, held if len(held) else kept[np.arange(min(64, len(kept)))], 512, training.seed,
            shuffle=False, side=training.store_side or None, max_bad=1.0,
        )  # fmt: skip
        looked_at = beside.batch(0)

        method = build_method(method_type, options, training, spec)
        if training.init and not folder.last.exists():
            say(f"the encoder starts from {training.init}: {build.initialise(method.student, training.init)}")
        if notice := passes(method, training):
            say(notice)
        step = Step(method, training, spec, fabric, collection.index.path)
        seen = as_seen(method)
        probes = {"crops": probe_view(seen, training.size), "light": light_view(seen, training.size)}
        watch = Watch(looked_at if len(held) else looked_at.rows(0, 0), probes, seen, training.seed)

        def tell(done: int, loss: float, speed: dict[str, float], verdict: str) -> None:
            listener.tell(done, training.steps, loss, speed, verdict)

        probe = Probe(training.probe, seen, training.size, training.seed) if first and training.probe else None
        sink = loggers.SINKS[training.log_to](folder, config) if first and training.log_to else None
        setting = Setting(training, departures(config), config["data"].get("duplicates", 0.0))
        loop = Loop(step, loader, watch, setting, folder, say, tell, probe, sink)
        if folder.last.exists():
            loop.restore()
            say(f"going on after step {loop.state.step} of {training.steps}")
        try:
            verdict = loop.run()
        except StoppedByVerdict as stop:
            whole = step.whole()
            if first:
                _keep(folder, whole, training, stop.verdict)
            raise
        except Stopped as stop:
            if first:
                files.write_json(folder.verdict, loop.diverged(str(stop)).to_dict())
            raise
        finally:
            if first:
                write_skipped(folder.skipped, collection, loader.skipped | beside.skipped)
        whole = step.whole()
        if first:
            _draw(folder, step, whole, looked_at.rows(0, 64))
            _keep(folder, whole, training, verdict)
        distributed.meet()
        log.write(f"{verdict.verdict}: {'; '.join(verdict.reasons)}\n")
    return folder


def divide(samples: int, training: Training) -> tuple[np.ndarray, Rows]:
    """Rows that the verdict looks at, and rows to train on: the first few in an order of their own, and the others."""
    count = min(training.held_back, samples - 2)
    held = np.sort(Order(training.seed, 0, samples, "held back")(torch.arange(count)).numpy())
    return held, Rows(samples, held)


def _store(collection: Collection, training: Training, say: Any) -> stores.Store | None:
    side = training.store_side or None
    store, why = None, "asked to decode as it goes"
    if training.store != "never":
        folder = cache_folder() / "stores"
        budget = stores.default_budget(folder) if training.store == "auto" else None
        store, why = stores.prepare(
            collection, side, folder, budget, training.max_bad,
            busy=lambda holder: say(f"{holder} decodes the same samples: waiting for it"),
        )  # fmt: skip
    say(why)
    if store is None:
        screen(collection, max_bad=training.max_bad)
    return store


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


def as_seen(method: Method) -> Spec:
    """What the encoder takes samples to look like: with the mean and deviation that its views were normalised by."""
    mean, std = statistics(getattr(method.options, "normalise", "data"), method.spec)
    return replace(method.spec, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _keep(folder: RunFolder, method: Method, training: Training, verdict: Verdict) -> None:
    """Verdict, then weights, then `encoder.json`: a folder with that last file is finished."""
    files.write_json(folder.verdict, verdict.to_dict())
    weights = {name: value.detach().cpu().contiguous() for name, value in method.encoder.state_dict().items()}
    files.write_bytes(folder.weights, save(weights))
    spec = as_seen(method).to_dict()
    kept = {"encoder": method.encoder.config, "spec": spec, "size": training.size, "seed": training.seed}
    files.write_json(folder.encoder, kept)


def _draw(folder: RunFolder, step: Step, method: Method, batch: Batch) -> None:
    """The method's own pictures, of held-back samples where there are any."""
    with torch.no_grad(), evaluating(method):
        views, draws = step.see(batch, 0)
        pictures = method.pictures(views, draws)
    captions = {}
    for number, (caption, picture) in enumerate(pictures.items(), 1):
        name = f"{number}.png"
        files.write_bytes(folder.pictures / name, png(picture))
        captions[name] = caption
    files.write_json(folder.pictures / "captions.json", captions)
