"""What a method must have first: another run, which the user gave, or which is trained within the run that needs it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tacit.core import files
from tacit.core.errors import TacitError, nearest, said
from tacit.data.spec import Spec
from tacit.data.text.tokenizer import Tokenizer
from tacit.data.text.wording import Words
from tacit.methods.method import Method, Options
from tacit.methods.registry import method as method_class
from tacit.train import checkpoint, trust
from tacit.train.config import Training, validated
from tacit.train.folder import NEEDS, RunFolder
from tacit.train.session import build_method


@dataclass(frozen=True)
class Need:
    """A run that another one needs.

    Attributes:
        config: the content of its `config.toml`, written or about to be.
        words: what makes tokens of its captions, where it reads any.
        path: where it lies, if the user gave it.
    """

    config: dict[str, Any]
    words: Words | None = None
    path: Path | None = None

    @property
    def spec(self) -> Spec:
        """What samples looked like to it."""
        return Spec.from_dict(self.config["spec"])

    def place(self, name: str) -> dict[str, str]:
        """What the run that needs it writes down to find it again, and to know that it is still the same."""
        if self.path is None:
            return {"path": f"{NEEDS}/{name}"}
        return {"path": str(self.path.absolute()), "fingerprint": fingerprint(self.path)}


Needs = Mapping[str, Need]


def asked(method: type[Method], given: Mapping[str, Any]) -> None:
    """A `TacitError` where somebody gave what the method does not need."""
    for name in given:
        if name not in method.needs:
            what = f"it needs {', '.join(method.needs)}" if method.needs else "it needs nothing"
            raise TacitError(f"{method.name} has no need '{name}'{nearest(name, method.needs)}; {what}")


def given(name: str, path: str | Path, maker: str) -> Need:
    """A finished run of the method that a need is trained with (or of one that can stand in for it), to be used as it is."""
    config = _finished(path).read_config()
    served, options = _served(config, str(path))
    if served.name != maker:
        raise TacitError(f"--need {name}={path} is a run of {config['run']['method']}; give a run of {maker}")
    wording = served.wording(options)
    words = None if wording is None else Words(Tokenizer.load(RunFolder(path).tokenizer), wording)
    return Need(config, words, Path(path))


def untrained(needs: Needs) -> dict[str, Method]:
    """Each as it is before its training: enough to time a step, or to see whether a run can begin."""
    return {name: _built(need.config, need.path or Path(name)) for name, need in needs.items()}


def trained(folder: RunFolder, places: Mapping[str, Mapping[str, str]]) -> dict[str, Method]:
    """Each as its training left it, frozen. `places` is the table `needs` of the run in `folder`."""
    return {name: _trained(name, folder, place) for name, place in places.items()}


def fingerprint(path: str | Path) -> str:
    """A hexadecimal number of what a finished run has learned."""
    digest = hashlib.blake2b(digest_size=16)
    with files.opened(RunFolder(path).last) as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def _trained(name: str, folder: RunFolder, place: Mapping[str, str]) -> Method:
    path = folder.path / place["path"]
    needed = _finished(path)
    if place.get("fingerprint") not in (None, fingerprint(path)):
        raise TacitError(f"{path}, the {name} of {folder.path}, changed since that was started; restore it, or start a new run")
    method = _built(needed.read_config(), path)
    try:
        kept = checkpoint.load(needed.last)["method"]
        method.load_state_dict({key: kept[key] for key in method.state_dict()})
    except (LookupError, TypeError, RuntimeError) as problem:
        raise TacitError(f"{needed.last} does not fit its run ({said(problem)}); restore it") from problem
    return method.requires_grad_(False).eval()


def _built(config: dict[str, Any], path: Path) -> Method:
    """What a run is to those who need it, with its first weights."""
    kind, options = _served(config, f"{path}/config.toml")
    training: Training = validated(Training, config["train"], f"{path}/config.toml")
    return build_method(kind, options, training, Spec.from_dict(config["spec"]))


def _served(config: dict[str, Any], where: str) -> tuple[type[Method], Options]:
    """The method that a run is one of to those who need it, and that one's options."""
    own = method_class(config["run"]["method"])
    kind = method_class(own.serves_as or own.name)
    if kind.needs:
        raise TacitError(f"{where}: a run of {kind.name} cannot be what another one needs; it needs one itself")
    values = {name: value for name, value in config["method"].items() if name in kind.Options.model_fields}
    return kind, validated(kind.Options, values, where)


def _finished(path: str | Path) -> RunFolder:
    folder = RunFolder.existing(path)
    if not folder.finished:
        raise TacitError(f"{path} is unfinished; `tacit resume {path}` goes on with it")
    trust.require(folder.read_config()["train"]["encoder"], path)
    return folder
