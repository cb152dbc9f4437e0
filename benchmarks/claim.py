"""What a claim of a paper is: runs with figures, and two of these that are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tacit
from tacit.data.spec import Spec
from tacit.methods.method import Method, Options
from tacit.methods.registry import method as method_class
from tacit.train import checkpoint
from tacit.train.config import Training, validated
from tacit.train.session import build_method
from tacit.use.run import OpenRun

Figures = Callable[[tacit.Run, str, int], Mapping[str, float]]
"""Of a finished run, of the data it was trained on and of a seed: figures by name, shares where nothing else is said."""


def top1(records: Iterable[Any]) -> dict[str, float]:
    """Accuracies by protocol and encoder: `knn`, `knn untrained`, `linear input`, ..."""
    return {f"{r.protocol} {r.encoder}".removesuffix(" run"): r.value for r in records if r.metric == "top1"}


def probes(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """k-NN and the linear probe on the data's own test split."""
    return top1(run.evaluate(data, protocols=["knn", "linear"], seed=seed))


@dataclass(frozen=True)
class Run:
    """What is trained, and what is then asked of it.

    Attributes:
        method: whose run it is.
        data: a folder of the sets, or `sample:NAME`; where there is `make`, what tables call the set.
        budget: how long, in what no machine changes: `{"epochs": 8}` or `{"steps": 500}`.
        options: all that is set by hand.
        figures: what is measured of the finished run.
        make: writes the set into an empty folder, from the folder of the sets, and says what is to be opened.
    """

    method: str
    data: str
    budget: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    figures: Figures = probes
    make: Callable[[Path, Path], Path] | None = None

    def lies(self, folder: Path, made: Path) -> str:
        """The set, below `folder`, bundled, or written to `made`."""
        if self.make is not None:
            made.mkdir()
            return str(self.make(folder, made))
        return self.data if self.data.startswith("sample:") else str(folder / self.data)


@dataclass(frozen=True)
class Claim:
    """What a paper says, the two figures that it is about, and by how much the first has to be above the second.

    Attributes:
        says: the claim.
        first, second: a run's name and which of its figures.
        by: in the unit that is shown.
        unit: what a figure is multiplied by to be shown: 100 for shares in per cent.
    """

    says: str
    first: tuple[str, str]
    second: tuple[str, str]
    by: float = 0.0
    unit: float = 100.0


def method_of(run: OpenRun, first: bool = False) -> Method:
    """The whole method as it was when the run ended, or (`first`) began."""
    config = run.folder.read_config()
    kind = method_class(config["run"]["method"])
    options: Options = validated(kind.Options, config["method"], "method")
    training: Training = validated(Training, config["train"], "train")
    made: Method = build_method(kind, options, training, Spec.from_dict(config["spec"]))
    if not first:
        made.load_state_dict(checkpoint.load(run.folder.last)["method"])
    return made.eval()
