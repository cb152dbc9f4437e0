"""Where every value of a run comes from: the paper, the facts at hand, or the user."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tacit.core.errors import TacitError, one_of
from tacit.methods.method import Chosen, Options
from tacit.train.auto import HELD_BACK, fitted
from tacit.train.config import Training, option_owner, validated
from tacit.train.schedule import scaled
from tacit.train.situation import Budget, Situation

RECIPES = ("auto", "paper", "quick")
QUICK_MINUTES = 2.0


@dataclass(frozen=True)
class Recipe:
    """The resolved values of a run, and for each where it comes from: `paper`, `auto: why`, `given`, `default`.

    `usual` holds what the recipe would have taken in place of the given ones.
    """

    options: Options
    training: Training
    origin: dict[str, str]
    usual: dict[str, Any]


def resolve(recipe: str, situation: Situation, given: dict[str, Any], inherited: dict[str, Any] | None = None) -> Recipe:
    """Decide every value of a run.

    Args:
        recipe: `auto`, `quick` (auto within two minutes), `paper`, or `paper:NAME` for a further one of the paper's.
        situation: what is known before anything is decided; its `options` and `training` are filled in from `given`.
        given: what the user set, by option name; beats everything.
        inherited: what the method's needs leave no choice about.
    """
    method = situation.method
    columns = [f"paper:{column}" for column in method.paper_columns]
    one_of("recipe", recipe, (*RECIPES, *columns))
    known = (inherited or {}) | given
    for name, value in (inherited or {}).items():
        if known[name] != value:
            raise TacitError(f"what {method.name} goes on from has {name}={value}, not {given[name]}; leave it out")
    owners = {name: option_owner(name, method.Options, method.name) for name in known}
    mine = {name: value for name, value in known.items() if owners[name] == "method"}
    shared = {name: value for name, value in known.items() if owners[name] == "train"}
    budget = situation.budget
    if "steps" in shared:
        if budget != Budget():
            raise TacitError("--set steps=... and a budget contradict each other; give one of them")
        budget = Budget(steps=shared["steps"])
    if recipe == "quick" and budget == Budget():
        budget = Budget(minutes=QUICK_MINUTES)
    situation = replace(situation, budget=budget, options=mine, training=shared)
    named, _, column = recipe.partition(":")
    chosen = published(situation, column) if named == "paper" else fitted(situation)

    values: dict[str, dict[str, Any]] = {"method": {}, "train": {}}
    origin: dict[str, str] = {}
    label = "paper" if named == "paper" else "auto"
    for name, choice in chosen.items():
        owner, _, key = name.rpartition(".")
        values[owner or "method"][key] = choice.value
        said = choice.reason.startswith("given")
        origin[f"{owner or 'method'}.{key}"] = choice.reason if said else f"{label}: {choice.reason}"
    usual: dict[str, Any] = {}
    for owner, said, model in (("method", mine, method.Options), ("train", shared, Training)):
        usual |= {name: values[owner].get(name, model.model_fields[name].default) for name in said if name in given}
        values[owner] |= said
        origin |= {f"{owner}.{name}": "given" if name in given else "need: as what came first has it" for name in said}
    options = validated(method.Options, values["method"], method.name)
    training = validated(Training, values["train"], "training")
    for owner, model in (("method", options), ("train", training)):
        for name in type(model).model_fields:
            origin.setdefault(f"{owner}.{name}", "paper" if owner == "method" else "default")
    return Recipe(options, training, origin, usual)


def published(situation: Situation, column: str = "") -> dict[str, Chosen]:
    """The card's recipe: options stay at their defaults, which are the paper's, but for what a further column changes."""
    method, shared = situation.method, situation.training
    changed = method.paper_columns[column] if column else {}
    options = {name: value for name, value in changed.items() if name in method.Options.model_fields}
    card = {**method.paper_training, **{name: value for name, value in changed.items() if name not in options}}
    epochs, warmup_epochs, rate = card.pop("epochs", 0), card.pop("warmup_epochs", 0), card.pop("lr_per_256", None)
    batch = shared.get("batch", card["batch"])
    if batch > situation.kept:
        raise TacitError(
            f"the paper's batch of {batch} needs at least as many samples to train on, here are {situation.kept}; "
            "use --recipe auto, or --set batch=..."
        )
    if situation.budget.minutes is not None:
        raise TacitError("the paper's recipe is counted in epochs; use --epochs or --steps, or --recipe auto with --minutes")
    epoch_steps = situation.kept // batch
    usual = (card["steps"], "as published, in steps") if "steps" in card else (epochs * epoch_steps, f"{epochs} epochs")
    steps, why = situation.budget.fixed_steps(epoch_steps, batch) or usual
    warmup = Chosen(warmup_epochs * epoch_steps, f"{warmup_epochs} epochs")
    if "warmup" in card:
        warmup = Chosen(card.pop("warmup"), "as published, in steps")
    values = {name: Chosen(value, "as published") for name, value in card.items()}
    values |= {
        "batch": Chosen(batch, "as published"),
        "steps": Chosen(steps, why),
        "warmup": replace(warmup, value=min(steps // 2, warmup.value)),
        "held_back": Chosen(situation.held_back, HELD_BACK),
    }
    if rate is not None:  # else the paper's rate is the same for any batch
        values["lr"] = Chosen(scaled(rate, batch), f"{rate:g} x batch / 256")
    return {f"train.{name}": value for name, value in values.items()} | {
        name: Chosen(value, f"as published for {column}") for name, value in options.items()
    }
