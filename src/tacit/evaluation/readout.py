"""Which of the things that a frozen encoder says of a sample are its features."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.core.errors import TacitError, one_of
from tacit.nn.encoder import Encoded, Encoder
from tacit.nn.vit import VisionTransformer

FEATURES = {
    "pooled": "what the encoder pools itself, of length D: a transformer's class token, a network's mean over places",
    "class": "the class token after the last norm, D",
    "mean": "the mean of the tokens of all places after the last norm, D",
    "mean+max": "that and the maximum over the same tokens, 2 D: of masked systems it often finds better neighbours",
    "class+mean": "class token and mean, 2 D: what DINO's linear probe reads off a ViT-B",
    "class4": "the class tokens of the last four blocks, each after the last norm, 4 D: what it reads off a ViT-S",
}
WHITENED = "whitened"
"""Not an output, but what becomes of the pooled ones; see `evaluation.whitening`."""

LAST = 4


def read_out(encoder: Encoder, x: Tensor, features: str = "pooled") -> Tensor:
    """Features of normalised samples `x [B, C, *extent]`: `[B, D]`, or longer; see `FEATURES`.

    Raises:
        TacitError: no features of this name, or the encoder does not have what they are made of.
    """
    one_of("features", features, FEATURES)
    if features == "class4":
        return _last_class_tokens(encoder, x)
    seen = encoder(x)
    if features == "pooled":
        return seen.pooled
    parts = {
        "class": lambda: _class_token(encoder, seen),
        "mean": lambda: seen.tokens.mean(dim=1),
        "max": lambda: seen.tokens.amax(dim=1),
    }
    return torch.cat([parts[part]() for part in features.split("+")], dim=1)


def _class_token(encoder: Encoder, seen: Encoded) -> Tensor:
    # Registers alone are a prefix too. A foreign encoder's first prefix token is its class token.
    if seen.prefix is None or (isinstance(encoder, VisionTransformer) and encoder.cls_token is None):
        raise TacitError("the encoder has no class token to read; take --features mean or pooled")
    return seen.prefix[:, 0]


def _last_class_tokens(encoder: Encoder, x: Tensor) -> Tensor:
    if not isinstance(encoder, VisionTransformer) or encoder.cls_token is None or encoder.depth < LAST:
        raise TacitError(
            f"--features class4 reads the class token of {LAST} blocks, which one of tacit's transformers has; "
            "take pooled or mean for this encoder"
        )
    names = [f"blocks.{index}" for index in range(encoder.depth - LAST, encoder.depth)]
    taps = encoder(x, taps=names).taps
    return torch.cat([encoder.norm(taps[name][:, 0]) for name in names], dim=1)
