"""Raw input as if it were features: what there is to find before anything is encoded."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.data.spec import Batch, Spec
from tacit.evaluation.features import Encode
from tacit.evaluation.subject import Subject
from tacit.views.sight import sight
from tacit.views.view import View

COMPONENTS = 300


def raw_input(spec: Spec, seed: int = 0) -> Subject:
    """The baseline that no encoder should lose to: every sample at a coarse extent, flat, float32 `[B, D]`.

    It is centred, because otherwise the cosine of two pictures tells how bright they are and little else; and linear
    classifiers get 300 principal components, where neighbouring pixels say the same.
    """
    shown = sight(spec.kind)

    def flat(view: View, name: str) -> Encode:
        @torch.no_grad()
        def encode(batch: Batch) -> Tensor:
            return shown.flat(view(batch, Draws(seed, 0, batch.ids, name), spec))

        return encode

    still, crops = shown.still(shown.coarse), shown.crops(shown.coarse)
    return Subject(flat(still, ""), flat(crops, "second/"), centred=True, components=COMPONENTS)
