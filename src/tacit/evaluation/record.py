"""What an evaluation leaves: one record for each figure of each encoder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


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
        detail: settings and counts; `deviation` where the value is a mean over draws, `chance` where that is known, `looks`
            where features are means over so many parts of a sample.
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
