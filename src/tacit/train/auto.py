"""The recipe `auto`: values that suit the data, the machine and the time, each with its reason. See `docs/recipes.md`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from tacit.core.errors import TacitError
from tacit.data.kinds.kind import useful_side
from tacit.methods.method import Chosen
from tacit.train.fits import fit_of
from tacit.train.folder import training_of
from tacit.train.schedule import scaled
from tacit.train.situation import Situation

SHARE_FOR_STEPS = 0.95
"""Of the time that the verdict leaves; the rest goes to checkpoints and pictures."""

MOST_EPOCHS = 800
"""Where nobody set the time: more passes over the same few samples have stopped paying long before."""

LARGEST = 256
"""Batch, where samples are many."""

SHARE_FOR_BATCH = 0.5
"""Of the memory, for what a step keeps; the rest is for weights, views and whatever else runs."""

HELD_BACK = "a tenth, 512 at most (256 in a brief run), 64 at least where a quarter is as many"

USUAL_RATES = {"sgd": 0.06, "lars": 0.3, "lars-simclr": 0.3}
"""Per 256 samples, where somebody asks for another optimiser than the method's own: AdamW's rates are no use to these."""

MUCH_MORE = 4
"""An earlier run that saw so many times as many samples taught its encoder what this one must not undo."""

ENOUGH_STEPS, FEWEST = 1000, 64
"""Below so many steps a smaller batch is worth more than more negatives, but for batches as small as this."""

ENOUGH_EACH, FEWEST_REBUILT = 40, 32
"""The same for methods that rebuild each sample by itself, which others tell little: steps for each sample of a batch."""


def fitted(now: Situation) -> dict[str, Chosen]:
    """Every value that `auto` has an opinion on."""
    chosen: dict[str, Chosen] = {"train.held_back": Chosen(now.held_back, HELD_BACK)}
    fit = fit_of(now.spec.kind)
    chosen["train.size"] = _said(now, "size") or fit.size(now)
    chosen["train.encoder"] = _said(now, "encoder") or fit.encoder(now, chosen["train.size"].value)
    chosen["train.feature_size"] = _said(now, "feature_size") or fit.feature_size(now, chosen["train.size"].value)
    extent = fit.extent(now, chosen["train.size"].value)
    shown = chosen["train.feature_size"].value or chosen["train.size"].value
    # Before any step is tried: whole photographs would be many times as much to cut views from.
    if side := useful_side(now.spec.kind, shown, now.spec.size):
        chosen["train.store_side"] = Chosen(side, "one and a half times the view: what crops can use")
    chosen["train.steps"] = Chosen(2000, "until the pace is known")
    chosen["train.batch"] = _said(now, "batch") or _batch(now, chosen, extent, fit.fewest)
    if (batch := chosen["train.batch"].value) > now.kept:  # before a step of it is tried
        raise TacitError(f"{now.kept} samples to train on are fewer than one batch of {batch}; give a smaller one or more data")
    chosen["train.precision"], pace = _precision(now, chosen, extent)
    long, ruled = _counted(now, chosen["train.batch"]) or _timed(now, chosen, extent, pace)
    chosen |= long
    steps = chosen["train.steps"].value
    chosen["train.warmup"] = Chosen(min(steps // 2, max(20, round(0.05 * steps))), "5 % of the steps, at least 20")
    rules = now.method.auto(now.facts(chosen | {"train.steps": ruled}, extent))
    if (optimiser := now.training.get("optimiser")) in USUAL_RATES:
        rules["train.lr"] = Chosen(scaled(USUAL_RATES[optimiser], chosen["train.batch"].value), f"usual for {optimiser}")
    return chosen | rules | _gentle(now.training.get("init"), rules, steps * chosen["train.batch"].value)


def _gentle(init: object, rules: dict[str, Chosen], seen: int) -> dict[str, Chosen]:
    """What suits an encoder that has learned much more than this run of so many samples will teach it.

    The usual rates wipe out what it knows; after a run as short as this one they are what it still learns by.
    """
    earlier = training_of(init)
    if not init or (earlier and earlier["steps"] * earlier["batch"] <= MUCH_MORE * seen):
        return {}
    rate = rules["train.lr"]
    return {
        "train.lr": Chosen(0.3 * rate.value, f"a third of {rate.reason}: the encoder has learned long before"),
        "train.layer_decay": Chosen(0.75, "the encoder has learned long before, its lower layers most"),
    }


def _said(now: Situation, name: str) -> Chosen | None:
    return Chosen(now.training[name], "given") if name in now.training else None


def _batch(now: Situation, chosen: dict[str, Chosen], extent: tuple[int, ...], fewest: int) -> Chosen:
    """At most an eighth of the samples, and no more than fit into the memory, unless that is less than `fewest`."""
    batch, why = LARGEST, f"{now.kept} samples"
    while batch > fewest and batch > now.kept / 8:
        batch //= 2
    if batch > fewest:
        share = now.memory(chosen | {"train.batch": Chosen(fewest, "weighed")}, extent) * batch / fewest
        while batch > fewest and share > SHARE_FOR_BATCH:
            batch, share, why = batch // 2, share / 2, f"a step of {batch} would take {share:.0%} of the memory"
    return Chosen(max(2, min(batch, now.kept)), why)


def _precision(now: Situation, chosen: dict[str, Chosen], extent: tuple[int, ...]) -> tuple[Chosen, float]:
    """The faster arithmetic for this very step, and its seconds. A processor without the instructions emulates bfloat16."""
    if (said := _said(now, "precision")) is not None:
        # A number of steps that is given needs no pace.
        timed = now.budget.fixed_steps(1, 1) is None
        return said, now.seconds(chosen | {"train.precision": said}, extent) if timed else 0.0
    if now.device == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        choice = Chosen("bfloat16", "the device multiplies in it") if able else Chosen("float32", "the device has no bfloat16")
        return choice, now.seconds(chosen | {"train.precision": choice}, extent)
    if now.device == "mps":
        return (choice := Chosen("float32", "the safe choice on mps")), now.seconds(
            chosen | {"train.precision": choice}, extent
        )
    wide, narrow = (now.seconds(chosen | {"train.precision": Chosen(name, "")}, extent) for name in ("float32", "bfloat16"))
    if narrow < 0.9 * wide:
        return Chosen("bfloat16", f"a step takes {narrow:.2f} s, in float32 {wide:.2f} s"), narrow
    return Chosen("float32", f"a step takes {wide:.2f} s, in bfloat16 {narrow:.2f} s"), wide


def _worth_halving(now: Situation, batch: Chosen, steps: int) -> bool:
    """Whether a run of so many steps gains by more steps of a smaller batch, where nobody said which."""
    rebuilds = now.method.rebuilds
    fewest, enough = (FEWEST_REBUILT, ENOUGH_EACH * batch.value) if rebuilds else (FEWEST, ENOUGH_STEPS)
    return "batch" not in now.training and batch.value > fewest and steps < enough


def _counted(now: Situation, batch: Chosen) -> tuple[dict[str, Chosen], Chosen] | None:
    """The steps of a budget that is not in minutes, of a smaller batch where so many samples or epochs would be few of them.

    Returns:
        Batch and steps, and the steps by which the method chooses its options (the same); None where there are minutes.
    """

    def fixed() -> tuple[int, str] | None:
        return now.budget.fixed_steps(now.kept // batch.value, batch.value)

    while now.budget.steps is None and (found := fixed()) and _worth_halving(now, batch, found[0]):
        batch = Chosen(batch.value // 2, "halved for more steps")
    if (found := fixed()) is None:
        return None
    return {"train.batch": batch, "train.steps": (steps := Chosen(*found))}, steps


def _timed(now: Situation, chosen: dict[str, Chosen], extent: tuple[int, ...], pace: float) -> tuple[dict[str, Chosen], Chosen]:
    """As many steps as the time holds, of a smaller batch where they would be few.

    Samples are decoded before the first step or as it goes: whichever leaves time for more steps.

    Returns:
        Batch, steps, and whether to keep samples where that was decided; and the steps by which the method chooses its options.
    """
    batch, first = chosen["train.batch"], chosen["train.steps"].value
    looks = min(now.verdict_seconds(chosen, extent), 30 * now.minutes)
    read, may_go = now.reading(chosen, extent), "store" not in now.training

    def ways(pace: float) -> tuple[float, float]:
        """How many steps fit whose samples come from a store, and how many whose samples are decoded meanwhile."""
        left = max((60 * now.minutes - looks) * SHARE_FOR_STEPS - now.elapsed(), 1.0)
        decoding = read.each * batch.value
        meanwhile = pace + decoding if now.device == "cpu" else max(pace, decoding)  # a processor does one or the other
        return (left - read.once) / pace, left / meanwhile if may_go or read.once == math.inf else 0.0

    def held(pace: float) -> int:
        return max(1, int(max(ways(pace))))

    def timed(steps: int) -> float:
        return now.seconds(chosen | {"train.batch": batch, "train.steps": Chosen(steps, "tried")}, extent)

    while _worth_halving(now, batch, held(pace)):
        batch = Chosen(batch.value // 2, f"halved, so that {now.minutes:g} minutes hold more steps")
        pace = timed(first)
    steps, ruled, pace = _fitting(held, timed, first, pace)
    most = max(ENOUGH_STEPS, MOST_EPOCHS * (now.kept // batch.value))
    why = f"{now.minutes:g} minutes at {pace * 1000:.0f} ms a step, measured"
    stored, going = ways(pace)
    found = {}
    if going > stored and may_go:
        why += f", and {1000 * read.each:.2g} ms to decode a sample"
        if read.once < math.inf:
            found["train.store"] = Chosen("never", f"to decode all samples first would take {read.once:.0f} s")
    if now.budget.minutes is None and steps > most:
        steps, ruled, why = most, min(ruled, most), f"{MOST_EPOCHS} passes over {now.kept} samples are enough"
    return found | {"train.batch": batch, "train.steps": Chosen(steps, why)}, Chosen(ruled, why)


def _fitting(held: Callable[[float], int], timed: Callable[[int], float], steps: int, pace: float) -> tuple[int, int, float]:
    """The steps that fit, with the options of so many, which may be other ones than those that were timed first.

    Options that get dearer from some number of steps on can leave none that fills the time: fewer would not, more would take
    too long. Then the cheap ones are kept for all the steps that fit with them.

    Args:
        held: how many steps fit at a pace.
        timed: the pace of a run with the options of so many steps.
        steps, pace: what was timed already.

    Returns:
        Steps, how many of them the options are chosen for, and the pace with these.
    """
    low, high, cheap = 0, math.inf, pace
    for _ in range(6):
        fit = held(pace)
        if abs(fit - steps) <= 0.1 * steps:
            return fit, min(steps, fit), pace
        if fit > steps:
            low, cheap = steps, pace
        else:
            high = steps
        steps = fit if low < fit < high else (low + int(high)) // 2
        if steps - low <= 0.1 * low:
            break
        pace = timed(steps)
    return (held(cheap), low, cheap) if low else (held(pace), steps, pace)
