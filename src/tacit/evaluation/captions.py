"""Retrieval both ways: does a picture find its caption among all, and a caption its picture (Radford et al. 2021)."""

from __future__ import annotations

import torch

from tacit.core.errors import TacitError
from tacit.data.text.wording import captions_of
from tacit.evaluation.features import extract
from tacit.evaluation.outcome import Outcome
from tacit.evaluation.recall import DEPTHS, recall
from tacit.evaluation.subject import Joint
from tacit.evaluation.task import Task


def captions(joint: Joint, task: Task) -> Outcome:
    """Recall of partners among the test samples that have a caption, with all captions of each; see `recall`."""
    table = task.collection.index.table
    said = {row: [text for text in captions_of(table, row) if text.strip()] for row in task.split.test.tolist()}
    rows = [row for row, texts in said.items() if texts]
    if not rows:
        raise TacitError("'captions' needs pictures with captions; give a manifest with a column 'caption', or leave it out")
    found = extract(joint.pictures, task.shown(torch.tensor(rows)))
    places = [(place, text) for place, row in enumerate(found.ids.tolist()) for text in said[row]]
    tokens = joint.words([text for _, text in places])
    owner = torch.tensor([place for place, _ in places])
    # Captions are alike when the tower cannot tell them apart.
    wording = tokens.unique(dim=0, return_inverse=True)[1]
    device = found.values.device
    features = joint.captions(tokens).to(device)
    both = recall(found.values, features, owner.to(device), wording.to(device))
    ways = dict(zip(("to_caption", "to_picture"), both, strict=True))
    values = {f"{name}_{way}": value for way, ranks in ways.items() for name, value in ranks.values().items()}
    chances = {f"recall@{k}_{way}": ranks.chance(k) for way, ranks in ways.items() for k in DEPTHS}
    counts = {"pictures": len(found.ids), "captions": len(places), "different_captions": int(wording.max()) + 1}
    return Outcome(values, counts, chances=chances)
