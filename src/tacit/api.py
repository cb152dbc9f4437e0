"""tacit from Python: every verb of the command line as a function, and a run as an object.

run = tacit.pretrain("simclr", "photos/", minutes=10)
run.evaluate("labelled/")
run.embed("more/", out="features.parquet")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tacit.core.errors import TacitError
from tacit.data import store as stores
from tacit.data.cache import cache_folder
from tacit.data.open import open_data
from tacit.data.skipped import MAX_BAD
from tacit.nn.encoder import Encoder
from tacit.train import pretrain as training
from tacit.train.plan import Request, short_name
from tacit.train.session import Listener
from tacit.train.situation import Budget
from tacit.use import artefacts
from tacit.use.run import OpenRun

if TYPE_CHECKING:
    from tacit.evaluation.protocol import Record
    from tacit.use.doctor import Findings
    from tacit.use.export import Exported
    from tacit.use.search import Hit


class Run:
    """A finished run.

    Attributes:
        path: its folder.
    """

    def __init__(self, path: str | Path, device: str = "auto") -> None:
        self._open = OpenRun(path, device)
        self.path = self._open.folder.path

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def encoder(self) -> Encoder:
        """The trained encoder, in evaluation mode: `encoder(x).pooled` for normalised `x [B, C, H, W]`."""
        return self._open.encoder

    @cached_property
    def verdict(self) -> dict[str, Any]:
        """`verdict`, `reasons`, `advice`, `figures`, `baselines`, `step`."""
        return artefacts.verdict(self._open.folder)

    @property
    def config(self) -> dict[str, Any]:
        """Every resolved value, and under `origin` where each came from."""
        return self._open.folder.read_config()

    def features(
        self,
        data: Any,
        split: str | None = None,
        columns: dict[str, str] | None = None,
        kind: str | None = None,
        features: str = "pooled",
    ) -> np.ndarray:
        """Features of every readable sample of `data`, float32 `[N, D]`, in the order of its index.

        Args:
            features: `pooled`, `class`, `mean`, `mean+max`, `class+mean`, `class4` or `whitened`. See `docs/embedding.md`.
        """
        from tacit.evaluation.features import extract

        collection = self._open.taken(data, kind, split, columns).with_channels(self._open.spec.channels)
        return extract(self._open.encode(features), self._open.loader(collection)).values.cpu().numpy()

    def embed(
        self,
        data: Any,
        out: str | Path = "embeddings.parquet",
        kind: str | None = None,
        split: str | None = None,
        columns: dict[str, str] | None = None,
        shard: tuple[int, int] = (0, 1),
        map: bool = False,
        absolute: bool = False,
        features: str = "pooled",
        cluster: str | None = None,
        max_bad: float = MAX_BAD,
    ) -> Path:
        """Write the features of every sample to `.parquet`, `.npy` or `.h5`; goes on where a killed call stopped.

        Args:
            shard: part `k` of `n`, from 0: one process of many.
            map: add `x` and `y`, a two-dimensional map.
            absolute: write whole paths.
            features: `pooled`, `class`, `mean`, `mean+max`, `class+mean`, `class4` or `whitened`. See `docs/embedding.md`.
            cluster: compute on a Ray cluster: `local`, `auto`, `HOST:PORT`.
            max_bad: a larger share of unreadable samples is an error.
        """
        from tacit.use.cluster import Cluster
        from tacit.use.embed import embed

        run = self._open
        collection = self._open.taken(data, kind, split, columns).with_channels(run.spec.channels)
        side = run.side(collection)
        return embed(
            run.encode(features),
            collection,
            out,
            store=None if cluster else stores.finished(collection, side, cache_folder() / "stores"),
            side=side,
            windows=run.windows,
            shard=shard,
            map=map,
            absolute=absolute,
            cluster=None if cluster is None else Cluster(cluster, gpus=run.asked != "cpu"),
            fingerprint=run.fingerprint if features == "pooled" else f"{run.fingerprint}/{features}",
            max_bad=max_bad,
        ).path

    def evaluate(
        self,
        data: Any,
        protocols: Sequence[str] | None = None,
        baselines: str = "both",
        seed: int = 0,
        kind: str | None = None,
        split: str | None = None,
        columns: dict[str, str] | None = None,
        features: str = "pooled",
        max_bad: float = MAX_BAD,
    ) -> list[Record]:
        """Protocols on labelled data, beside the untrained encoder and raw input. See `docs/evaluation.md`.

        Args:
            protocols: their names; all that data and run have everything for, but for the dear ones, by default.
            baselines: `both` or `none`.
            seed: of splits and draws.
            kind: the kind of data, where it should not be guessed; the run's own, by default, where it can be read so.
            split: use only this split of the data.
            columns: which columns of a manifest to use.
            features: `pooled`, `class`, `mean`, `mean+max`, `class+mean`, `class4` or `whitened`. See `docs/embedding.md`.
            max_bad: a larger share of unreadable samples is an error.
        """
        from tacit.use.evaluate import evaluate

        collection = self._open.taken(data, kind, split, columns)
        return evaluate(self._open, collection, short_name(data), protocols, baselines, seed, features, max_bad)

    def search(self, query: Any, data: Any = None, k: int = 10, index: str = "auto", features: str = "pooled") -> list[Hit]:
        """The `k` samples nearest to a file, to `row:N`, to an array `[*extent, C]`, or (for pairs) to `text:A SENTENCE`.

        Args:
            data: what to search in; what the run was trained on by default.
            index: `exact`, `ivf`, `hnsw`, or `auto`.
            features: what is compared, `pooled` or `whitened`.
        """
        from tacit.use.find import find

        return find(self._open, query, None if data is None else self._open.taken(data), k, index, features)

    def report(self, out: str | Path | None = None) -> Path:
        """Write one self-contained page about the run; where it lies."""
        from tacit.use.show import report

        return report(self._open, None if out is None else Path(out))

    def export(self, form: str = "onnx", out: str | Path | None = None) -> Exported:
        """Write the encoder as `onnx`, `timm` or `torch`, reopen it and compare it on real samples."""
        from tacit.use.hand_over import hand_over

        return hand_over(self._open, form, None if out is None else Path(out))


def pretrain(
    method: str,
    data: Any,
    *,
    out: str | Path | None = None,
    recipe: str = "auto",
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    samples: int | None = None,
    options: dict[str, Any] | None = None,
    needs: Mapping[str, str | Path] | None = None,
    kind: str | None = None,
    split: str | None = None,
    columns: dict[str, str] | None = None,
    device: str = "auto",
    mirrored: bool | None = None,
    resume: bool = False,
    listener: Listener | None = None,
) -> Run:
    """Train an encoder on unlabelled data.

    Args:
        method: its name; `tacit.methods()` lists them.
        data: a folder, file list, manifest, `.npz`, shards, saved data set, URL, `sample:NAME`, list of paths or torch
            `Dataset`. Labels in it are never read.
        out: the run's folder; `runs/METHOD-DATA-N` by default.
        recipe: `auto` fits everything to data, machine and time; `quick` is that within two minutes; `paper` is as published
            (`paper:NAME`: a further column of the paper's, see `tacit methods METHOD`).
        minutes, epochs, steps, samples: how long; at most one. `auto` takes 20 minutes where nothing is said.
        options: of the method and of training, by name; they beat the recipe.
        needs: finished runs that the method is to have first, by name; what is not given is trained within the run.
        kind: the kind of data, where it should not be guessed.
        split: train on this split of the data only; `train` by default, where there is one.
        columns: which columns of a manifest to use.
        device: `auto`, `cpu`, `cuda`, `cuda:N`, `mps`.
        mirrored: whether a mirror image means the same; `auto` decides where nothing is said.
        resume: go on with the run in `out` where there is one; a finished one is given back as it is.
        listener: hears how it goes.

    Raises:
        TacitError: something was asked for that cannot be; nothing was written.
        Stopped: the verdict ended the run.
    """
    request = Request(
        method=method,
        data=data,
        out=out,
        recipe=recipe,
        budget=Budget(minutes, epochs, steps, samples),
        given=dict(options or {}),
        needs=dict(needs or {}),
        device=device,
        kind=kind,
        split=split,
        columns=columns,
        mirrored=mirrored,
        resume=resume,
    )
    return Run(training.pretrain(request, listener).path, device)


def resume(run: str | Path, data: Any = None, listener: Listener | None = None, strategy: str | None = None) -> Run:
    """Go on with an interrupted run exactly where it stopped; `data` where it lies elsewhere now or was a Python object.

    `strategy` (`ddp` or `fsdp`) is how weights lie on several ranks from now on.
    """
    return Run(training.resume(run, data, listener, strategy).path)


def load(run: str | Path, device: str = "auto") -> Run:
    """Open a finished run."""
    return Run(run, device)


def evaluate(run: str | Path, data: Any, **how: Any) -> list[Record]:
    """`tacit.load(run).evaluate(data, ...)`."""
    return load(run).evaluate(data, **how)


def embed(run: str | Path, data: Any, **how: Any) -> Path:
    """`tacit.load(run).embed(data, ...)`."""
    return load(run).embed(data, **how)


def search(run: str | Path, query: Any, **how: Any) -> list[Hit]:
    """`tacit.load(run).search(query, ...)`."""
    return load(run).search(query, **how)


def report(run: str | Path, out: str | Path | None = None) -> Path:
    """`tacit.load(run).report(out)`."""
    return load(run).report(out)


def export(run: str | Path, form: str = "onnx", out: str | Path | None = None) -> Exported:
    """`tacit.load(run, "cpu").export(form, out)`."""
    return load(run, "cpu").export(form, out)


def compare(runs: Sequence[str | Path], out: str | Path | None = None) -> Any:
    """Runs side by side: a table for a terminal, and a page where `out` is given."""
    from tacit.use.compare import compare

    if len(runs) < 2:
        raise TacitError(f"{len(runs)} run was given; comparing takes two or more")
    return compare(runs, out)


def doctor(
    data: Any,
    *,
    kind: str | None = None,
    split: str | None = None,
    columns: dict[str, str] | None = None,
    device: str = "auto",
    hosts: bool = True,
) -> Findings:
    """How the data was understood, what is wrong with it, which methods fit, and what an epoch of each costs."""
    from tacit.use.doctor import examine

    return examine(open_data(data, kind=kind, split=split, columns=columns), device, hosts)


def catalogue() -> dict[str, Any]:
    """The methods by name: title, idea, paper, kinds of data, needs, every option, the published training."""
    from tacit.methods.catalogue import load

    return load()


def samples() -> list[str]:
    """Names of the bundled data, each opened as `sample:NAME`."""
    from tacit.data.samples import SAMPLES

    return sorted(SAMPLES)
