"""A finished or unfinished run, opened for use: its encoder, and what everything else needs to know of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tacit.core import files
from tacit.core.allocator import keep_freed_memory
from tacit.core.draws import Draws
from tacit.core.errors import TacitError, one_of, said
from tacit.data import store as stores
from tacit.data.cache import cache_folder
from tacit.data.collection import Collection
from tacit.data.kinds.kind import as_taken, useful_side
from tacit.data.loader import Loader, shared
from tacit.data.open import open_as
from tacit.data.skipped import MAX_BAD
from tacit.data.spec import Batch, Spec
from tacit.evaluation.features import Encode
from tacit.evaluation.readout import FEATURES, WHITENED, read_out
from tacit.evaluation.task import BATCH
from tacit.nn import build
from tacit.nn.encoder import Encoder
from tacit.nn.layout import channels_last
from tacit.train import trust
from tacit.train.folder import RunFolder
from tacit.train.machine import pick_device
from tacit.train.pretrain import reopen
from tacit.use import whiten
from tacit.views.sight import sight, windows_of

LARGEST = 4096
"""No view is larger, in pixels of a side: what says so is damaged, or out to fill the memory."""


class OpenRun:
    """A run folder with a kept encoder.

    Attributes:
        folder: where everything lies.
        spec: what samples looked like.
        size: side of the view that the encoder sees, in pixels.
        extent: of that view, all its axes.
        still: makes that view.
        window: which part of a sample it is made of; None for all of it.
        windows: the parts of a sample that its features are the mean over; see `views.sight.windows_of`.
        asked: which device was asked for, perhaps `auto`; `device` is the one that was found.
    """

    def __init__(self, path: str | Path, device: str = "auto") -> None:
        keep_freed_memory()
        self.folder = RunFolder.existing(path)
        if not self.folder.finished:
            raise TacitError(f"{path} is unfinished; `tacit resume {path}` goes on with it")
        self.asked, self.device = device, pick_device(device)
        kept = files.read_json(self.folder.encoder)
        try:
            self.spec, self.size, self.seed = Spec.from_dict(kept["spec"]), int(kept["size"]), int(kept["seed"])
            self._config = {**kept["encoder"], "name": str(kept["encoder"]["name"])}
            self.extent = tuple(int(side) for side in kept["extent"])
            shown = sight(self.spec.kind)
            self.still, self.window = shown.still(self.extent), shown.window(self.spec, self.extent)
            self.windows = windows_of(self.spec, self.extent)
            if self._config["channels"] != self.spec.channels or not 4 <= self.size <= LARGEST:
                raise ValueError("the channels, or the size, of what the encoder sees")
            for extent in (self.extent, [int(side) for side in self._config["size"]]):
                if not all(0 < side <= LARGEST for side in extent) or math.prod(extent) > LARGEST**2:
                    raise ValueError("the extent of what the encoder sees")
        except (KeyError, TypeError, ValueError) as problem:
            raise TacitError(f"{self.folder.encoder} lacks or garbles {said(problem)}; restore it") from problem
        trust.require(self._config["name"], path)

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder as training left it, in evaluation mode."""
        encoder = self._built()
        encoder.load_state_dict(self._weights)
        return encoder.to(self.device).eval()

    @cached_property
    def untrained(self) -> Encoder:
        """The same encoder with the weights that the run started from, unless it started from others (`--init`)."""
        return self._built(self.seed).to(self.device).eval()

    def _built(self, seed: int = 0) -> Encoder:
        """The encoder with its first weights. Not before it is known to be the one, and no larger, whose weights lie there."""
        try:
            expected = build.tensors(**self._config)
            found = {name: tensor.shape for name, tensor in self._weights.items()}
            if expected is not None and expected != found:
                odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
                raise ValueError(f"its weights do not fit: {', '.join(odd[:3])}")
            return build.encoder(**self._config, seed=seed)
        except TacitError:
            raise
        except Exception as problem:  # Options may be of any type, and contradict each other.
            raise TacitError(f"{self.folder.encoder} describes no encoder ({said(problem)}); restore it") from problem

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        """The kept weights, mapped from their file."""
        try:
            with files.opened(self.folder.weights):
                pass
            return load_file(self.folder.weights)
        except (SafetensorError, OSError) as problem:
            raise TacitError(f"cannot read {self.folder.weights} ({said(problem)}); restore it from a copy") from problem

    def encode(self, features: str = "pooled", of: Encoder | None = None) -> Encode:
        """What evaluation and embedding see: a batch in, features `[B, D]` out.

        Args:
            features: which of the encoder's outputs, see `evaluation.readout`; or `whitened`.
            of: another encoder than the run's, for the same samples.
        """
        if one_of("features", features, (*FEATURES, WHITENED)) == WHITENED:
            plain = self.encode(of=of)
            return partial(whiten.through, whiten.whitening(self) if of is None else whiten.taken(self, plain), plain)
        # Not a function within this one: it has to find its way to other processes.
        return partial(_encoded, self, features, of)

    def seen(self, batch: Batch) -> Tensor:
        """A batch as the encoder sees it, on the run's device."""
        batch = batch.to(self.device)
        return channels_last(self.still(batch, Draws(0, 0, batch.ids), self.spec))

    def taken(
        self, data: Any, kind: str | None = None, split: str | None = None, columns: Mapping[str, str] | None = None
    ) -> Collection:
        """The data, as the kind that the run was trained on where it can be read so and nobody says otherwise."""
        own = self.spec.kind
        collection = open_as(data, [own], kind, split, columns, anyhow=True)
        if as_taken(collection.kind.name, [own]) != own:
            raise TacitError(f"{self.folder.path} takes {own}, but here are {collection.description}; give data of that kind")
        return collection

    def side(self, collection: Collection) -> int | None:
        """What the shorter sides of these samples are brought to when they are decoded; None where they stay as they are."""
        return useful_side(self.spec.kind, self.size, collection.form.extent)

    def loader(
        self, collection: Collection, rows: np.ndarray | None = None, batch: int | None = None, max_bad: float = MAX_BAD
    ) -> Loader:
        """These samples once, in their order and parts, without those that cannot be read; from a store if there is one."""
        side = self.side(collection)
        store = stores.finished(collection, side, cache_folder() / "stores")
        batch = batch or shared(BATCH, self.windows)
        return Loader(collection, store, rows, batch, 0, shuffle=False, side=side, max_bad=max_bad, windows=self.windows)

    @cached_property
    def fingerprint(self) -> str:
        """A hexadecimal number of the encoder's weights."""
        with files.opened(self.folder.weights) as file:
            return hashlib.blake2b(file.read(), digest_size=16).hexdigest()

    def data(self) -> Collection:
        """What the run was trained on."""
        return reopen(self.folder.read_config())

    def __reduce__(self) -> tuple[type[OpenRun], tuple[str, str]]:
        """In another process a run is opened anew from its folder, on the device that is right there."""
        return OpenRun, (str(self.folder.path.absolute()), self.asked)


@torch.no_grad()
def _encoded(run: OpenRun, features: str, of: Encoder | None, batch: Batch) -> Tensor:
    return read_out(of or run.encoder, run.seen(batch), features).float()
