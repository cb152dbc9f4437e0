"""Few labels: logistic regression on 1, 5 and 10 labelled samples of each class, drawn several times."""

from __future__ import annotations

import statistics
import warnings

import torch

from tacit.core.draws import Draws
from tacit.evaluation.features import Labelled
from tacit.evaluation.outcome import Outcome

COUNTS = (1, 5, 10)
DRAWS = 5


def fewshot(data: Labelled, seed: int = 0) -> Outcome:
    """Accuracy on test, mean and deviation over 5 draws of the labelled samples.

    Features are standardised by the training features, which needs no labels; the penalty is scikit-learn's default (C = 1),
    as there is nothing to choose it with. A class with fewer samples than asked for gives all it has; counts above the
    largest class are left out.
    """
    from sklearn.linear_model import LogisticRegression

    data = data.standardised
    train_x, train_y = data.train_x.cpu().numpy(), data.train_y.cpu()
    test_x, test_y = data.test_x.cpu().numpy(), data.test_y.cpu().numpy()
    samples, largest = torch.arange(len(train_y)), int(torch.bincount(train_y).max())
    values, deviations = {}, {}
    for count in (count for count in COUNTS if count <= largest):
        found = []
        for draw in range(DRAWS):
            # Every class in the same drawn order, so that 5 labels are the 1 label and 4 more.
            order = Draws(seed, draw, samples).words("fewshot", 1)[:, 0].argsort(stable=True)
            ranked = torch.nn.functional.one_hot(train_y[order]).cumsum(dim=0).gather(1, train_y[order][:, None])[:, 0]
            chosen = order[ranked <= count].sort().values.numpy()
            with warnings.catch_warnings():
                # scikit-learn takes one label of each class for a regression.
                warnings.filterwarnings("ignore", message="The number of unique classes")
                model = LogisticRegression(C=1.0, max_iter=1000).fit(train_x[chosen], train_y.numpy()[chosen])
            found.append(float((model.predict(test_x) == test_y).mean()))
        values[f"top1_{count}_per_class"] = statistics.fmean(found)
        deviations[f"top1_{count}_per_class"] = statistics.stdev(found)
    return Outcome(values, {"draws": DRAWS, "C": 1.0}, deviations)
