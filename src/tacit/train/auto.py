"""The recipe `auto`: values that suit the data, the machine and the time, each with its reason. See `docs/recipes.md`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.data.store import useful_side
from tacit.data.survey import Survey
from tacit.methods.method import Chosen, Facts, Method, Options
from tacit.nn import build
from tacit.train.config import Training, validated
from tacit.train.schedule import scaled

DEFAULT_MINUTES = 20.0
SHARE_FOR_STEPS = 0.9
"""Of the time; the rest goes to the verdict, checkpoints and pictures."""

MOST_EPOCHS = 800
"""Where nobody set the time: more passes over the same few samples have stopped paying long before."""

HELD_BACK = "a tenth, 512 at most, 64 at least where a quarter is as many"

USUAL_RATES = {"sgd": 0.06, "lars": 0.3, "lars-simclr": 0.3}
"""Per 256 samples, where somebody asks for another optimiser than the method's own: AdamW's rates are no use to these."""

ENOUGH_STEPS = 1000
"""Below this many steps a smaller batch is worth more than more negatives."""


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

    def fixed_steps(self, epoch_steps: int, batch: int) -> tuple[int, str] | None:
        """Steps and where they come from, where the budget is not in minutes."""
        if self.steps is not None:
            return self.steps, "given"
        if self.epochs is not None:
            return max(1, round(self.epochs * epoch_steps)), f"given: {self.epochs:g} epochs"
        if self.samples is not None:
            return max(1, self.samples // batch), f"given: {self.samples} samples"
        return None


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
    elapsed: Callable[[], float] = lambda: 0.0
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def held_back(self) -> int:
        """How many samples the verdict looks at: a tenth, 512 at most; of small sets 64, or a quarter."""
        samples = self.seen.samples
        return self.training.get("held_back", min(512, max(samples // 10, min(64, samples // 4))))

    @property
    def kept(self) -> int:
        """How many samples there are to train on."""
        return self.seen.samples - self.held_back

    @property
    def minutes(self) -> float:
        return self.budget.minutes or DEFAULT_MINUTES

    def facts(self, chosen: dict[str, Chosen]) -> Facts:
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
            width=_width(chosen["train.encoder"].value, self.spec.channels, chosen["train.size"].value),
            **{name: chosen[f"train.{name}"].value for name in ("batch", "steps", "size", "encoder")},
        )

    def seconds(self, chosen: dict[str, Chosen]) -> float:
        """Measured, of one step with the values chosen so far and the method's own rules for the rest."""
        values = chosen | self.method.auto(self.facts(chosen))
        options = {name: choice.value for name, choice in values.items() if not name.startswith("train.")}
        training = {name[6:]: choice.value for name, choice in values.items() if name.startswith("train.")}
        return self.measure(
            validated(self.method.Options, options | self.options, self.method.name),
            validated(Training, training | self.training, "training"),
        )


