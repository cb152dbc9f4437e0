"""Classes told by sentences alone: an image takes the class whose prompts lie nearest (Radford et al. 2021)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tacit.evaluation.features import extract
from tacit.evaluation.outcome import Outcome, accuracies
from tacit.evaluation.subject import Joint
from tacit.evaluation.task import Task
from tacit.objectives.precision import wide

PROMPTS = ("{}", "a {}", "a picture of {}", "a picture of a {}")


def zero_shot(joint: Joint, task: Task) -> Outcome:
    """Accuracy on test of the classes' names alone, each said in all of `PROMPTS`; no label is learned from."""
    names = [name.replace("_", " ") for name in task.split.classes]
    told = joint.read([prompt.format(name) for name in names for prompt in PROMPTS]).unflatten(0, (len(names), len(PROMPTS)))
    found = extract(joint.pictures, task.shown(task.split.test))
    values = accuracies(
        class_logits(found.values, classifier(told.to(found.values.device))), task.split.test_y.to(found.values.device)
    )
    chances = {name: min(5 if name == "top5" else 1, len(names)) / len(names) for name in values}
    return Outcome(values, {"prompts": list(PROMPTS)}, chances=chances)


def classifier(prompts: Tensor) -> Tensor:
    """The unit vector along the mean of each class's unit prompts: `[K, T, D]` -> `[D, K]`."""
    each = F.normalize(wide(prompts), dim=-1, eps=1e-12)
    return F.normalize(each.mean(dim=1), dim=-1, eps=1e-12).T


def class_logits(images: Tensor, classes: Tensor) -> Tensor:
    """100 times the cosines, whatever the trained temperature: `[B, D]` of any length, `[D, K]` -> `[B, K]`."""
    return 100 * F.normalize(wide(images), dim=-1, eps=1e-12) @ classes


def top(logits: Tensor, labels: Tensor, depth: int = 1) -> float:
    """The share of rows whose label is among the `depth` largest of `[B, K]`, in `[0, 1]`; `depth` is cut to K."""
    found = logits.topk(min(depth, logits.shape[1]), dim=1).indices == labels[:, None]
    return float(found.any(dim=1).double().mean())
