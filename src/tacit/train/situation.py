"""What `auto` knows when it chooses: the method, the data, the machine and the time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.data.survey import Survey
from tacit.methods.method import Chosen, Facts, Method, Options
from tacit.nn import build
from tacit.train.config import Training, validated

DEFAULT_MINUTES = 20.0

BRIEF = 4.0
"""Up to so many minutes a processor makes few steps."""


@dataclass(frozen=True)
class Budget:
    """How long a run may be; at most one of these is set."""

    minutes: float | None = None
    epochs: float | None = None
    steps: int | None = None
    samples: int | None = None

    def __post_init__(self) -> None:
        said = [name for name, value in vars(self).items() if value is not None]
        if len(said) > 1:
            raise TacitError(f"--{said[0]} and --{said[1]} contradict each other; give one of them")
        for name in said:
            if not getattr(self, name) > 0:
                raise TacitError(f"--{name} {getattr(self, name)}: it has to be above 0")

    def part(self, share: float) -> Budget:
        """So much of the minutes; whatever else is counted is counted for every run by itself."""
        return self if self.minutes is None else Budget(minutes=share * self.minutes)

    def fixed_steps(self, epoch_steps: int, batch: int) -> tuple[int, str] | None:
        """Steps and where they come from, where the budget is not in minutes."""
        if self.steps is not None:
            return self.steps, "given"
        if self.epochs is not None:
            return max(1, round(self.epochs * epoch_steps)), f"given: {self.epochs:g} epochs"
        if self.samples is not None:
            return max(1, self.samples // batch), f"given: {self.samples} samples"
        return None


class Reading(NamedTuple):
    """What it takes to get at samples.

    Attributes:
        once: seconds until all of them are decoded; 0 where they are, infinite where they will not be.
        each: seconds of a sample that is decoded as it goes, by all workers together.
    """

    once: float = 0.0
    each: float = math.inf


@dataclass(frozen=True)
class Situation:
    """What is known before anything is decided.

    Attributes:
        method: the system.
        spec, seen: what samples look like, and what was seen of them.
        mirrored: whether a mirror image means the same, where somebody said so.
        budget: how long the run may be.
        device: `cpu`, `cuda` or `mps`.
        measure: seconds of a step with these values, measured.
        weigh: share of the device's memory that such a step keeps, measured.
        look: seconds that the verdict takes in a run with them, measured.
        read: what it takes to decode samples for such a run, measured.
        elapsed: seconds of the budget that are already spent.
        options, training: what the user set.
    """

    method: type[Method]
    spec: Spec
    seen: Survey
    mirrored: bool | None
    budget: Budget
    device: str
    measure: Callable[[Options, Training], float]
    weigh: Callable[[Options, Training], float] = lambda options, training: 0.0
    look: Callable[[Options, Training], float] = lambda options, training: 0.0
    read: Callable[[Options, Training], Reading] = lambda options, training: Reading()
    elapsed: Callable[[], float] = lambda: 0.0
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def held_back(self) -> int:
        """How many samples the verdict looks at: a tenth, 512 at most, 256 in a brief run; of small sets 64, or a quarter."""
        samples, most = self.seen.samples, 256 if self.brief else 512
        return self.training.get("held_back", min(most, max(samples // 10, min(64, samples // 4))))

    @property
    def brief(self) -> bool:
        """Whether steps are few, so that whatever else takes time has to be small."""
        return self.device == "cpu" and self.minutes <= BRIEF

    @property
    def kept(self) -> int:
        """How many samples there are to train on."""
        return self.seen.samples - self.held_back

    @property
    def minutes(self) -> float:
        return self.budget.minutes or DEFAULT_MINUTES

    def facts(self, chosen: dict[str, Chosen], extent: tuple[int, ...]) -> Facts:
        mirrored = self.mirrored
        if mirrored is None and self.seen.sparse > 0.5 and self.spec.channels == 1:
            mirrored = False  # drawings on an empty ground: glyphs and symbols change their meaning in a mirror
        return Facts(
            spec=self.spec,
            samples=self.kept,
            duplicates=self.seen.duplicates,
            sparse=self.seen.sparse,
            flat=self.seen.flat,
            mirrored=mirrored,
            device=self.device,
            captions=self.seen.captions,
            width=_width(chosen["train.encoder"].value, self.spec.channels, extent),
            extent=extent,
            **{name: chosen[f"train.{name}"].value for name in ("batch", "steps", "size", "encoder")},
        )

    def seconds(self, chosen: dict[str, Chosen], extent: tuple[int, ...]) -> float:
        """Measured, of one step with the values chosen so far and the method's own rules for the rest."""
        return self.measure(*self._values(chosen, extent))

    def memory(self, chosen: dict[str, Chosen], extent: tuple[int, ...]) -> float:
        """Measured share of the device's memory that such a step keeps."""
        return self.weigh(*self._values(chosen, extent))

    def verdict_seconds(self, chosen: dict[str, Chosen], extent: tuple[int, ...]) -> float:
        """Measured, of all that the verdict looks at in such a run."""
        return self.look(*self._values(chosen, extent))

    def reading(self, chosen: dict[str, Chosen], extent: tuple[int, ...]) -> Reading:
        """Measured: what it takes to decode samples for such a run."""
        return self.read(*self._values(chosen, extent))

    def _values(self, chosen: dict[str, Chosen], extent: tuple[int, ...]) -> tuple[Options, Training]:
        values = chosen | self.method.auto(self.facts(chosen, extent))
        options = {name: choice.value for name, choice in values.items() if not name.startswith("train.")}
        training = {name[6:]: choice.value for name, choice in values.items() if name.startswith("train.")}
        return (
            validated(self.method.Options, options | self.options, self.method.name),
            validated(Training, training | self.training, "training"),
        )


@cache
def _width(encoder: str, channels: int, extent: tuple[int, ...]) -> int:
    return build.encoder(encoder, channels, extent).width
