"""Methods for films small enough for a test to take steps with, and films for them."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric

from tacit.core.draws import Draws
from tacit.data.spec import Batch, Spec
from tacit.methods.method import Facts, Method, Progress, Terms
from tacit.methods.registry import method
from tacit.train.config import Training
from tacit.train.session import build_method
from tacit.train.step import Step

FRAMES, SIDE = 12, 20
SPEC = Spec("video", 3, (FRAMES, SIDE, SIDE))
FIRST = Progress(0, 10, 5)

OPTIONS: dict[str, dict[str, Any]] = {
    "child-video": {
        "frames": 4, "stride": 1, "mask_ratio": 0.75, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "repeats": 1,
    },
    "rspnet": {"frames": 4, "head_out": 12, "queue": 32, "splits": 1},
}  # fmt: skip
ENCODERS = {"child-video": "video-vit-micro/2x8", "rspnet": "r3d-mini"}


def films(count: int, first: int = 0, frames: int = FRAMES) -> Batch:
    """A bright bar that wanders over noise, at a pace and from a place of each film's own."""
    ids = torch.arange(first, first + count)
    noise = Draws(7, 0, ids).uniform("films", 3, frames, SIDE, SIDE, high=96)
    place = (ids[:, None] * 5 + (1 + ids[:, None] % 3) * torch.arange(frames)) % SIDE  # [B, T]
    bar = 150.0 * (torch.arange(SIDE) == place[..., None])[:, None, :, None, :]
    data = (noise + bar).to(torch.uint8)
    return Batch(ids, data, torch.tensor([[frames, SIDE, SIDE]], dtype=torch.int32).expand(count, -1))


def tiny(name: str, encoder: str = "", batch: int = 8, size: int = 16, **options: Any) -> Any:
    """A method with its first weights."""
    chosen = {"normalise": "data", **OPTIONS[name], **options}
    training = Training(encoder=encoder or ENCODERS[name], size=size, batch=batch)
    return build_method(method(name), method(name).Options(**chosen), training, SPEC)


def stepping(made: Method, **training: Any) -> Step:
    """What updates the method, by SGD without momentum or decay unless said otherwise."""
    values = {"size": made.size, "optimiser": "sgd", "momentum": 0.0, "lr": 0.1, "schedule": "constant", "batch": 8, **training}
    return Step(made, Training(**values), SPEC, Fabric(accelerator="cpu", devices=1))


def seen(made: Method, batch: Batch | None = None) -> tuple[dict[str, torch.Tensor], Draws]:
    """Views of some films in the method's precision, and the draws they were made with."""
    batch, dtype = batch or films(8), next(made.parameters()).dtype
    draws = Draws(0, 0, batch.ids)
    return {name: view(batch, draws.within(name), SPEC).to(dtype) for name, view in made.views().items()}, draws


def forward(made: Method, batch: Batch | None = None, progress: Progress = FIRST) -> Terms:
    return made(*seen(made, batch), progress)


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, copied."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def auto(name: str, **known: Any) -> dict[str, Any]:
    """The values that `auto` chooses for some hundred films of 16 frames on a processor, but for what is known better."""
    usual: dict[str, Any] = {
        "spec": Spec("video", 3, (16, 64, 64)), "samples": 400, "duplicates": 0.0, "sparse": 0.0, "flat": 0.0, "mirrored": None,
        "batch": 32, "steps": 2000, "size": 64, "extent": (8, 64, 64), "encoder": ENCODERS[name], "width": 128, "device": "cpu",
    }  # fmt: skip
    return {key: chosen.value for key, chosen in method(name).auto(Facts(**(usual | known))).items()}
