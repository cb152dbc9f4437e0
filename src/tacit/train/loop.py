"""The loop: every step of every method is these lines."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from tacit.core import distributed, signals
from tacit.core.errors import Interrupted, Stopped, TacitError, said
from tacit.data.loader import Loader
from tacit.data.spec import Batch
from tacit.methods.method import Method, Progress, Terms
from tacit.train import checkpoint
from tacit.train.advice import Setting
from tacit.train.evidence import Evidence, Row
from tacit.train.folder import RunFolder
from tacit.train.loggers import Sink
from tacit.train.probe import Probe
from tacit.train.record import Clock, NoRecord, Record
from tacit.train.step import Step
from tacit.train.verdict import Verdict, judge
from tacit.train.watch import CHECKS, Watch

METRIC_ROWS = 5000


@dataclass
class State:
    """What a checkpoint holds beside weights and optimiser."""

    step: int = 0
    lengths: dict[str, int] = field(default_factory=dict)
    untrained: Row = field(default_factory=dict)
    raw: Row = field(default_factory=dict)
    figures: Row = field(default_factory=dict)
    scores: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    best_rank: float = 0.0
    first_loss: float = math.nan
    recent_loss: float = math.nan
    chance: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


class Loop:
    """One run's training, from any step to the end.

    Args:
        step: updates the weights from a batch.
        loader: gives the batch of any step.
        say: takes lines for people.
        tell: called with (step, loss, the row of `speed.csv`, verdict so far) for a progress display.
        probe: labelled data, for the record alone.
        sink: where else the numbers go.
    """

    def __init__(
        self,
        step: Step,
        loader: Loader,
        watch: Watch,
        setting: Setting,
        folder: RunFolder,
        say: Callable[[str], None],
        tell: Callable[[int, float, dict[str, float], str], None],
        probe: Probe | None = None,
        sink: Sink | None = None,
    ) -> None:
        self.step, self.method, self.training = step, step.method, step.training
        self.loader, self.watch, self.folder, self.say, self.tell = loader, watch, folder, say, tell
        self.setting = setting
        self.probe, self.sink = probe, sink
        self.state = State()
        self._signal = 0

    @property
    def first(self) -> bool:
        """Whether this is the rank that looks, writes and speaks."""
        return self.step.fabric.global_rank == 0

    # The run ----------------------------------------------------------------------------------------------------------

    def run(self) -> Verdict:
        """Train from where the state is to the end; the final verdict."""
        steps = self.training.steps
        every = max(1, steps // METRIC_ROWS)
        checks = {round(share * steps) for share in CHECKS} if len(self.watch) >= 2 else set()
        with signals.heard(self._hear):
            record = Record(self.folder, self.state.lengths, self.state.step, self.sink) if self.first else NoRecord()
            try:
                return self._steps(record, checks, every)
            finally:
                record.close()

    def _steps(self, record: Record, checks: set[int], every: int) -> Verdict:
        steps, state = self.training.steps, self.state
        verdict: Verdict | None = None
        if state.step == 0 and checks:
            self._check(record)
        self.step.clock = Clock()
        saved = spoke = time.monotonic()
        batches = self.loader.ahead(state.step, steps)
        while state.step < steps:
            with self.step.clock.phase("waiting"):
                batch = next(batches)
            terms = self._step(batch)
            self._note(record, terms, state.step, every)
            state.step += 1
            if state.step in checks:
                verdict = self._check(record)
                if distributed.largest(int(self._hopeless(verdict))):
                    self._save(record)
                    raise StoppedByVerdict(verdict)
            now = time.monotonic()
            if now - spoke > 10 or state.step == steps:
                spoke = now
                self._speak(record, terms)
            if number := distributed.largest(self._signal):
                self._save(record)
                raise Interrupted(
                    f"interrupted after step {state.step} of {steps}; `tacit resume {self.folder.path}` goes on", number
                )
            if checkpoint.due(self.training.checkpoint_every, state.step, now - saved) or state.step == steps:
                self._save(record)
                saved = time.monotonic()
        return verdict or self._judge()

    def _step(self, batch: Batch) -> Terms:
        try:
            return self.step(batch, Progress(self.state.step, self.training.steps, self.loader.steps_per_epoch))
        except Stopped as stop:
            raise Stopped(f"{stop}; {self._last_good()}") from None

    def _last_good(self) -> str:
        exists = self.folder.last.exists()
        return f"last good checkpoint: {self.folder.last}" if exists else "no checkpoint was due yet"

    def diverged(self, reason: str) -> Verdict:
        """The verdict on a loss that is no number."""
        return judge(self._evidence(math.nan), self.setting, reason)

    def _note(self, record: Record, terms: Terms, step: int, every: int) -> None:
        if step % every and step + 1 < self.training.steps:
            return
        seen = {"loss": terms.total, **terms.parts, **terms.watch}
        means = distributed.mean(torch.stack([value.detach().float() for value in seen.values()])).tolist()
        values = dict(zip(seen, means, strict=True))
        loss, state = values["loss"] - sum(values.get(name, 0.0) for name in self.method.anchors), self.state
        state.chance = terms.chance
        if math.isnan(state.first_loss):
            state.first_loss = state.recent_loss = loss
        state.recent_loss += (loss - state.recent_loss) * 0.05
        row: dict[str, float | int | None] = {
            "step": step,
            "epoch": step / self.loader.steps_per_epoch,
            "lr": self.step.optimiser.param_groups[0]["lr"] / self.step.optimiser.param_groups[0]["lr_scale"],
        }
        record.metric(row | values | {"chance": terms.chance})

    def _check(self, record: Record) -> Verdict:
        """Look at the held-back samples, keep the best, say how it goes. The first rank looks for all."""
        whole = self.step.whole()
        better = self._look(record, whole) if self.first else False
        distributed.meet()
        if distributed.largest(int(better)):
            self._save(record, best=True)
        return self._judge()

    def _look(self, record: Record, method: Method) -> bool:
        """Whether the encoder is the best so far."""
        state, seen = self.state, (method.encoder, method.projector, self.step.device)
        if state.step == 0:
            now, (state.untrained, state.scores["untrained"]) = self.watch.look_untrained(*seen)
            state.raw, state.scores["input"] = self.watch.look_at_input()
        else:
            now = self.watch.look(*seen)
        state.figures = now.figures | self.watch.compare(now, state.scores)
        probed = {} if self.probe is None else {"probe_knn": self.probe(method.encoder, self.step.device)}
        record.figure({"step": state.step, **state.figures, **probed})
        verdict = self._judge()
        rank = state.figures.get("place_rank", state.figures["effective_rank"])
        if state.step > 0:
            self.say(f"step {state.step}: {verdict.verdict} - {verdict.reasons[0]}; effective rank {rank:.1f}")
        if probed:
            self.say(f"step {state.step}: k-NN on labelled data {probed['probe_knn']:.1%}")
        better = rank > state.best_rank and state.step > 0
        if better:
            state.best_rank = rank
        return better

    def _hopeless(self, verdict: Verdict) -> bool:
        early = verdict.step < self.training.steps
        return self.first and early and self.training.stop_on == "collapse" and verdict.verdict in ("collapsed", "diverged")

    def _judge(self) -> Verdict:
        return judge(self._evidence(self.state.recent_loss), self.setting)

    def _evidence(self, loss: float) -> Evidence:
        s = self.state
        return Evidence(s.figures, s.untrained, s.raw, loss, s.first_loss, s.chance, len(self.watch), s.step)

    def _speak(self, record: Record, terms: Terms) -> None:
        row = record.lap(self.state.step, self.step.clock, self.step.device)
        loss = float(terms.total.detach())
        self.tell(self.state.step, loss, row, self._judge().verdict)
        shares = ", ".join(f"{name[6:]} {row[name]:.0%}" for name in row if name.startswith("share_"))
        self.say(
            f"step {self.state.step}/{self.training.steps}  loss {loss:.4f}  "
            f"{row['samples_per_second']:.0f} samples/s ({shares})  {row['memory_mb']:.0f} MB"
        )

    # Checkpoints and signals ------------------------------------------------------------------------------------------

    def _save(self, record: Record, best: bool = False) -> None:
        if not self.step.sound():
            raise Stopped(f"after step {self.state.step} the weights are no longer finite; {self._last_good()}")
        self.state.lengths = record.flush()
        content = {
            **self.step.state_dict(),
            "state": self.state.to_dict(),
            "skipped": dict(self.loader.skipped),
        }
        if self.first:
            checkpoint.save(self.folder.best if best else self.folder.last, content)
        distributed.meet()

    def restore(self) -> None:
        """Take up the last checkpoint."""
        content = checkpoint.load(self.folder.last)
        try:
            self.step.load_state_dict(content)
            self.state = State(**content["state"])
            self.loader.skipped.update(content["skipped"])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as problem:
            raise TacitError(
                f"{self.folder.last} does not fit this run ({said(problem)}); restore it, or remove it to start again"
            ) from problem

    def _hear(self, number: int) -> None:
        """A signal ends the run after the step at hand."""
        self._signal = number


class StoppedByVerdict(Stopped):
    """A collapse or divergence ended the run early."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(f"{verdict.verdict} after {verdict.step} steps: {verdict.reasons[0]}; try: {verdict.advice[0]}")
        self.verdict = verdict
