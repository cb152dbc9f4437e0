"""One run, from its configuration to its end: everything is built from what `config.toml` says, and trained."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors.torch import save

from tacit.core import distributed, files
from tacit.core.allocator import keep_freed_memory
from tacit.core.draws import Order
from tacit.core.errors import Stopped, TacitError
from tacit.core.picture import png
from tacit.data import store as stores
from tacit.data.cache import cache_folder
from tacit.data.collection import Collection
from tacit.data.loader import Loader, whole_or
from tacit.data.rows import Rows
from tacit.data.skipped import screen, write_skipped
from tacit.data.spec import Batch, Spec
from tacit.data.text.tokenizer import Tokenizer
from tacit.data.text.wording import Wording, Words, fingerprint
from tacit.methods.method import Contrastive, Method, Options
from tacit.methods.registry import method as method_class
from tacit.nn import build
from tacit.nn.init import seeded
from tacit.train import loggers, ranks
from tacit.train.advice import Setting, departures
from tacit.train.config import Training, validated
from tacit.train.folder import NEEDS, RunFolder
from tacit.train.loop import Loop, StoppedByVerdict
from tacit.train.probe import Probe
from tacit.train.step import Step, passes, refuse_uneven
from tacit.train.verdict import Verdict
from tacit.train.watch import Watch, evaluating
from tacit.views.normalise import statistics
from tacit.views.sight import sight
from tacit.views.view import windows

WHOLE_BATCH = 8
"""Samples at a time where a method goes through all of them before the run."""


class Listener:
    """Who hears how a run goes on; this one keeps it to itself."""

    def say(self, line: str) -> None:
        """A line for people; it also stands in `log.txt`."""

    def tell(self, step: int, steps: int, loss: float, speed: dict[str, float], verdict: str) -> None:
        """Progress: steps done, steps in all, last loss, a row of `speed.csv`, the verdict so far."""


def train(
    folder: RunFolder,
    collection: Collection,
    config: dict[str, Any],
    fabric: Fabric,
    listener: Listener,
    needs: Mapping[str, Method],
) -> RunFolder:
    """Train from where the folder's last checkpoint stands, or from the start, to the end; on every rank at once.

    Args:
        collection: the samples that the run was begun on.
        config: the content of its `config.toml`.
        needs: what it needs, trained.

    Raises:
        Stopped: the verdict, or a loss that is not finite, ended the run.
    """
    keep_freed_memory()
    first = fabric.global_rank == 0
    with folder.at_work(first), open(folder.log if first else os.devnull, "a") as log:

        def say(line: str) -> None:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
            log.flush()
            if first:
                listener.say(line)

        say(collection.description)
        verdict = _ended(_begun(folder, collection, config, fabric, listener, needs, say), folder, first)
        distributed.meet()
        log.write(f"{verdict.verdict}: {'; '.join(verdict.reasons)}\n")
    return folder


@dataclass(frozen=True)
class Ready:
    """A run that has only to be trained.

    Attributes:
        loop: which trains it.
        collection: its samples, their captions with what makes tokens of them.
        looked_at: samples that the verdict, or at least the method's pictures, are taken of.
        beside: what read them.
    """

    loop: Loop
    collection: Collection
    looked_at: Batch
    beside: Loader


def _begun(
    folder: RunFolder,
    collection: Collection,
    config: dict[str, Any],
    fabric: Fabric,
    listener: Listener,
    needs: Mapping[str, Method],
    say: Callable[[str], None],
) -> Ready:
    """Everything that a run is made of, as it was at its last checkpoint. For the arguments see `train`."""
    spec = Spec.from_dict(config["spec"])
    method_type = method_class(config["run"]["method"])
    training: Training = validated(Training, config["train"], "config.toml [train]")
    options: Options = validated(method_type.Options, config["method"], "config.toml [method]")
    first = fabric.global_rank == 0

    def tell(done: int, loss: float, speed: dict[str, float], verdict: str) -> None:
        listener.tell(done, training.steps, loss, speed, verdict)

    collection = _worded(collection, method_type.wording(options), folder, config)
    _say_choices(config, say)
    store = _store(collection, training, say)
    held, kept = divide(len(collection), training)
    method = build_method(method_type, options, training, spec, needs)
    _prepare(method, _every(collection, store, training, fabric), folder, fabric)
    loader = Loader(
        collection, store, kept, training.batch, training.seed, fabric.global_rank, fabric.world_size,
        side=training.store_side or None, max_bad=training.max_bad, windows=windows(method.views()), partners=method.partners,
    )  # fmt: skip
    beside = looking(method, training, collection, store, held if len(held) else kept[np.arange(min(64, len(kept)))])
    looked_at = beside.batch(0)

    if training.init and not folder.last.exists():
        say(f"the encoder starts from {training.init}: {build.initialise(method.student, training.init)}")
    if notice := passes(method, training):
        say(notice)
    step = Step(method, training, spec, fabric, collection.index.path)
    watch = watching(method, training, looked_at if len(held) else looked_at.rows(0, 0))
    probe = None
    if first and training.probe:
        probe = Probe(training.probe, watch.spec, method_type.extent(options, training.shown_size), training.seed)
    sink = loggers.SINKS[training.log_to](folder, config) if first and training.log_to else None
    duplicates = config["data"].get("duplicates", 0.0)
    setting = Setting(training, departures(config), duplicates, sight(spec.kind).varied, method.rebuilds)
    loop = Loop(step, loader, watch, setting, folder, say, tell, probe, sink)
    if folder.last.exists():
        loop.restore()
        say(f"going on after step {loop.state.step} of {training.steps}")
    return Ready(loop, collection, looked_at, beside)


def _ended(ready: Ready, folder: RunFolder, first: bool) -> Verdict:
    """Train to the end, and keep what came of it; also where it ends early."""
    loop, step = ready.loop, ready.loop.step
    try:
        verdict = loop.run()
    except StoppedByVerdict as stop:
        whole = step.whole()
        if first:
            _keep(folder, whole, step.training, stop.verdict)
        raise
    except Stopped as stop:
        if first:
            files.write_json(folder.verdict, loop.diverged(str(stop)).to_dict())
        raise
    finally:
        if first:
            write_skipped(folder.skipped, ready.collection, loop.loader.skipped | ready.beside.skipped)
    whole = step.whole()
    if first:
        _draw(folder, step, whole, ready.looked_at.rows(0, 64))
        _keep(folder, whole, step.training, verdict)
    return verdict


def _worded(collection: Collection, wording: Wording | None, folder: RunFolder, config: dict[str, Any]) -> Collection:
    """The samples with what makes tokens of their captions, where they are read: that which the run was begun with."""
    if wording is None:
        return collection
    content = files.read_text(folder.tokenizer)
    if fingerprint(content) != config["data"].get("tokenizer"):
        raise TacitError(f"{folder.tokenizer} is not what {folder.path} was begun with; restore it from a copy")
    return replace(collection, words=Words(Tokenizer(content, str(folder.tokenizer)), wording))


def _prepare(method: Method, every: Iterator[Batch], folder: RunFolder, fabric: Fabric) -> None:
    """The method's whole-set work: by the first rank, then by the others, for whom it is done."""
    work = partial(method.before_run, every, folder.path / NEEDS)
    ranks.by_first(fabric, work)
    if fabric.global_rank > 0:
        work()


