"""Raw input as if it were features: what there is to find before anything is encoded."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.data.spec import Batch, Spec
from tacit.evaluation.features import Encode
from tacit.evaluation.subject import Subject
from tacit.views.image import CentreView
from tacit.views.probe import probe_view
from tacit.views.view import View

SIDE, COMPONENTS = 32, 300


def raw_input(spec: Spec, seed: int = 0) -> Subject:
    """The baseline that no encoder should lose to: every sample at 32 x 32 pixels, flat, float32 `[B, C * 32 * 32]`.

    It is centred, because otherwise the cosine of two pictures tells how bright they are and little else; and linear
    classifiers get 300 principal components, where neighbouring pixels say the same.
    """

    def flat(view: View, name: str) -> Encode:
        @torch.no_grad()
        def encode(batch: Batch) -> Tensor:
            return view(batch, Draws(seed, 0, batch.ids, name), spec).flatten(1)

        return encode

    return Subject(flat(CentreView(SIDE), ""), flat(probe_view(spec, SIDE), "second/"), centred=True, components=COMPONENTS)
