"""What lies in a run folder beside weights and tables, read and checked: a folder may be damaged, or come from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, RootModel

from tacit.core import files
from tacit.core.errors import TacitError
from tacit.train.config import validated
from tacit.train.folder import RunFolder

Figures = dict[str, FiniteFloat | None]


class Judged(BaseModel):
    """`verdict.json`."""

    model_config = ConfigDict(extra="allow")

    verdict: str
    reasons: list[str] = []
    advice: list[str] = []
    figures: Figures = {}
    baselines: dict[str, Figures] = {}
    step: Annotated[int, Field(ge=0)] = 0


class Measured(BaseModel):
    """One record of `evaluations/NAME.json`."""

    model_config = ConfigDict(extra="allow")

    protocol: str
    metric: str
    encoder: str
    value: FiniteFloat | None
    data: str = ""
    split: str = ""
    seed: int = 0
    seconds: FiniteFloat = 0.0
    detail: dict[str, Any] = {}


class Records(RootModel[list[Measured]]):
    """`evaluations/NAME.json`."""


class Captions(RootModel[dict[str, str]]):
    """`pictures/captions.json`: what each file beside it shows."""


class Facts(RootModel[dict[str, Any]]):
    """`run.json`."""


def verdict(run: RunFolder) -> dict[str, Any]:
    """The verdict; empty while there is none."""
    return _read(Judged, run.verdict) if run.verdict.exists() else {}


def environment(run: RunFolder) -> dict[str, Any]:
    """Command, versions and hardware; empty where they were not written down."""
    return _read(Facts, run.environment) if run.environment.exists() else {}


def records(path: Path) -> list[dict[str, Any]]:
    """What `tacit evaluate` found on one set; empty where it was not run."""
    return _read(Records, path) if path.exists() else []


def captions(run: RunFolder) -> dict[str, str]:
    """The method's pictures by file name, and what they show."""
    path = run.pictures / "captions.json"
    found = _read(Captions, path) if path.exists() else {}
    for name in found:
        if Path(name).name != name:
            raise TacitError(f"{path} names the picture {name!r}, which does not lie beside it; restore it")
    return found


def _read(model: type[BaseModel], path: Path) -> Any:
    return validated(model, files.read_json(path), str(path)).model_dump(exclude_unset=True)
