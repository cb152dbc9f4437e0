"""The protocols by name, and how they are run: an encoder is never judged without something to compare it with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from tacit.core.draws import Draws
from tacit.core.errors import TacitError, one_of
from tacit.evaluation import figures
from tacit.evaluation.captions import captions
from tacit.evaluation.clustering import clustering
from tacit.evaluation.features import Features, Labelled, extract
from tacit.evaluation.fewshot import fewshot
from tacit.evaluation.finetune import finetune
from tacit.evaluation.knn import knn
from tacit.evaluation.linear import linear
from tacit.evaluation.linear_bn import linear_bn
from tacit.evaluation.outcome import Outcome
from tacit.evaluation.record import Record
from tacit.evaluation.retrieval import retrieval
from tacit.evaluation.subject import Subject
from tacit.evaluation.task import Task
from tacit.evaluation.zero_shot import zero_shot

NEEDS = {"tuning": "an encoder that can be trained", "joint": "a run that learned from captions"}
"""What not every subject has, in words."""

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
        run: from a case to its figures.
        needs: what of `NEEDS` a subject must have; one without (raw input cannot be fine-tuned) is left out.
        classes: samples must have labels.
        shared: the training split must have two classes or more, and the test split one of them.
        frozen: features are all that it sees of the subject.
        asked: it runs only when it is asked for.
    """

    name: str
    says: str
    cost: str
    run: Callable[[Case], Outcome]
    needs: str = ""
    classes: bool = True
    shared: bool = True
    frozen: bool = True
    asked: bool = False


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


def _finetune(case: Case) -> Outcome:
    assert case.subject.tuning is not None
    return finetune(case.subject.tuning, case.task, case.seed)


def _captions(case: Case) -> Outcome:
    assert case.subject.joint is not None
    return captions(case.subject.joint, case.task)


def _zero_shot(case: Case) -> Outcome:
    assert case.subject.joint is not None
    return zero_shot(case.subject.joint, case.task)


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
            classes=False,
            shared=False,
        ),
        Protocol(
            "captions",
            "Does a picture find its caption among all, and a caption its picture?",
            "one more pass of the test pictures, one of their captions; picture x caption similarities, in blocks",
            _captions,
            needs="joint",
            classes=False,
            shared=False,
            frozen=False,
        ),
        Protocol(
            "zero-shot",
            "Do the names of the classes alone tell them, with no label at all?",
            "one more pass of the test pictures, one of four prompts a class",
            _zero_shot,
            needs="joint",
            shared=False,
            frozen=False,
            asked=True,
        ),
        Protocol(
            "finetune",
            "How good does the encoder get when it is itself trained on the labels?",
            "20 passes of training: by far the dearest",
            _finetune,
            needs="tuning",
            frozen=False,
            asked=True,
        ),
    )
}

DEFAULT = tuple(name for name, protocol in PROTOCOLS.items() if not protocol.asked and not protocol.needs)
"""What any encoder undergoes."""


def usual(task: Task, captioned: bool) -> list[str]:
    """The protocols that run where none is asked for; `captioned`: the run reads captions, and the samples have some."""
    names = [*DEFAULT, "captions"] if captioned else DEFAULT
    return [name for name in names if task.split.classes or not PROTOCOLS[name].classes]


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
    for protocol in protocols:
        if protocol.needs and all(getattr(subject, protocol.needs) is None for subject in subjects.values()):
            raise TacitError(f"protocol '{protocol.name}' needs {NEEDS[protocol.needs]}, and there is none; leave it out")
    cases = {name: _case(name, subject, task, seed) for name, subject in subjects.items()}
    records = []
    for protocol in protocols:
        for name, case in cases.items():
            if protocol.needs and getattr(case.subject, protocol.needs) is None:
                continue
            started = time.perf_counter()
            outcome = protocol.run(case)
            records += _records(protocol, name, case, outcome, time.perf_counter() - started)
    return records


def _protocol(name: str, task: Task) -> Protocol:
    protocol = PROTOCOLS[one_of("protocol", name, PROTOCOLS)]
    if protocol.classes and not task.split.classes:
        others = ", ".join(other.name for other in PROTOCOLS.values() if not other.classes)
        raise TacitError(f"'{name}' needs labels and there are none; give a label column, or choose among {others}")
    train, test = task.split.train_y, task.split.test_y
    if protocol.shared and (len(train.unique()) < 2 or not torch.isin(test, train).any()):
        others = ", ".join(other.name for other in PROTOCOLS.values() if not other.shared and not other.needs)
        raise TacitError(
            f"'{name}' learns classes from the training split: it must have two or more, and the test split one of them; "
            f"mend the splits, or choose among {others}"
        )
    return protocol


def _case(name: str, subject: Subject, task: Task, seed: int) -> Case:
    features = extract(subject.encode, task.shown(task.split.ids))
    bad = int((~features.values.isfinite().all(dim=1)).sum())
    if bad:
        raise TacitError(
            f"features of '{name}' are not finite for {bad} of {len(features.ids)} samples: it diverged in training"
        )
    task = replace(task, split=task.split.available(features.ids))
    data = replace(task.split.labelled(features), components=subject.components)
    return Case(subject, task, features, data.centred() if subject.centred else data, seed)


def _records(protocol: Protocol, encoder: str, case: Case, outcome: Outcome, seconds: float) -> list[Record]:
    records: list[Record] = []
    seen: dict[str, Any] = {"features": case.subject.features} if protocol.frozen and case.subject.features else {}
    if len(case.task.windows) > 1:
        seen["looks"] = len(case.task.windows)
    for metric, value in outcome.values.items():
        detail = outcome.detail | seen
        if metric in outcome.deviations:
            detail["deviation"] = outcome.deviations[metric]
        if metric in outcome.chances:
            detail["chance"] = outcome.chances[metric]
        # JSON has no NaN: what is not defined is null.
        known = value if value == value else None
        records.append(
            Record(protocol.name, metric, known, encoder, case.task.name, case.task.split.said, case.seed, seconds, detail)
        )
    return records
