"""The protocols by name, and the records that they leave: an encoder is never judged without something to compare it with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from tacit.core.draws import Draws
from tacit.core.errors import TacitError, one_of
from tacit.evaluation import figures
from tacit.evaluation.clustering import clustering
from tacit.evaluation.features import Features, Labelled, extract
from tacit.evaluation.fewshot import fewshot
from tacit.evaluation.finetune import finetune
from tacit.evaluation.knn import knn
from tacit.evaluation.linear import linear
from tacit.evaluation.linear_bn import linear_bn
from tacit.evaluation.outcome import Outcome
from tacit.evaluation.retrieval import retrieval
from tacit.evaluation.subject import Subject
from tacit.evaluation.task import Task

AMONG = 1000
"""Second views are looked for among so many samples."""


@dataclass(frozen=True)
class Case:
    """One subject on one task: all that a protocol gets.

    Attributes:
        subject: what is evaluated.
        task: on what.
        features: of all samples of the task's split.
        data: the same with classes, as the subject wants them seen (centred or not).
        seed: what a protocol draws from.
    """

    subject: Subject
    task: Task
    features: Features
    data: Labelled
    seed: int


@dataclass(frozen=True)
class Protocol:
    """A way to evaluate an encoder.

    Attributes:
        name: what it is called on the command line and in records.
        says: what it answers, in a sentence.
        cost: what makes it slow, in words.
        run: from a case to its figures; None where the subject lacks what it takes (raw input cannot be fine-tuned).
        shared: the training split must have two classes or more, and the test split one of them.
        frozen: features are all that it sees of the subject.
        asked: it runs only when it is asked for.
    """

    name: str
    says: str
    cost: str
    run: Callable[[Case], Outcome | None]
    shared: bool = True
    frozen: bool = True
    asked: bool = False


@dataclass(frozen=True)
class Record:
    """One figure of one encoder.

    Attributes:
        protocol, metric: which figure; shares are in `[0, 1]`.
        value: None where it is not defined.
        encoder: `run`, `untrained` or `input`.
        data, split: what it was measured on, and how train and test came about.
        seed: of split and draws.
        seconds: the protocol took on this encoder, for all its figures and without the features.
        detail: settings and counts, and `deviation` where the value is a mean over draws.
    """

    protocol: str
    metric: str
    value: float | None
    encoder: str
    data: str
    split: str
    seed: int
    seconds: float
    detail: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _figures(case: Case) -> Outcome:
    """Without labels: of at most 1,000 samples of the task, and a second view of each."""
    ids = case.task.split.ids
    drawn = Draws(case.seed, 0, ids).within("figures").words("sample", 1)[:, 0].argsort(stable=True)[:AMONG]
    ids = ids[drawn].sort().values
    order = case.features.ids.argsort()
    first = case.features.values[order[torch.isin(case.features.ids[order], ids)].to(case.features.values.device)]
    values = {
        "effective_rank": figures.effective_rank(first),
        "spread": figures.spread(first),
        "uniformity": figures.uniformity(first),
        "alpha_req": figures.alpha_req(first),
    }
    detail: dict[str, Any] = {"samples": len(ids)}
    if case.subject.second is not None:
        second = extract(case.subject.second, case.task.batches(ids)).values
        if case.subject.centred:
            first, second = first - first.mean(dim=0), second - first.mean(dim=0)
        values["alignment"] = figures.alignment(first, second)
        values["second_view"] = found = figures.second_view(first, second)
        detail |= {"second_view_chance": 1 / len(ids), "second_view_error": figures.standard_error(found, len(ids))}
    return Outcome(values, detail)


def _finetune(case: Case) -> Outcome | None:
    return None if case.subject.tuning is None else finetune(case.subject.tuning, case.task, case.seed)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "knn",
            "Do the nearest neighbours of a sample share its class, with nothing fitted?",
            "one pass of the features; test x train similarities, in blocks",
            lambda case: knn(case.data),
        ),
        Protocol(
            "linear",
            "Can one linear layer read the classes off the frozen features?",
            "one pass of the features; then seconds, growing with classes x width",
            lambda case: linear(case.data, case.seed),
        ),
        Protocol(
            "linear-bn",
            "What does the linear probe say that MAE and its successors report?",
            "one pass of the features; then 7,020 steps, growing with samples x classes x width",
            lambda case: linear_bn(case.data, case.seed),
            asked=True,
        ),
        Protocol(
            "fewshot",
            "How far do 1, 5 or 10 labels of each class go?",
            "one pass of the features; then 15 small logistic regressions",
            lambda case: fewshot(case.data, case.seed),
        ),
        Protocol(
            "retrieval",
            "Does a search by example bring up the same class?",
            "one pass of the features; sorts test x train similarities, in blocks",
            lambda case: retrieval(case.data),
            shared=False,
        ),
        Protocol(
            "clustering",
            "Do the groups that k-means finds without labels agree with the classes?",
            "one pass of the features; then seconds, growing with classes x samples",
            lambda case: clustering(case.data, case.seed),
            shared=False,
        ),
        Protocol(
            "figures",
            "What do the features say of themselves, without labels: rank, uniformity, and are two views of a sample found?",
            "one pass of the features and one of at most 1,000 second views",
            _figures,
            shared=False,
        ),
        Protocol(
            "finetune",
            "How good does the encoder get when it is itself trained on the labels?",
            "20 passes of training: by far the dearest",
            _finetune,
            frozen=False,
            asked=True,
        ),
    )
}

DEFAULT = tuple(name for name, protocol in PROTOCOLS.items() if not protocol.asked)


def run_protocols(names: Iterable[str], subjects: Mapping[str, Subject], task: Task, seed: int = 0) -> list[Record]:
    """Every protocol on every subject, side by side; features are taken once for each subject.

    A result depends on the protocol, the subject, the task and the seed, never on what else is run.

    Args:
        names: of protocols; see `PROTOCOLS`.
        subjects: by what records call them: `run`, `untrained`, `input`.
        task: the labelled data.
        seed: of everything that protocols draw.

    Returns:
        One record for each figure, in the order of `names`, then of `subjects`.

    Raises:
        TacitError: unknown protocol, no readable samples, features that are not finite, train and test without a common
            class, or a protocol that none of the subjects can undergo.
    """
    protocols = [_protocol(name, task) for name in names]
    cases = {name: _case(name, subject, task, seed) for name, subject in subjects.items()}
    records = []
    for protocol in protocols:
        before = len(records)
        for name, case in cases.items():
            started = time.perf_counter()
            outcome = protocol.run(case)
            if outcome is not None:
                records += _records(protocol, name, case, outcome, time.perf_counter() - started)
        if len(records) == before:
            raise TacitError(
                f"protocol '{protocol.name}' needs an encoder that can be trained, and there is none; leave it out"
            )
    return records


def _protocol(name: str, task: Task) -> Protocol:
    protocol = PROTOCOLS[one_of("protocol", name, PROTOCOLS)]
    train, test = task.split.train_y, task.split.test_y
    if protocol.shared and (len(train.unique()) < 2 or not torch.isin(test, train).any()):
        others = ", ".join(other.name for other in PROTOCOLS.values() if not other.shared)
        raise TacitError(
            f"'{name}' learns classes from the training split: it must have two or more, and the test split one of them; "
            f"mend the splits, or choose among {others}"
        )
    return protocol


def _case(name: str, subject: Subject, task: Task, seed: int) -> Case:
    features = extract(subject.encode, task.batches(task.split.ids))
    bad = int((~features.values.isfinite().all(dim=1)).sum())
    if bad:
        raise TacitError(
            f"features of '{name}' are not finite for {bad} of {len(features.ids)} samples: it diverged in training"
        )
    task = replace(task, split=task.split.available(features.ids))
    data = replace(task.split.labelled(features), components=subject.components)
    return Case(subject, task, features, data.centred() if subject.centred else data, seed)


def _records(protocol: Protocol, encoder: str, case: Case, outcome: Outcome, seconds: float) -> list[Record]:
    records, seen = [], {"features": case.subject.features} if protocol.frozen and case.subject.features else {}
    for metric, value in outcome.values.items():
        detail = outcome.detail | seen
        if metric in outcome.deviations:
            detail["deviation"] = outcome.deviations[metric]
        # JSON has no NaN: what is not defined is null.
        known = value if value == value else None
        records.append(
            Record(protocol.name, metric, known, encoder, case.task.name, case.task.split.said, case.seed, seconds, detail)
        )
    return records
