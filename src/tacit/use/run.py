"""A finished or unfinished run, opened for use: its encoder, and what everything else needs to know of it."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tacit.core import files
from tacit.core.allocator import keep_freed_memory
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.collection import Collection
from tacit.data.spec import Batch, Spec
from tacit.evaluation.features import Encode
from tacit.nn import build
from tacit.nn.encoder import Encoder
from tacit.train import trust
from tacit.train.folder import RunFolder
from tacit.train.machine import pick_device
from tacit.train.pretrain import reopen
from tacit.views.image import CentreView


class OpenRun:
    """A run folder with a kept encoder.

    Attributes:
        folder: where everything lies.
        spec: what samples looked like.
        size: side of the view that the encoder sees, in pixels.
    """

    def __init__(self, path: str | Path, device: str = "auto") -> None:
        keep_freed_memory()
        self.folder = RunFolder.existing(path)
        if not self.folder.finished:
            raise TacitError(f"{path} is unfinished; `tacit resume {path}` goes on with it")
        self.device = pick_device(device)
        self.kept: dict[str, Any] = files.read_json(self.folder.encoder)
        try:
            self.spec = Spec.from_dict(self.kept["spec"])
            self.size, self.seed = int(self.kept["size"]), int(self.kept["seed"])
            trust.require(str(self.kept["encoder"]["name"]), path)
        except (KeyError, TypeError, ValueError) as problem:
            raise TacitError(f"{self.folder.encoder} lacks or garbles {problem}; restore it") from problem

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder as training left it, in evaluation mode."""
        encoder = build.encoder(**self.kept["encoder"])
        try:
            encoder.load_state_dict(load_file(self.folder.weights))
        except (SafetensorError, OSError, RuntimeError) as problem:
            first_line = str(problem).splitlines()[0]
            raise TacitError(f"cannot read {self.folder.weights} ({first_line}); restore it from a copy") from problem
        return encoder.to(self.device).eval()

    @cached_property
    def untrained(self) -> Encoder:
        """The same encoder with the weights that the run started from, unless it started from others (`--init`)."""
        return build.encoder(**self.kept["encoder"], seed=self.seed).to(self.device).eval()

    def encode(self, encoder: Encoder) -> Encode:
        """What evaluation and embedding see: a batch in, pooled features `[B, D]` out."""
        view = CentreView(self.size)

        @torch.no_grad()
        def encode(batch: Batch) -> Tensor:
            batch = batch.to(self.device)
            return encoder(view(batch, Draws(0, 0, batch.ids), self.spec)).pooled.float()

        return encode

    @cached_property
    def fingerprint(self) -> str:
        """A hexadecimal number of the encoder's weights."""
        return hashlib.blake2b(self.folder.weights.read_bytes(), digest_size=16).hexdigest()

    def data(self) -> Collection:
        """What the run was trained on."""
        return reopen(self.folder.read_config())
