"""Sentences and pictures in one space, of a run that learned from captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from safetensors.torch import load_file

from tacit.core import files
from tacit.core.errors import TacitError, said
from tacit.data.text.tokenizer import Tokenizer
from tacit.data.text.wording import Wording, Words
from tacit.nn.text import Reader
from tacit.use.run import OpenRun


class Reading:
    """What a run made of captions, opened beside its encoder. A `TacitError` where it read none."""

    def __init__(self, run: OpenRun) -> None:
        folder = run.folder
        if not folder.reader.is_file():
            raise TacitError(f"{folder.path} has not learned from captions, so it knows no sentence; use a run of clip")
        config = files.read_json(folder.reader)
        try:
            with files.opened(folder.reader_weights):
                pass
            weights = load_file(folder.reader_weights)
            own = {name.removeprefix("reader."): value for name, value in weights.items() if name.startswith("reader.")}
            with torch.device("meta"):  # no larger than what lies there
                expected = {name: value.shape for name, value in Reader(**config).state_dict().items()}
            if expected != {name: value.shape for name, value in own.items()}:
                raise ValueError("its weights do not fit")
            self.reader = Reader(**config)
            self.reader.load_state_dict(own)
            self.words = Words(Tokenizer.load(folder.tokenizer), Wording(config["vocabulary"], config["context"]))
        except TacitError:
            raise
        except Exception as problem:
            raise TacitError(f"cannot read {folder.reader} ({said(problem)}); restore it from a copy") from problem
        self.reader.eval()
        self.head = weights.get("picture.weight")

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Sentences in the shared space, float32 `[B, D]`, of any length."""
        return self.reader(self.words(texts)).numpy()

    def pictures(self, features: np.ndarray) -> np.ndarray:
        """The run's pooled features `[N, F]` in the shared space, `[N, D]`."""
        return features if self.head is None else features @ self.head.numpy().T
