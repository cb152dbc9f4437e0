"""Encoders by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tacit.nn import foreign
from tacit.nn.encoder import Encoder
from tacit.nn.families import own
from tacit.nn.init import seeded
from tacit.nn.weights import initialise

__all__ = ["encoder", "initialise", "tensors"]


def encoder(name: str, channels: int, size: int | Sequence[int], seed: int = 0, **options: Any) -> Encoder:
    """An untrained encoder whose weights are a function of the seed.

    Args:
        name: `vit-small/16` (variant and patch), `resnet18`, `timm:NAME`, or `file.py:Class` for a class of one's own (see
            `foreign.from_file`).
        channels: of the samples.
        size: side, or all axes, of the views.
        seed: of the first weights.
        options: of the class: see `VisionTransformer`, `ResNet`.

    Returns:
        An encoder whose `config` rebuilds it: `encoder(**config)`.

    Raises:
        TacitError: no encoder has this name, no option is called so, or a patch does not fit.
    """
    extent = [size, size] if isinstance(size, int) else list(size)
    with seeded(seed, "encoder"):
        if name.startswith("timm:"):
            made = foreign.from_timm(name.removeprefix("timm:"), channels, extent, options)
        elif ".py:" in name:
            name = foreign.absolute(name)
            made = foreign.from_file(name, channels, extent, options)
        else:
            made = own(name, channels, extent, options)
    made.config = {"name": name, "channels": channels, "size": extent, **options}
    return made


def tensors(name: str, channels: int, size: int | Sequence[int], **options: Any) -> dict[str, torch.Size] | None:
    """Names and shapes of an encoder's weights, without making any; None for those that are not tacit's own.

    See `encoder` for the arguments.
    """
    if name.startswith("timm:") or ".py:" in name:
        return None
    with torch.device("meta"):
        return {key: tensor.shape for key, tensor in encoder(name, channels, size, **options).state_dict().items()}
