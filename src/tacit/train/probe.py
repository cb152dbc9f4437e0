"""k-NN on labelled data while a run goes on: for the record alone. Neither loss, verdict nor checkpoints see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.data.open import open_data
from tacit.data.spec import Batch, Spec
from tacit.evaluation.features import extract
from tacit.evaluation.knn import knn
from tacit.evaluation.task import Task
from tacit.nn.encoder import Encoder
from tacit.train.watch import evaluating
from tacit.views.sight import sight


class Probe:
    """The share of test samples whose class their nearest neighbours say, for the encoder of any moment.

    Args:
        data: labelled samples, whatever `open_data` takes.
        spec: what the encoder takes samples to look like.
        extent: of its views.
        seed: of the division into train and test, where the data brings none.
    """

    def __init__(self, data: Any, spec: Spec, extent: Sequence[int], seed: int) -> None:
        shown, collection = sight(spec.kind), open_data(data).with_channels(spec.channels)
        self.task = Task.of("probe", collection, spec, side=2 * extent[-1], seed=seed, window=shown.window(spec, extent))
        self.view = shown.still(extent)

    def __call__(self, encoder: Encoder, device: torch.device) -> float:
        """In `[0, 1]`."""

        def encode(batch: Batch) -> Tensor:
            batch = batch.to(device)
            return encoder(self.view(batch, Draws(0, 0, batch.ids), self.task.spec)).pooled.float()

        with evaluating(encoder):
            found = extract(encode, self.task.batches(self.task.split.ids))
        return knn(self.task.split.available(found.ids).labelled(found)).values["top1"]
