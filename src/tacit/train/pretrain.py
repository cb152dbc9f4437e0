"""The main job: from data and a method's name to a run folder."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from tacit.core import files, signals
from tacit.core.errors import TacitError
from tacit.core.version import __version__
from tacit.data.collection import Collection
from tacit.data.open import open_data
from tacit.train import needs as runs
from tacit.train import ranks, trust
from tacit.train.folder import RunFolder
from tacit.train.machine import describe, pick_device
from tacit.train.plan import Request, planned, short_name, training_part
from tacit.train.session import Listener, train

DECISIVE = ("torch", "processor", "gpu", "threads")
"""What the last bits of a sum depend on, as `run.json` has it."""


def pretrain(request: Request, listener: Listener | None = None) -> RunFolder:
    """Train, and write everything that a run folder holds; with `resume`, go on with the run in `out` where there is one.

    Raises:
        TacitError: the request cannot be met; nothing was written.
        Stopped: the verdict ended the run; the folder holds everything up to there.
    """
    fabric = ranks.join(pick_device(request.device), request.given.get("strategy", "ddp"))
    with ranks.company("the same command starts again"):
        path, config = ranks.by_first(fabric, lambda: _begun(request) or _prepare(request))
    return _go_on(RunFolder(path), config, request.data, fabric, listener or Listener())


def _begun(request: Request) -> tuple[str, dict[str, Any]] | None:
    """The run that the request would go on with: its path and its configuration."""
    if not request.resume:
        return None
    if request.out is None:
        raise TacitError("--resume goes on with the run in --out; give that folder too")
    folder = RunFolder(request.out)
    if not folder.config.exists():
        return None
    config = folder.read_config()
    kept = config["run"] | config["method"] | config["train"]
    asked = {"method": request.method, "steps": request.budget.steps, **request.given}
    if (strategy := asked.pop("strategy", None)) is not None:
        config["train"]["strategy"] = strategy
    for name, value in asked.items():
        if value is not None and value != kept.get(name, value):
            raise TacitError(
                f"{request.out} was begun with {name}={kept[name]}, not {value}, and a run keeps its values; "
                "give the same ones, or choose another --out"
            )
    for name, path in request.needs.items():
        begun = config.get("needs", {}).get(name, {}).get("path", "nothing")
        if begun != str(Path(path).absolute()):
            raise TacitError(
                f"{request.out} was begun with {name}={begun}, not {path}, and a run keeps what it needs; "
                "give the same one, or choose another --out"
            )
    trust.remember(str(request.given.get("encoder", "")))
    trust.require(config["train"]["encoder"], request.out)
    return str(folder.path), config


@signals.told("interrupted before anything was written; the same command starts again")
def _prepare(request: Request) -> tuple[str, dict[str, Any]]:
    """Look at the data, decide every value, and begin a run folder: its path, and the configuration that lies in it."""
    name = short_name(request.data)
    RunFolder.unused(request.out, request.method, name)
    plan = planned(request)
    environment = {"tacit": __version__, "command": shlex.join(["tacit", *sys.argv[1:]]), **describe()}
    folder = RunFolder.begun(request.out, request.method, name, plan, environment)
    return str(folder.path), plan.config


def resume(path: str | Path, data: Any = None, listener: Listener | None = None, strategy: str | None = None) -> RunFolder:
    """Go on with a run exactly where its last checkpoint left it, or from the start where there is none.

    Args:
        data: the data again, where it lies elsewhere now, or was a Python object that no path leads to.
        strategy: how weights lie on several ranks from now on, `ddp` or `fsdp`.
    """
    folder = RunFolder.existing(path)
    config = folder.read_config()
    trust.require(config["train"]["encoder"], path)
    config["train"] |= {} if strategy is None else {"strategy": strategy}
    fabric = ranks.join(pick_device(config["run"]["device"]), config["train"].get("strategy", "ddp"))
    return _go_on(folder, config, data, fabric, listener or Listener())


def _go_on(folder: RunFolder, config: dict[str, Any], data: Any, fabric: Fabric, listener: Listener) -> RunFolder:
    """Train from where the run stands to its end, on the very data that it was begun on."""
    if folder.finished:
        if fabric.global_rank == 0:
            listener.say(f"{folder.path} is finished: nothing is left to do")
        return folder
    places = config.get("needs", {})
    for name, place in places.items():
        inner = RunFolder.existing(folder.path / place["path"])
        if "fingerprint" not in place and not inner.finished:
            if fabric.global_rank == 0:
                listener.say(f"first what it needs: {name}, in {inner.path}")
            _go_on(inner, inner.read_config(), data, fabric, listener)
    collection = reopen(config, data)
    if collection.fingerprint != config["data"]["fingerprint"]:
        raise TacitError(
            f"{config['data']['path']} changed since {folder.path} was started (files were added, removed or altered); "
            "put it back as it was, or start a new run with --init"
        )
    if fabric.global_rank == 0 and (others := elsewhere(folder)):
        listener.say(f"begun with {others}: the last bits may be others than those of a run that was never cut off")
    with ranks.company(f"`tacit resume {folder.path}` goes on"):
        return train(folder, collection, config, fabric, listener, runs.trained(folder, places))


def elsewhere(folder: RunFolder) -> str:
    """What of the machine is not as it was when the run was begun, in words; empty where all is, or nobody knows."""
    try:
        began = files.read_json(folder.environment)
    except (OSError, TacitError):
        return ""
    if not isinstance(began, dict):
        return ""
    changed = {name: now for name, now in describe().items() if name in DECISIVE and began.get(name, now) != now}
    return ", ".join(f"{name} {json.dumps(began[name])[:80]}, now {json.dumps(now)}" for name, now in changed.items())


def reopen(config: dict[str, Any], data: Any = None) -> Collection:
    """What a run was trained on, from its configuration."""
    described = config["data"]
    if data is None and described["path"].startswith("<"):
        raise TacitError(f"the run was started on {described['path']}, a Python object; give it again as data")
    path = described["path"] if data is None else data
    return training_part(
        open_data(path, kind=described["kind"], split=described.get("split"), columns=described.get("columns"))
    )
