"""Segmentation with a linear head on frozen features: every point, pixel or voxel of the test samples is given a class."""

from __future__ import annotations

import math
import statistics
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.evaluation.dense_few import FEW, few_samples
from tacit.evaluation.dense_reader import Reader
from tacit.evaluation.dense_task import DenseTask
from tacit.evaluation.features import held_out
from tacit.evaluation.outcome import Outcome

PLACES = 30_000
"""Labelled places of all training samples together that the head learns from, about as many of each sample."""

BALANCES = (0.0, 0.5, 1.0)
"""To choose from: a class counts for its number of places to the power of minus this."""

HELD_OUT = 0.2
"""The share of the training samples that chooses."""

STEPS = 100


@dataclass(frozen=True)
class Head:
    """A linear classifier of features as they are: `[D, K]` and `[K]`; a class that was never seen has the bias `-inf`."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Places:
    """Labelled places of training samples: features `[N, D]`, places in the classes `[N]`, and samples `[N]`."""

    x: np.ndarray
    y: np.ndarray
    sample: np.ndarray

    def take(self, rows: np.ndarray) -> Places:
        return Places(self.x[rows], self.y[rows], self.sample[rows])


def segmentation(reader: Reader, dense: DenseTask, seed: int = 0) -> Outcome:
    """Softmax regression on features of places; how much rare classes count is chosen by a fifth of the training samples.

    Returns:
        `iou` and `f1`, means over the classes, each over all test places together; `dice`, the mean over the classes (without
        the background, where there is one) and over the test samples that have the class, as it is reported of scans. With
        `_10_samples`, the same where the head learned from ten samples, the mean of several draws.
    """
    classes = len(dense.classes)
    places = _gathered(reader, dense, seed)
    balance = _chosen(places, classes, seed)
    heads = [_head(places, classes, balance)]
    heads += [_head(places.take(rows), classes, balance) for rows in few_samples(places.sample, seed)]
    counts = _counted(reader, dense, heads)  # [heads, samples, K, K]
    first = 0 if not reader.background or dense.classes[0] != 0 else 1
    full, *few = [figures(each, first) for each in counts]
    detail: dict[str, Any] = {"balance": balance, "train_places": len(places.y), "test_places": int(counts[0].sum())}
    for metric, by_class in by_classes(counts[0]).items():
        named = zip(dense.classes, by_class.tolist(), strict=True)
        detail[f"{metric}_by_class"] = {str(label): value for label, value in named if math.isfinite(value)}
    values, deviations = dict(full), {}
    for metric in full if few else ():
        drawn = [each[metric] for each in few]
        values[f"{metric}_{FEW}_samples"] = statistics.fmean(drawn)
        deviations[f"{metric}_{FEW}_samples"] = statistics.stdev(drawn)
    return Outcome(values, detail, deviations)


def by_classes(counts: Tensor) -> dict[str, Tensor]:
    """Of counts `[samples, truth K, answer K]`, float64 `[K]` each; NaN for a class that was neither there nor answered.

    Returns:
        `iou` and `f1` over all places together; `dice`, the mean over the samples that have the class.
    """
    each = counts.double()
    right, there, said = each.diagonal(dim1=1, dim2=2), each.sum(dim=2), each.sum(dim=1)  # [samples, K]
    hit, both = right.sum(dim=0), (there + said).sum(dim=0)
    dice = torch.where(there > 0, 2 * right / (there + said), torch.nan)
    return {"iou": hit / (both - hit), "f1": 2 * hit / both, "dice": dice.nanmean(dim=0)}


def figures(counts: Tensor, first: int = 0) -> dict[str, float]:
    """Means over the classes of `by_classes`, for Dice from the class `first` on."""
    found = by_classes(counts)
    shown = {"iou": found["iou"], "f1": found["f1"], "dice": found["dice"][first:]}
    return {name: float(values.nanmean()) for name, values in shown.items()}


def _gathered(reader: Reader, dense: DenseTask, seed: int) -> Places:
    each = -(-PLACES // len(dense.task.split.train))
    x, y, sample = [], [], []
    for batch, labels in dense.batches(dense.task.split.train):
        drawn = []
        for row, label in zip(batch.ids[:, None], labels, strict=True):
            known = (label >= 0).nonzero()[:, 0]
            if len(known) > each:
                known = known[Draws(seed, 0, row).within("dense").words("place", len(known))[0].argsort(stable=True)[:each]]
            drawn.append(known.sort().values)
        x += reader.features(batch, drawn)
        y += [label[known] for label, known in zip(labels, drawn, strict=True)]
        sample += [torch.full((len(known),), row) for row, known in zip(batch.ids.tolist(), drawn, strict=True)]
    found = Places(torch.cat(x).double().numpy(), torch.cat(y).numpy(), torch.cat(sample).numpy())
    if not np.isfinite(found.x).all():
        raise TacitError("features of places are not finite: the encoder diverged in training")
    if len(np.unique(found.y)) < 2:
        raise TacitError(f"the training samples of '{dense.task.name}' have one class only; give a training split with more")
    return found


def _chosen(places: Places, classes: int, seed: int) -> float:
    """The balance with which the samples set aside are segmented best; 0.5 where there are no two samples to divide."""
    samples, index = np.unique(places.sample, return_inverse=True)
    ids = torch.from_numpy(samples)
    aside = held_out(torch.zeros_like(ids), HELD_OUT, Draws(seed, 0, ids).within("dense")).numpy()[index]
    if not aside.any() or len(np.unique(places.y[~aside])) < 2:
        return 0.5
    rest, judges = places.take(np.flatnonzero(~aside)), places.take(np.flatnonzero(aside))
    found = {}
    for balance in BALANCES:
        head = _head(rest, classes, balance)
        answers = (torch.from_numpy(judges.x) @ head.weight + head.bias).argmax(dim=1)
        found[balance] = figures(_confusion(torch.from_numpy(judges.y), answers, classes)[None])["iou"]
    return max(found, key=found.__getitem__)


def _head(places: Places, classes: int, balance: float) -> Head:
    """Of features as they are; it is fitted on standardised ones, with scikit-learn's own penalty (C = 1)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    weight, bias = torch.zeros(places.x.shape[1], classes, dtype=torch.float64), torch.full((classes,), -math.inf).double()
    labels, index, count = np.unique(places.y, return_inverse=True, return_counts=True)
    mean, deviation = places.x.mean(axis=0), places.x.std(axis=0)
    # Rounding alone makes a constant dimension spread by about 1e-7 of its value: that is no signal to blow up.
    scale = np.where(deviation > 1e-6 * np.abs(mean), 1 / np.where(deviation > 0, deviation, 1), 0.0)
    if len(labels) == 1:  # a few samples may have one class alone
        bias[labels[0]] = 0.0
        return Head(weight, bias)
    of_each = (count.astype(np.float64) ** -balance)[index]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # so many steps and no more: it is the same for all encoders
        model = LogisticRegression(C=1.0, max_iter=STEPS)
        model.fit((places.x - mean) * scale, places.y, sample_weight=of_each / of_each.mean())
    coefficients, intercept = model.coef_, np.asarray(model.intercept_)
    if len(labels) == 2:  # of two classes scikit-learn gives the second one's margin
        coefficients, intercept = np.stack([0 * coefficients[0], coefficients[0]]), np.array([0.0, intercept[0]])
    fitted = coefficients * scale
    weight[:, labels] = torch.from_numpy(fitted.T.copy())
    bias[labels] = torch.from_numpy(intercept - fitted @ mean)
    return Head(weight, bias)


def _counted(reader: Reader, dense: DenseTask, heads: list[Head]) -> Tensor:
    """How often each class of a place was answered by each: int64 `[heads, samples, truth K, answer K]` on the test samples."""
    weight = torch.cat([head.weight for head in heads], dim=1).float()
    bias = torch.cat([head.bias for head in heads]).clamp(min=-1e30).float()  # weighted sums of -inf would be NaN
    counts = []
    for batch, labels in dense.batches(dense.task.split.test):
        for scores, label in zip(reader.scores(batch, weight, bias), labels, strict=True):
            answers = scores.unflatten(1, (len(heads), -1)).argmax(dim=2)  # [P, heads]
            known = label >= 0
            counts.append(torch.stack([_confusion(label[known], each, len(dense.classes)) for each in answers[known].T]))
    return torch.stack(counts, dim=1)


def _confusion(truth: Tensor, answers: Tensor, classes: int) -> Tensor:
    return torch.bincount(truth * classes + answers, minlength=classes**2).reshape(classes, classes)
