"""Methods small enough for a test to take steps with: what the tests of single methods build upon."""

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

SIDE = 20
SPEC = Spec("image", 3, (SIDE, SIDE))
FIRST = Progress(0, 10, 5)

OPTIONS: dict[str, dict[str, Any]] = {
    "dino": {"prototypes": 24, "head_width": 20, "bottleneck": 12, "local_crops": 2, "local_size": 8, "drop_path": 0.0},
    "mae": {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "mask_ratio": 0.6},
    "moco-v3": {"head_width": 24, "head_out": 16},
    "simclr": {"head_width": 24, "head_out": 16},
}


def pictures(count: int, first: int = 0, channels: int = 3) -> Batch:
    """Noise with a gradient in it, of some ids."""
    ids = torch.arange(first, first + count)
    noise = Draws(7, 0, ids).uniform("pictures", channels, SIDE, SIDE, high=128)
    data = (noise + torch.linspace(0, 127, SIDE)).to(torch.uint8)
    return Batch(ids, data, torch.tensor([[SIDE, SIDE]], dtype=torch.int32).expand(count, -1))


def tiny(name: str, encoder: str = "vit-micro/4", batch: int = 32, size: int = 16, **options: Any) -> Any:
    """A method with its first weights."""
    chosen = {"normalise": "data", **OPTIONS[name], **options}
    return build_method(method(name), method(name).Options(**chosen), Training(encoder=encoder, size=size, batch=batch), SPEC)


def stepping(made: Method, **training: Any) -> Step:
    """What updates the method, by SGD without momentum or decay unless said otherwise."""
    values = {"size": made.size, "optimiser": "sgd", "momentum": 0.0, "lr": 0.1, "schedule": "constant", **training}
    return Step(made, Training(**values), SPEC, Fabric(accelerator="cpu", devices=1))


def seen(made: Method, count: int = 8, epoch: int = 0) -> tuple[dict[str, torch.Tensor], Draws]:
    """Views of some pictures, and the draws they were made with."""
    batch = pictures(count)
    draws = Draws(0, epoch, batch.ids)
    return {name: view(batch, draws.within(name), SPEC) for name, view in made.views().items()}, draws


def forward(made: Method, count: int = 8, progress: Progress = FIRST) -> Terms:
    return made(*seen(made, count), progress)


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, copied."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def facts(**known: Any) -> Facts:
    """A few thousand small pictures on a processor, but for what is known better."""
    usual: dict[str, Any] = {
        "spec": SPEC, "samples": 4000, "duplicates": 0.0, "sparse": 0.0, "flat": 0.0, "mirrored": None, "batch": 128,
        "steps": 2000, "size": 32, "encoder": "resnet-mini", "width": 256, "device": "cpu",
    }  # fmt: skip
    usual |= known
    return Facts(extent=(usual["size"],) * 2, **usual)


def auto(name: str, **known: Any) -> dict[str, Any]:
    """The values that `auto` chooses."""
    return {key: chosen.value for key, chosen in method(name).auto(facts(**known)).items()}