def fitted(now: Situation) -> dict[str, Chosen]:
    """Every value that `auto` has an opinion on."""
    chosen: dict[str, Chosen] = {"train.held_back": Chosen(now.held_back, HELD_BACK)}
    chosen["train.size"] = _said(now, "size") or _size(now)
    chosen["train.encoder"] = _said(now, "encoder") or _encoder(now, chosen["train.size"].value)
    chosen["train.batch"] = _said(now, "batch") or _batch(now)
    if (batch := chosen["train.batch"].value) > now.kept:  # before a step of it is tried
        raise TacitError(f"{now.kept} samples to train on are fewer than one batch of {batch}; give a smaller one or more data")
    chosen["train.steps"] = Chosen(2000, "until the pace is known")
    chosen["train.precision"], pace = _precision(now, chosen)
    fixed = now.budget.fixed_steps(now.kept // chosen["train.batch"].value, chosen["train.batch"].value)
    if fixed is not None:
        chosen["train.steps"] = Chosen(*fixed)
    else:
        chosen |= _steps(now, chosen, pace)
    steps = chosen["train.steps"].value
    chosen["train.warmup"] = Chosen(min(steps // 2, max(20, round(0.05 * steps))), "5 % of the steps, at least 20")
    if side := useful_side(chosen["train.size"].value, now.spec.size):
        chosen["train.store_side"] = Chosen(side, "one and a half times the view: what crops can use")
    rules = now.method.auto(now.facts(chosen))
    if (optimiser := now.training.get("optimiser")) in USUAL_RATES:
        rules["train.lr"] = Chosen(scaled(USUAL_RATES[optimiser], chosen["train.batch"].value), f"usual for {optimiser}")
    return chosen | rules | (_gentle(rules) if "init" in now.training else {})


@cache
def _width(encoder: str, channels: int, size: int) -> int:
    return build.encoder(encoder, channels, size).width


def _gentle(rules: dict[str, Chosen]) -> dict[str, Chosen]:
    """What suits an encoder that has learned before: published rates wipe out what it knows."""
    rate = rules["train.lr"]
    return {
        "train.lr": Chosen(0.3 * rate.value, f"a third of {rate.reason}: the encoder has learned before"),
        "train.layer_decay": Chosen(0.75, "the encoder has learned before, its lower layers most"),
    }


def _said(now: Situation, name: str) -> Chosen | None:
    return Chosen(now.training[name], "given") if name in now.training else None


def _size(now: Situation) -> Chosen:
    side = min(now.spec.size)
    if now.device != "cpu":
        most = 128 if now.minutes <= 30 else 224
    elif now.minutes <= 4 and not now.method.tokens:  # patches grow with the view, so that tokens are no fewer in a small one
        most = 32
    else:
        most = 64 if now.minutes <= 30 else 96
    if side > most:
        return Chosen(most, f"{side} pixels would be too slow for {now.minutes:g} minutes on this {now.device}")
    fitting = [size for size in range(side, 3, -1) if _patch(now, size) * 6 <= size and (size % 4 == 0 or side < 16)]
    return Chosen(fitting[0] if fitting else max(side, 4), f"samples are {side} pixels")


def _patch(now: Situation, size: int) -> int:
    """The smallest patch that divides a view into not too many tokens."""
    most_tokens = 144 if now.device == "cpu" else 200
    return next(p for p in range(1, size + 1) if size % p == 0 and (size // p) ** 2 <= most_tokens)


def _encoder(now: Situation, size: int) -> Chosen:
    patch = _patch(now, size)
    if now.method.tokens:
        name = "vit-mini" if now.device == "cpu" else "vit-small"
        return Chosen(f"{name}/{patch}", f"{now.method.name} hides tokens; {(size // patch) ** 2} of them suit {size} pixels")
    if now.device == "cpu":
        return Chosen("resnet-mini", "trains quickly on a processor")
    if now.kept < 20_000:
        return Chosen("resnet18", f"{now.kept} samples are few for a transformer")
    return Chosen(f"vit-small/{patch}", f"{now.kept} samples and a GPU")


def _batch(now: Situation) -> Chosen:
    batch = 256
    while batch > 32 and batch > now.kept / 8:
        batch //= 2
    return Chosen(max(2, min(batch, now.kept)), f"{now.kept} samples")


def _precision(now: Situation, chosen: dict[str, Chosen]) -> tuple[Chosen, float]:
    """The faster arithmetic for this very step, and its seconds. A processor without the instructions emulates bfloat16."""
    if (said := _said(now, "precision")) is not None:
        # A number of steps that is given needs no pace.
        timed = now.budget.fixed_steps(1, 1) is None
        return said, now.seconds(chosen | {"train.precision": said}) if timed else 0.0
    if now.device == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        choice = Chosen("bfloat16", "the device multiplies in it") if able else Chosen("float32", "the device has no bfloat16")
        return choice, now.seconds(chosen | {"train.precision": choice})
    if now.device == "mps":
        return (choice := Chosen("float32", "the safe choice on mps")), now.seconds(chosen | {"train.precision": choice})
    wide, narrow = (now.seconds(chosen | {"train.precision": Chosen(name, "")}) for name in ("float32", "bfloat16"))
    if narrow < 0.9 * wide:
        return Chosen("bfloat16", f"a step takes {narrow:.2f} s, in float32 {wide:.2f} s"), narrow
    return Chosen("float32", f"a step takes {wide:.2f} s, in bfloat16 {narrow:.2f} s"), wide


def _steps(now: Situation, chosen: dict[str, Chosen], pace: float) -> dict[str, Chosen]:
    """As many steps as the time holds, of a smaller batch where they would be few."""
    batch = chosen["train.batch"]
    left = max(60 * now.minutes * SHARE_FOR_STEPS - now.elapsed(), 1.0)
    while "batch" not in now.training and batch.value > 64 and left / pace < ENOUGH_STEPS:
        batch = Chosen(batch.value // 2, f"halved, so that {now.minutes:g} minutes hold more steps")
        pace = now.seconds(chosen | {"train.batch": batch})
        left = max(60 * now.minutes * SHARE_FOR_STEPS - now.elapsed(), 1.0)
    count = max(1, int(left / pace))
    most = max(ENOUGH_STEPS, MOST_EPOCHS * (now.kept // batch.value))
    if now.budget.minutes is None and count > most:
        return {"train.batch": batch, "train.steps": Chosen(most, f"{MOST_EPOCHS} passes over {now.kept} samples are enough")}
    steps = Chosen(count, f"{now.minutes:g} minutes at {pace * 1000:.0f} ms a step, measured")
    return {"train.batch": batch, "train.steps": steps}
