"""Where else the numbers of a run go, for those who ask: Weights & Biases, MLflow."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from tacit.core.errors import TacitError
from tacit.train.folder import RunFolder


class Sink(Protocol):
    """Takes figures by name, at a step."""

    def log(self, figures: dict[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class _WandB:
    def __init__(self, folder: RunFolder, config: dict[str, Any]) -> None:
        import wandb

        # The folder's name is the run's identity there, so that a resumed run goes on in the same place.
        self._run = wandb.init(
            project="tacit", name=folder.path.name, id=folder.path.name, resume="allow", dir=str(folder.path), config=config
        )

    def log(self, figures: dict[str, float], step: int) -> None:
        self._run.log(figures, step=step)

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    def __init__(self, folder: RunFolder, config: dict[str, Any]) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment("tacit")
        mlflow.start_run(run_name=folder.path.name)
        for table in ("method", "train"):
            mlflow.log_params({f"{table}.{name}": str(value)[:250] for name, value in config[table].items()})

    def log(self, figures: dict[str, float], step: int) -> None:
        self._mlflow.log_metrics(figures, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


SINKS: dict[str, Callable[[RunFolder, dict[str, Any]], Sink]] = {"wandb": _WandB, "mlflow": _MLflow}


def require(name: str) -> None:
    """A `TacitError` where the package of a sink is missing."""
    try:
        import_module(name)
    except ImportError:
        raise TacitError(f"logging to {name} needs its package: pip install 'tacit[loggers]'") from None
