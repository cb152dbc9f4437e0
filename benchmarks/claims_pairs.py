"""The claims of CLIP that can be seen on a thousand small pictures with their names, and on some hundred photographs.

Those of Mod-X have a stream of pairs to themselves: `continual.py`. The encoder, and how long and with what crops garments are
trained on, were chosen after short runs of seed 0 by these same test samples: the other seeds are no test of that choice.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from claim import Claim, Run, probes

import tacit
from tacit.data.open import open_data
from tacit.evaluation.features import extract
from tacit.evaluation.outcome import accuracies
from tacit.evaluation.task import Task
from tacit.evaluation.zero_shot import PROMPTS, class_logits, classifier
from tacit.train.folder import RunFolder, read_table
from tacit.use.run import OpenRun
from tacit.use.towers import Towers

TITLE = "Pictures with captions"
EMOJI, GARMENTS, PHOTOGRAPHS = "sample:emoji_names", "clothing96", "coco_objects"
SHARED: dict[str, Any] = {"precision": "bfloat16", "encoder": "resnet-mini", "size": 48}
NAMED: dict[str, dict[str, str]] = {
    EMOJI: {name: name for name in ("clock", "face", "hand", "heart", "sign")},
    GARMENTS: {name: name for name in ("dress", "hat", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt")}
    | {"longsleeve": "long-sleeved top", "outwear": "coat or jacket"},
}
"""Classes of a set that its captions name, and what they are called there."""


def found(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """Recall of partners on test, the mean of both ways, and ten times what chance finds; the factor of cosines at the end."""
    sides: dict[str, list[float]] = {}
    for record in run.evaluate(data, protocols=["captions"], seed=seed):
        metric = record.metric.partition("_to_")[0]
        if metric.startswith("recall") and record.value is not None:
            sides.setdefault(f"{metric} {record.encoder}".removesuffix(" run"), []).append(record.value)
            sides.setdefault(f"{metric} 10 x chance", []).append(10 * record.detail["chance"])
    scale = [value for value in read_table(RunFolder(run.path).metrics)["scale"] if value is not None]
    return {name: statistics.fmean(both) for name, both in sides.items()} | {"factor": scale[-1], "factor at first": 1 / 0.07}


def told(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """Accuracy on test of classes told by the words of captions alone: the mean over classes, as some are rare."""
    opened, names = OpenRun(run.path), NAMED[Path(data).name]
    task, joint = Task.of("test", open_data(data, kind="pair"), opened.spec, seed=seed), Towers(opened).trained()
    classes = torch.tensor([name in names for name in task.split.classes])
    rows = classes[task.split.test_y]
    y = (classes.cumsum(0) - 1)[task.split.test_y[rows]]
    pictures = extract(joint.pictures, task.shown(task.split.test[rows])).values.cpu()

    def by(prompts: Sequence[str]) -> float:
        texts = [prompt.format(names[name]) for name in task.split.classes if name in names for prompt in prompts]
        scores = class_logits(pictures, classifier(joint.read(texts).cpu().unflatten(0, (-1, len(prompts)))))
        return accuracies(scores, y)["balanced"]

    return {"told": by(PROMPTS), "told by one prompt": by(PROMPTS[:1]), "told 3 x chance": 3 / len(names)}


def both(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    return found(run, data, seed) | told(run, data, seed)


def probed(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    return told(run, data, seed) | dict(probes(run, data, seed))


RUNS = {
    "clip": Run("clip", EMOJI, {"epochs": 16}, SHARED | {"batch": 64}, both),
    # "A long-sleeved top" names a garment and not a place, as `auto` takes it to do.
    "clip, garments": Run("clip", GARMENTS, {"epochs": 40}, SHARED | {"batch": 32, "area": 0.5}, probed),
    "clip, photographs": Run("clip", PHOTOGRAPHS, {"epochs": 60}, SHARED | {"batch": 32}, found),
    "clip, batch 16": Run("clip", EMOJI, {"epochs": 16}, SHARED | {"batch": 16}, found),
    "clip, batch 128": Run("clip", EMOJI, {"epochs": 16}, SHARED | {"batch": 128}, found),
}

CLAIMS = (
    Claim(
        "CLIP: names of unseen pictures are found ten times as often as by chance",
        ("clip", "recall@1"), ("clip", "recall@1 10 x chance"),
    ),
    Claim("CLIP: and more often than by untrained towers", ("clip", "recall@1"), ("clip", "recall@1 untrained")),
    Claim(
        "CLIP: what unseen photographs show is found so, too, after 75 others",
        ("clip, photographs", "recall@1"), ("clip, photographs", "recall@1 10 x chance"),
    ),
    Claim(
        "CLIP: it is found more often than by untrained towers",
        ("clip, photographs", "recall@1"), ("clip, photographs", "recall@1 untrained"),
    ),
    Claim(
        "CLIP: classes that captions name are told without labels, three times as often as by chance",
        ("clip", "told"), ("clip", "told 3 x chance"),
    ),
    Claim("CLIP: garments are told so, too", ("clip, garments", "told"), ("clip, garments", "told 3 x chance")),
    Claim("CLIP: several prompts are as good as one", ("clip", "told"), ("clip", "told by one prompt"), -1),
    Claim("CLIP: a larger batch finds more at equal epochs", ("clip, batch 128", "recall@1"), ("clip, batch 16", "recall@1")),
    Claim("CLIP: what cosines are multiplied by rises", ("clip", "factor"), ("clip", "factor at first"), unit=1),
    Claim("CLIP: above the untrained encoder", ("clip, garments", "linear"), ("clip, garments", "linear untrained")),
    Claim("CLIP: above raw input", ("clip, garments", "linear"), ("clip, garments", "linear input")),
)  # fmt: skip
