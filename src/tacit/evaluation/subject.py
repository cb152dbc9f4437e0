"""What is evaluated: an encoder, known by what it does to a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from tacit.evaluation.features import Encode
from tacit.nn.encoder import Encoder
from tacit.views.view import View


@dataclass(frozen=True)
class Tuning:
    """What fine-tuning needs beyond features.

    Attributes:
        fresh: a copy of the encoder, on its device, that may be changed.
        view: what it is trained through.
        still: what it is tested through.
    """

    fresh: Callable[[], Encoder]
    view: View
    still: View


@dataclass(frozen=True)
class Joint:
    """Two towers that end in one space.

    Attributes:
        pictures: from a batch to features `[B, D]` of its pictures.
        words: from texts to rows of tokens, int64 `[B, C]`.
        captions: from such rows to features `[B, D]`.
    """

    pictures: Encode
    words: Callable[[Sequence[str]], Tensor]
    captions: Callable[[Tensor], Tensor]

    def read(self, texts: Sequence[str]) -> Tensor:
        """Features of texts, `[B, D]`."""
        return self.captions(self.words(texts))


@dataclass(frozen=True)
class Subject:
    """One encoder, or what stands for one.

    Attributes:
        encode: from a batch to features `[B, D]`, of the view that evaluation sees.
        second: the same of another, drawn view of each sample; None where there is none to find.
        tuning: None where there is nothing to fine-tune.
        joint: None where nothing was learned from captions.
        centred: protocols see the features without their mean over the training samples.
        components: linear classifiers see so many principal components of the standardised features, None for all.
        features: which of an encoder's outputs `encode` gives, for the record; empty where there is no encoder.
    """

    encode: Encode
    second: Encode | None = None
    tuning: Tuning | None = None
    joint: Joint | None = None
    centred: bool = False
    components: int | None = None
    features: str = ""
