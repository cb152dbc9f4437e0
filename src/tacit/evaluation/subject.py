"""What is evaluated: an encoder, known by what it does to a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
class Subject:
    """One encoder, or what stands for one.

    Attributes:
        encode: from a batch to features `[B, D]`, of the view that evaluation sees.
        second: the same of another, drawn view of each sample; None where there is none to find.
        tuning: None where there is nothing to fine-tune.
        centred: protocols see the features without their mean over the training samples.
        components: linear classifiers see so many principal components of the standardised features, None for all.
        features: which of an encoder's outputs `encode` gives, for the record; empty where there is no encoder.
    """

    encode: Encode
    second: Encode | None = None
    tuning: Tuning | None = None
    centred: bool = False
    components: int | None = None
    features: str = ""
