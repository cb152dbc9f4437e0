"""Tokens judged by the classes of the places that they were made of: a linear support vector machine for each class."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.evaluation.dense_few import FEW, few_samples
from tacit.evaluation.dense_reader import Reader
from tacit.evaluation.dense_task import DenseTask
from tacit.evaluation.outcome import Outcome

TOKENS = 15_000
COMPONENTS, PENALTY = 128, 0.005
"""PoLAr-MAE's probe: so many training tokens, so many principal components, and C of the machines, classes balanced."""


def tokens(reader: Reader, dense: DenseTask, seed: int = 0) -> Outcome:
    """F1 of every class over the tokens of the test samples: does a token have a place of this class? Each on its own.

    Young, Jwa, Terao, "Particle Trajectory Representation Learning with Masked Point Modeling", 2025. Features are standardised
    first, so that no encoder is judged by the scale of its numbers.

    Returns:
        `f1`, the mean over the classes that test tokens have (without the background, where there is one); `f1_10_samples`, the
        same from the tokens of ten training samples, the mean of several draws; in the detail each class's own.
    """
    train_x, train_y, sample = _gathered(reader, dense, dense.task.split.train)
    test_x, test_y, _ = _gathered(reader, dense, dense.task.split.test)
    judged = [place for place, label in enumerate(dense.classes) if test_y[:, place].any() and (label or not reader.background)]
    if not judged:
        raise TacitError(f"no token of the test samples of '{dense.task.name}' has a class; give a test split with labels")
    drawn = Draws(seed, 0, torch.arange(len(train_x))).within("tokens").words("token", 1)[:, 0].argsort(stable=True)
    kept = np.sort(drawn[:TOKENS].numpy())

    def scores(rows: np.ndarray) -> dict[int, float]:
        return _scores(train_x[rows], train_y[rows], test_x, test_y, judged, seed)

    found = scores(kept)
    values = {"f1": statistics.fmean(found.values())}
    by_class = {str(dense.classes[place]): value for place, value in found.items()}
    detail: dict[str, Any] = {"f1_by_class": by_class, "train_tokens": len(kept), "test_tokens": len(test_x)}
    deviations = {}
    few = [statistics.fmean(scores(rows).values()) for rows in few_samples(sample, seed)]
    if few:
        name = f"f1_{FEW}_samples"
        values[name], deviations[name] = statistics.fmean(few), statistics.stdev(few)
    return Outcome(values, detail, deviations)


def _gathered(reader: Reader, dense: DenseTask, ids: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all tokens: features `[N, D]`, which classes their places have, bool `[N, K]`, and their samples, int64 `[N]`."""
    features, present, samples = [], [], []
    for batch, labels in dense.batches(ids):
        for row, tokens, label in zip(batch.ids.tolist(), reader.tokens(batch), labels, strict=True):
            # A class of no place (-1) is put into a column of its own, which is cut off.
            held = torch.where(tokens.members >= 0, label[tokens.members.clamp(min=0)], -1) + 1
            has = torch.zeros(len(held), len(dense.classes) + 1, dtype=torch.bool).scatter(1, held, True)[:, 1:]
            features.append(tokens.features)
            present.append(has)
            samples.append(torch.full((len(held),), row))
    x = torch.cat(features)
    if not x.isfinite().all():
        raise TacitError("features of tokens are not finite: the encoder diverged in training")
    return x.numpy(), torch.cat(present).numpy(), torch.cat(samples).numpy()


def _scores(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, judged: list[int], seed: int
) -> dict[int, float]:
    """F1 on test by class, of the classes `judged`; a class that all training tokens have, or none, is always answered so."""
    from sklearn.decomposition import PCA
    from sklearn.metrics import f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    components = min(COMPONENTS, *train_x.shape)
    with np.errstate(invalid="ignore"):  # of constant features no component says anything
        shown = make_pipeline(StandardScaler(), PCA(components, svd_solver="full")).fit(train_x.astype(np.float64))
    train, test = (np.asarray(shown.transform(x.astype(np.float64))) for x in (train_x, test_x))
    found = {}
    for place in judged:
        has = train_y[:, place]
        if has.all() or not has.any():
            answer = np.full(len(test), has.any())
        else:
            machine = LinearSVC(C=PENALTY, class_weight="balanced", dual=False, random_state=seed)  # pyright: ignore[reportArgumentType]
            answer = machine.fit(train, has).predict(test)
        found[place] = float(f1_score(test_y[:, place], answer, zero_division=0))  # pyright: ignore[reportArgumentType]
    return found
