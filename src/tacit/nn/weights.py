"""Weights from elsewhere: found in a file, named as timm does, fitted to an encoder."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tacit.core import archives
from tacit.core.errors import TacitError
from tacit.nn.encoder import Encoder
from tacit.nn.positions import resample
from tacit.nn.vit import VisionTransformer

# What training scripts put in front of a name; where a file holds two networks, the one with the lower number is taken.
_PREFIXES = {
    "module": 0,
    "_orig_mod": 0,
    "model": 0,
    "state_dict": 0,
    "backbone": 0,
    "encoder": 0,
    "trunk": 0,
    "teacher": 0,
    "base_encoder": 0,
    "student": 1,
    "momentum_encoder": 1,
}
_STEMS = ("patch_embed.proj.weight", "conv1.weight")


@torch.no_grad()
def initialise(encoder: Encoder, path: str | os.PathLike[str]) -> str:
    """Copy what fits from a file of weights into an encoder.

    Names of timm, MAE, DINO, DINOv2, MoCo v3 and torchvision are understood, behind any of the usual prefixes. Positions
    are resampled to the encoder's grid (bicubically, by size), the first layer is fitted to its number of channels.

    Args:
        encoder: whose weights are overwritten.
        path: safetensors, or a file of `torch.save` that holds tensors only; or a run's folder.

    Returns:
        `n of m tensors`, and which of the m were not found or have another shape.

    Raises:
        TacitError: the file cannot be read, would run code, or has nothing that fits.
    """
    source = named(read(path))
    own = encoder.state_dict()
    missing, unfit = [], []
    for key, tensor in own.items():
        name = _strip(key)[0]
        if name not in source:
            missing.append(key)
            continue
        found = _fit(encoder, name, source[name], tensor)
        if found.shape != tensor.shape:
            unfit.append(f"{key} ({list(found.shape)} for {list(tensor.shape)})")
        else:
            tensor.copy_(found)
    count = len(own) - len(missing) - len(unfit)
    notes = [f"{title}: {_some(keys)}" for title, keys in (("not found", missing), ("another shape", unfit)) if keys]
    report = "; ".join([f"{count} of {len(own)} tensors", *notes])
    if count == 0:
        raise TacitError(f"{path} has no weights for this encoder ({report}); choose the encoder that they were trained with")
    return report


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a file of weights, without running any code in it."""
    path = Path(path)
    if path.is_dir():
        path = path / "encoder.safetensors"
    if not path.is_file():
        raise TacitError(f"no such file of weights: {path}")
    try:
        archives.refuse_damaged(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        # A namespace of options lies beside the weights in many official files; rebuilding one runs no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # a damaged file makes a parser fail in any way
        raise TacitError(
            f"cannot read {path} as weights alone ({type(problem).__name__}); save a plain state_dict, best as safetensors"
        ) from problem
    if not isinstance(content, Mapping):
        raise TacitError(f"{path} holds a {type(content).__name__}, not named tensors; save a plain state_dict")
    return dict(content)


def named(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors by timm's names, from a state dict or the dictionaries around it (`model`, `teacher`, `state_dict` ...)."""
    best: dict[str, tuple[int, Tensor]] = {}
    for path, tensor in _tensors(content, ""):
        name, rank = _strip(path)
        name = re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name)  # DINOv2 keeps its blocks in chunks
        name = "reg_token" if name == "register_tokens" else name
        if name not in best or rank < best[name][0]:
            best[name] = rank, tensor
    return {name: tensor for name, (_, tensor) in best.items()}


def _tensors(content: Mapping[str, Any], front: str) -> list[tuple[str, Tensor]]:
    found = []
    for key, value in content.items():
        if isinstance(value, Tensor):
            found.append((f"{front}{key}", value))
        elif isinstance(value, Mapping) and key in _PREFIXES:
            found += _tensors(value, f"{front}{key}.")
    return found


def _strip(name: str) -> tuple[str, int]:
    """A name without prefixes, and how far its network is from the one that is wanted."""
    rank = 0
    while (head := name.partition("."))[0] in _PREFIXES and head[2]:
        rank, name = rank + _PREFIXES[head[0]], head[2]
    return name, rank


def _fit(encoder: Encoder, name: str, found: Tensor, own: Tensor) -> Tensor:
    if found.shape == own.shape:
        return found
    if name == "pos_embed" and isinstance(encoder, VisionTransformer):
        return _fit_positions(encoder, found.float(), own)
    if name in _STEMS and found.shape[2:] == own.shape[2:] and len(found) == len(own):
        return _fit_channels(found.float(), own.shape[1])
    return found


def _fit_positions(encoder: VisionTransformer, found: Tensor, own: Tensor) -> Tensor:
    """From any square grid, with or without a row for the class token."""
    own_prefix = own.shape[1] - math.prod(encoder.table_grid)
    for prefix in (0, 1):
        side = math.isqrt(found.shape[1] - prefix)
        if side * side == found.shape[1] - prefix:
            places = resample(found[:, prefix:], (side, side), encoder.table_grid)
            front = found[:, :prefix] if prefix == own_prefix else torch.zeros_like(own[:, :own_prefix])
            return torch.cat([front.to(places.dtype), places], dim=1)
    return found


def _fit_channels(weight: Tensor, channels: int) -> Tensor:
    """Repeat the input channels in turn, and scale so that a grey image excites the layer as before."""
    old = weight.shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    turns = weight.repeat(1, -(-channels // old), 1, 1)[:, :channels]
    return turns * (old / channels)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