def _every(collection: Collection, store: stores.Store | None, training: Training, fabric: Fabric) -> Iterator[Batch]:
    """All samples once, in order, on the device."""
    side = training.store_side or None
    loader = Loader(collection, store, None, WHOLE_BATCH, training.seed, shuffle=False, side=side, max_bad=1.0)
    yield from (batch.to(fabric.device) for batch in loader)


def _say_choices(config: dict[str, Any], say: Callable[[str], None]) -> None:
    """Every value that `auto` chose, with its reason."""
    for name, why in config["origin"].items():
        owner, _, key = name.partition(".")
        if why.startswith("auto"):
            say(f"  {key} = {config[owner].get(key)}  ({why.removeprefix('auto: ')})")


def divide(samples: int, training: Training) -> tuple[np.ndarray, Rows]:
    """Rows that the verdict looks at, and rows to train on: the first few in an order of their own, and the others."""
    count = min(training.held_back, samples - 2)
    held = np.sort(Order(training.seed, 0, samples, "held back")(torch.arange(count)).numpy())
    return held, Rows(samples, held)


def _store(collection: Collection, training: Training, say: Callable[[str], None]) -> stores.Store | None:
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


def build_method(
    method: type[Method], options: Options, training: Training, spec: Spec, needs: Mapping[str, Method] | None = None
) -> Method:
    """A method with its first weights, which depend on the seed and on what it needs alone. Refuses what cannot work."""
    extra = method.encoder_options(options, training.encoder)
    encoder = build.encoder(training.encoder, spec.channels, method.extent(options, training.size), seed=training.seed, **extra)
    refuse_uneven(training)
    if training.warmup > training.steps:
        raise TacitError(f"warmup={training.warmup} is longer than the run of {training.steps} steps; lower it")
    divided = 1 if issubclass(method, Contrastive) else training.accumulate  # what the loss does not see together
    method.check(options, encoder, spec, training.size, training.batch // divided)
    if training.recompute:
        if not hasattr(encoder, "recompute"):
            raise TacitError("--recompute is for transformers: batch-norm would count every batch twice; use a vit")
        encoder.recompute = True  # pyright: ignore[reportArgumentType]
    with seeded(training.seed, "method"):
        made = method(options, encoder, spec, training.size, **(needs or {}))
    if training.compile:
        made.student.compile()
    return made


def as_seen(method: Method) -> Spec:
    """What the encoder takes samples to look like: the mean and deviation are those of its views, and so is the stride."""
    mean, std = statistics(getattr(method.options, "normalise", "data"), method.spec)
    stride = getattr(method.options, "stride", 1)
    return replace(method.spec, mean=tuple(mean.tolist()), std=tuple(std.tolist()), stride=stride)


def looking(
    method: Method, training: Training, collection: Collection, store: stores.Store | None, rows: Sequence[int] | np.ndarray
) -> Loader:
    """These samples in one batch, as the verdict looks at them."""
    window = sight(method.spec.kind).window(as_seen(method), method.extent(method.options, training.shown_size))
    return Loader(
        collection, store, rows, 512, training.seed, shuffle=False, side=training.store_side or None, max_bad=1.0,
        windows=whole_or(window),
    )  # fmt: skip


def watching(method: Method, training: Training, batch: Batch) -> Watch:
    """What looks at these samples through the features of a run."""
    look, extent = sight(method.spec.kind), method.extent(method.options, training.shown_size)
    probes = {"crops": look.crops(extent), "light": look.light(extent)}
    return Watch(batch, probes, as_seen(method), training.seed, method.by_place)


def _keep(folder: RunFolder, method: Method, training: Training, verdict: Verdict) -> None:
    """Verdict, then weights, then `encoder.json`: a folder with that last file is finished."""
    files.write_json(folder.verdict, verdict.to_dict())
    files.write_bytes(folder.weights, save(_weights(method.encoder)))
    if (reader := method.reader) is not None:
        both = {"reader": reader, "picture": method.projector or torch.nn.Identity()}
        files.write_bytes(folder.reader_weights, save(_weights(torch.nn.ModuleDict(both))))
        files.write_json(folder.reader, reader.config)
    spec = as_seen(method).to_dict()
    size = training.shown_size
    extent = method.extent(method.options, size)
    kept = {"encoder": method.encoder.config, "spec": spec, "size": size, "extent": extent, "seed": training.seed}
    files.write_json(folder.encoder, kept)


def _weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}


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
