"""Encoders by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tacit.core.errors import TacitError, nearest
from tacit.nn import foreign, resnet, vit
from tacit.nn.encoder import Encoder
from tacit.nn.init import seeded
from tacit.nn.weights import initialise

__all__ = ["encoder", "initialise", "tensors"]


def encoder(name: str, channels: int, size: int | Sequence[int], seed: int = 0, **options: Any) -> Encoder:
    """An untrained encoder whose weights are a function of the seed.

    Args:
        name: `vit-small/16` (variant and patch), `resnet18`, `timm:NAME`, or `file.py:Class` for a class of one's own (see
            `foreign.from_file`).
        channels: of the samples.
        size: side, or height and width, of the views.
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
            made = _own(name, channels, extent, options)
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


def _own(name: str, channels: int, extent: list[int], options: dict[str, Any]) -> Encoder:
    variant, _, patch = name.partition("/")
    if variant in vit.VARIANTS:
        if not patch.isdigit() or not 0 < int(patch) <= min(extent):
            raise TacitError(f"encoder {name}: give a patch of 1 to {min(extent)} pixels behind the name, as in {variant}/8")
        _check(name, vit.VisionTransformer, options)
        shape = vit.VARIANTS[variant]._asdict()
        return vit.VisionTransformer(channels, extent, int(patch), **{**shape, **options})
    if variant in resnet.VARIANTS and not patch:
        _check(name, resnet.ResNet, options)
        shape = resnet.VARIANTS[variant]._asdict()
        # The larger stem leaves too little of a small image. What is chosen here becomes part of the configuration.
        options.setdefault("stem", "small" if min(extent) <= 64 else "imagenet")
        return resnet.ResNet(channels, **{**shape, **options})
    known = [f"{variant}/16" for variant in vit.VARIANTS] + list(resnet.VARIANTS)
    raise TacitError(
        f"no encoder is called '{name}'{nearest(name, known)} (there are {', '.join(known)}, timm:NAME, file.py:Class)"
    )


def _check(name: str, make: Callable[..., Encoder], options: dict[str, Any]) -> None:
    known = list(inspect.signature(make).parameters)
    for option in options:
        if option not in known:
            raise TacitError(f"encoder {name} has no option '{option}'{nearest(option, known)}")
