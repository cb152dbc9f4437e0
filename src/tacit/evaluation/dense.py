"""The dense protocols by name: tokens and places of frozen encoders, judged by labels of points, pixels or voxels."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tacit.core.errors import TacitError, one_of
from tacit.data.collection import Collection
from tacit.data.spec import Spec
from tacit.evaluation.dense_grid import GridReader
from tacit.evaluation.dense_points import PointReader
from tacit.evaluation.dense_reader import Reader
from tacit.evaluation.dense_segmentation import segmentation
from tacit.evaluation.dense_task import DenseTask, masked
from tacit.evaluation.dense_tokens import tokens
from tacit.evaluation.outcome import Outcome
from tacit.evaluation.protocol import Record
from tacit.evaluation.task import Task
from tacit.nn.encoder import Encoder

READERS: dict[str, Callable[..., Reader]] = {"image": GridReader, "points": PointReader, "volume": GridReader}


@dataclass(frozen=True)
class DenseProtocol:
    """A way to judge what an encoder says of places.

    Attributes:
        name: what it is called on the command line and in records.
        says: what it answers, in a sentence.
        cost: what makes it slow, in words.
        run: from a reader, labelled places and a seed to figures.
    """

    name: str
    says: str
    cost: str
    run: Callable[[Reader, DenseTask, int], Outcome]


DENSE = {
    protocol.name: protocol
    for protocol in (
        DenseProtocol(
            "tokens",
            "Can a linear classifier read off a frozen token which classes its points, pixels or voxels have?",
            "one pass of the tokens; then four small support vector machines for each class",
            tokens,
        ),
        DenseProtocol(
            "segmentation",
            "How well does a linear head on frozen features segment whole samples?",
            "two passes in windows; then seven logistic regressions on 30,000 places, growing with classes x width",
            segmentation,
        ),
    )
}


def reader(encoder: Encoder, spec: Spec, extent: Sequence[int], raw: bool = False) -> Reader:
    """An encoder as the dense protocols see it; with `raw`, what raw input says of the same tokens and maps.

    Raises:
        TacitError: samples of this kind have no places that tokens stand for, or the encoder has no such tokens.
    """
    if spec.kind not in READERS:
        raise TacitError(f"tokens and segmentation are for {', '.join(READERS)}, not for samples of kind '{spec.kind}'")
    return READERS[spec.kind](encoder, spec, extent, raw)


def usual_dense(spec: Spec, collection: Collection) -> list[str]:
    """The dense protocols that run where none is asked for: segmentation, where samples have label maps and it can be done."""
    able = spec.kind == "points" or importlib.util.find_spec("monai") is not None
    return ["segmentation"] if spec.kind in READERS and able and masked(collection) else []


def run_dense(names: Iterable[str], readers: Mapping[str, Reader], task: Task, seed: int = 0) -> list[Record]:
    """Every protocol on every reader, side by side.

    Args:
        names: of protocols; see `DENSE`.
        readers: by what records call them: `run`, `untrained`, `input`.
        task: samples with masks, divided by `split_masked`.
        seed: of everything that protocols draw.

    Returns:
        One record for each figure, in the order of `names`, then of `readers`; `seconds` is with the features, which each
        protocol takes for itself.
    """
    protocols = [DENSE[one_of("protocol", name, DENSE)] for name in names]
    dense, records = DenseTask.of(task), []
    for protocol in protocols:
        for name, each in readers.items():
            started = time.perf_counter()
            outcome = protocol.run(each, dense, seed)
            seconds = time.perf_counter() - started
            for metric, value in outcome.values.items():
                detail = dict(outcome.detail)
                if metric in outcome.deviations:
                    detail["deviation"] = outcome.deviations[metric]
                known = value if value == value else None  # JSON has no NaN
                said = dense.task.split.said
                records.append(Record(protocol.name, metric, known, name, task.name, said, seed, seconds, detail))
    return records
