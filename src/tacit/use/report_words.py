"""The words that a report uses for verdicts and figures, and how it writes numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Meaning:
    """A figure in words.

    Attributes:
        words: its name for people.
        says: what it tells.
        share: whether it is a share, shown as per cent.
        better: whether more is better, also than raw input has; most figures only warn.
    """

    words: str
    says: str
    share: bool = False
    better: bool = False


@dataclass(frozen=True)
class Headline:
    """A verdict for people: a few words, what they mean for whoever wants to use the encoder, and the tone of the page."""

    words: str
    means: str
    tone: str


HEADLINES = {
    "learned": Headline("It learned", "The features hold more than those of the same network untrained.", "good"),
    "undecided": Headline("Undecided", "The figures do not say yet whether it learned.", "open"),
    "collapsed": Headline("It collapsed", "Different samples have become alike to this encoder: it is of no use.", "bad"),
    "diverged": Headline("It diverged", "Training ran away: this encoder is of no use.", "bad"),
}
NO_HEADLINE = Headline("No verdict yet", "The run writes one at its first check.", "open")

MEANINGS = {
    "second_view": Meaning(
        "second view found",
        "share of held-back samples whose second view lies nearer than any other sample's",
        share=True,
        better=True,
    ),
    "effective_rank": Meaning("effective rank", "how many directions the features really use; 1 is a total collapse"),
    "place_rank": Meaning("effective rank of places", "the same of features of places, for methods that tell these apart"),
    "spread": Meaning("spread", "how much features vary over samples; 0 is a collapse, about 1 is every direction alike"),
    "uniformity": Meaning("uniformity", "how evenly features fill the sphere; lower is more even"),
    "alignment": Meaning("alignment", "squared distance between two views of a sample; small alone proves nothing"),
    "crops_ahead_of_untrained": Meaning(
        "crops found, ahead of untrained", "by so many standard errors; above 2 is more than luck"
    ),
    "crops_ahead_of_input": Meaning("crops found, ahead of raw input", "by so many standard errors; above 2 is more than luck"),
    "light_ahead_of_untrained": Meaning(
        "other values found, ahead of untrained",
        "whole samples whose light, colour or features differ; by so many standard errors; above 2 is more than luck",
    ),
    "light_ahead_of_input": Meaning(
        "other values found, ahead of raw input",
        "whole samples whose light, colour or features differ; by so many standard errors; above 2 is more than luck",
    ),
    "alpha_req": Meaning("spectral decay", "exponent with which the spectrum falls (alpha-ReQ); near 1 is good"),
    "loss": Meaning("loss", "what training lowered; compare it with chance, not with other methods"),
    "chance": Meaning("loss at chance", "what the loss is when nothing was learned"),
    "teacher_entropy": Meaning("teacher entropy", "how undecided the teacher's targets are; 0 and the maximum are collapses"),
    "gradient_norm": Meaning("gradient norm", "length of the whole gradient before clipping"),
    "lr": Meaning("learning rate", ""),
}

NOTHING = "\N{EN DASH}"
"""What stands where there is no figure."""

SAMPLES = {
    "channels": "Each channel is a grey picture of its own.",
    "pair": "A picture, and what is said of it.",
    "points": "From above and from the side, brighter where points lie close. Drag a cloud to turn it, or use the arrow keys.",
    "video": "Its first, middle and last frame.",
    "volume": "Slices through the middle: from above, from the front and from the side; up and the front are above.",
}
"""What the picture of a sample shows, by kind, where that is not plain."""

ENCODERS = {"run": "this run", "untrained": "untrained", "input": "raw input"}
"""The three that every figure is told for, in the order of the page."""

METRICS = {
    "top1": "accuracy",
    "top5": "right class among five",
    "balanced": "accuracy, mean over classes",
    "accuracy": "accuracy, clusters matched to classes",
    "map": "mean average precision",
    "nmi": "normalised mutual information",
    "ari": "adjusted Rand index",
}

SHARES = (*METRICS, "top1_", "recall", "precision", "f1", "iou", "dice", "second_view")
"""What the names of metrics begin with that are shown as per cent."""


def meaning(name: str) -> Meaning:
    """What a figure is called and says; a name that nobody explained is shown as it is."""
    if name in MEANINGS:
        return MEANINGS[name]
    for part in ("projector", "encoder"):
        plain = name.replace(part, "").strip("._/ ").replace("__", "_").replace("..", ".")
        if part in name and plain in MEANINGS:
            known = MEANINGS[plain]
            return Meaning(f"{known.words}, {part}", known.says, known.share, known.better)
    return Meaning(name.replace("_", " ").replace(".", ", "), "")


def metric_words(metric: str) -> str:
    """A protocol's metric for people."""
    if metric in MEANINGS:
        return MEANINGS[metric].words
    if labels := re.fullmatch(r"top1_(\d+)_per_class", metric):
        return f"accuracy, {labels[1]} label{'s' if labels[1] != '1' else ''} a class"
    return METRICS.get(metric, metric.replace("_", " ").replace("@", " at "))


def is_share(metric: str) -> bool:
    return metric.lower().startswith(SHARES)


def direction(metric: str) -> int:
    """1 where more is better, -1 where less is, 0 where neither."""
    if metric in MEANINGS:
        return int(MEANINGS[metric].better)
    worse = metric.lower().endswith(("loss", "error", "distance", "mse")) or metric.startswith(("mean_rank", "median_rank"))
    return -1 if worse else 1


def number(value: Any) -> str:
    """A number with as many digits as a reader can use; other things as they are, nothing as a dash."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    whole = isinstance(value, int) or 1000 <= abs(value) < 1e9
    return with_minus(f"{value:,.0f}" if whole else f"{value:.3g}")


def with_minus(text: str) -> str:
    """A number's hyphen as the minus sign, which is as wide as a digit."""
    return text.replace("-", "\N{MINUS SIGN}")


def percent(value: float) -> str:
    return with_minus(f"{100 * value:.1f}\N{NO-BREAK SPACE}%")


def figure(name: str, value: Any) -> str:
    """A verdict's figure as text: per cent for shares, else a number."""
    share = meaning(name).share and isinstance(value, (int, float))
    return percent(value) if share else number(value)
