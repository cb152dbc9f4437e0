"""tacit: unlabelled data of almost any kind into a representation that people can use, with an honest verdict.

See `tacit.pretrain`. Names are loaded when they are first used, so that `import tacit` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tacit.core.errors import Interrupted, Stopped, TacitError
from tacit.core.version import __version__

if TYPE_CHECKING:
    from tacit.api import (
        Run,
        catalogue,
        compare,
        doctor,
        embed,
        evaluate,
        export,
        load,
        pretrain,
        report,
        resume,
        samples,
        search,
    )

__all__ = [
    "Interrupted",
    "Run",
    "Stopped",
    "TacitError",
    "__version__",
    "catalogue",
    "compare",
    "doctor",
    "embed",
    "evaluate",
    "export",
    "load",
    "pretrain",
    "report",
    "resume",
    "samples",
    "search",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("tacit.api"), name)
    raise AttributeError(f"module 'tacit' has no attribute '{name}'")
