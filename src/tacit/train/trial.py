"""What is tried before anything is written: whether a run can begin, and what one of its steps takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from tacit.core.allocator import keep_freed_memory
from tacit.core.draws import Draws
from tacit.data import store as stores
from tacit.data.cache import cache_folder
from tacit.data.collection import Collection
from tacit.data.index import spread
from tacit.data.kinds.kind import shrunk, sides
from tacit.data.loader import Loader
from tacit.data.spec import Batch, Spec
from tacit.data.text.wording import Wording
from tacit.data.window import Window
from tacit.data.workers import processors
from tacit.methods.method import Method, Options, Progress
from tacit.nn import build
from tacit.nn.layout import channels_last
from tacit.train import loggers, ranks
from tacit.train.config import Training
from tacit.train.machine import bytes_kept, memory_bytes, seconds_per_call
from tacit.train.needs import Needs, untrained
from tacit.train.probe import Probe
from tacit.train.session import build_method, looking, watching
from tacit.train.situation import Reading
from tacit.train.step import Step
from tacit.train.watch import LOOKS, evaluating
from tacit.views.sight import sight
from tacit.views.view import View, windows

LOOKED_AT = 32
"""So many samples are looked at to measure what a look costs."""

READ, A_WHILE = 256, 1.0
"""At most so many samples are decoded to measure what that takes, for so many seconds."""

WRITING = 1.2
"""How many times as long as decoding it takes to make a store (`benchmarks/store.py`)."""


def rehearse(method: Method, training: Training) -> None:
    """Find out whether the first weights can be read and the views be made."""
    if training.init:
        build.initialise(method.student, training.init)
    if training.log_to:
        loggers.require(training.log_to)
    if training.probe:
        Probe(training.probe, method.spec, method.extent(method.options, training.shown_size), training.seed)
    views = method.views()
    samples = made_up(views, method.spec, method.spec.size, 1, method.wording(method.options))
    for name, view in views.items():
        view(samples.of(name), Draws(training.seed, 0, samples.ids, f"{name}/"), method.spec)
    if training.feature_size:
        still = sight(method.spec.kind).still(method.extent(method.options, training.feature_size))
        with torch.no_grad(), evaluating(method.encoder):
            method.encoder(still(samples, Draws(training.seed, 0, samples.ids), method.spec))


@dataclass(frozen=True)
class Trial:
    """Steps of a method on this data and device, to be measured with one choice of values or another.

    Attributes:
        method: the system.
        collection, spec: the data, and what its samples look like.
        device: what steps are computed on.
        needs: what the method stands on.
    """

    method: type[Method]
    collection: Collection
    spec: Spec
    device: torch.device
    needs: Needs

    def seconds(self, options: Options, training: Training) -> float:
        """Measured, of one step."""
        return seconds_per_call(self._step(options, training), self.device)

    def memory(self, options: Options, training: Training) -> float:
        """Measured share of the device's memory that one step keeps for its backward pass: nearly all that it takes."""
        training = training.model_copy(update={"compile": False})
        return bytes_kept(self._step(options, training)) / memory_bytes(self.device)

    def looks(self, options: Options, training: Training) -> float:
        """Measured seconds that the verdict takes in a whole run: a look at a few samples, as often as at all held back."""
        if training.held_back < 2:
            return 0.0
        made = build_method(self.method, options, training, self.spec, untrained(self.needs))
        made = channels_last(made.to(self.device))  # as a step lays its weights out
        few = spread(len(self.collection), min(training.held_back, LOOKED_AT))
        watch = watching(made, training, looking(made, training, self.collection, None, few).batch(0))
        once = seconds_per_call(lambda: watch.look(made.encoder, made.projector, self.device), self.device, budget=0)
        return LOOKS * once * training.held_back / len(few)

    def reading(self, options: Options, training: Training) -> Reading:
        """Measured, of decoding all samples into a store before the first step, or those of each step as it goes."""
        made = build_method(self.method, options, training, self.spec, untrained(self.needs))
        side, folder = training.store_side or None, cache_folder() / "stores"
        if training.store != "never" and stores.begun(self.collection, side, folder):
            return Reading()
        parts, partners = windows(made.views()), self.method.partners
        each = self._decoding(training, parts, partners)
        kept = training.store == "always" or (
            training.store == "auto" and stores.expected_bytes(self.collection, side) <= stores.default_budget(folder)
        )
        if not kept:
            return Reading(math.inf, each)
        whole = self._decoding(training) if parts or partners else each
        return Reading(WRITING * len(self.collection) * whole, each)

    def _decoding(self, training: Training, parts: Mapping[str, Window] | None = None, partners: bool = False) -> float:
        """Measured seconds of a sample, by all workers together, for a while."""
        some, together = spread(len(self.collection), READ), 4 * processors()
        loader = Loader(
            self.collection, None, some, together, training.seed, shuffle=False, side=training.store_side or None, max_bad=1.0,
            windows=parts, partners=partners,
        )  # fmt: skip
        start, seen = time.perf_counter(), 0
        while seen < len(some) and time.perf_counter() - start < A_WHILE:
            loader.batch(seen // together)
            seen += together
        return (time.perf_counter() - start) / min(seen, len(some))

    def _step(self, options: Options, training: Training) -> Callable[[], object]:
        """One step, to be called: on noise of the right size, or, where it counts what is in them, on real samples."""
        keep_freed_memory()
        made = build_method(self.method, options, training, self.spec, untrained(self.needs))
        step = Step(made, training, self.spec, ranks.alone(self.device))
        count = training.batch // ranks.count()
        if sides(self.spec.kind, self.spec.size):
            extent = shrunk(self.spec.kind, self.spec.size, training.store_side or None)
            batch = made_up(step.views, self.spec, extent, count, self.method.wording(options))
        else:
            some = spread(len(self.collection), count)
            batch = Loader(
                self.collection, None, some, count, training.seed, shuffle=False, max_bad=1.0, windows=windows(step.views)
            ).batch(0)
        progress = Progress(0, training.steps, max(1, training.steps // 10))
        return lambda: step(batch, progress)


def made_up(views: Mapping[str, View], spec: Spec, extent: Sequence[int], count: int, wording: Wording | None) -> Batch:
    """Samples of noise with this extent, or the parts of them that views want, and captions of any words."""
    generator = torch.Generator().manual_seed(0)

    def noise(extent: Sequence[int]) -> Batch:
        data = torch.randint(0, 256, (count, spec.channels, *extent), generator=generator, dtype=torch.uint8)
        return Batch(torch.arange(count), data, torch.tensor([list(extent)], dtype=torch.int32).expand(count, -1))

    def part(window: Window) -> Batch:
        places = window(extent, [0.5] * window.drawn)
        return noise([*map(len, places), *extent[len(places) :]])

    parts = {name: part(window) for name, window in windows(views).items()}
    batch = next(iter(parts.values())) if parts else noise(extent)  # as the loader has it
    extra = {} if wording is None else {"tokens": wording.made_up(count, generator)}
    return replace(batch, extra=extra, parts=parts)
