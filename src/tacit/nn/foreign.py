"""Encoders that tacit did not write: timm's by name, a user's own class from a file."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError, nearest
from tacit.nn.encoder import Encoded, Encoder


class Foreign(Encoder):
    """Any module from images to features, behind the encoder's contract. It sees whole images only.

    Args:
        model: gives `[B, D]`, tokens `[B, P + L, D]` or a map `[B, D, h, w]`; `forward_features` is called where it exists.
        width: D.
        stride: pixels of a side per place; None if there is one place only.
        prefix: P, tokens that belong to no place.
    """

    def __init__(self, model: nn.Module, width: int, stride: int | None = None, prefix: int = 0) -> None:
        super().__init__()
        self.model, self.width, self.stride, self.prefix = model, width, stride, prefix
        blocks = getattr(model, "blocks", None)
        self.depth = len(blocks) if isinstance(blocks, Sized) else 0

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        draws: Draws | None = None,  # noqa: ARG002 - its randomness, if any, is its own
        taps: Sequence[str] = (),
        attention: bool = False,
    ) -> Encoded:
        if keep is not None or taps or attention:
            raise TacitError("this encoder shows its last features only; take one of tacit's own (vit-small/16, ...)")
        y = getattr(self.model, "forward_features", self.model)(x)
        if y.ndim == 2:
            return Encoded(y, y[:, None])
        if y.ndim == 4:
            y = y.flatten(2).transpose(1, 2)
        prefix, tokens = y[:, : self.prefix], y[:, self.prefix :]
        return Encoded(prefix[:, 0] if self.prefix else tokens.mean(dim=1), tokens, prefix if self.prefix else None)

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        return tuple(-(-side // self.stride) if self.stride else 1 for side in extent)

    def level(self, name: str) -> int:
        if block := re.match(r"model\.blocks\.(\d+)\.", name):
            return int(block[1]) + 1
        return 0 if re.match(r"model\.(patch_embed|cls_token|pos_embed|reg_token)", name) else self.depth + 1


def from_timm(name: str, channels: int, extent: Sequence[int], options: dict[str, Any]) -> Foreign:
    """A model of timm without its classifier and with fresh weights; options go to `timm.create_model`."""
    try:
        import timm
    except ImportError:
        raise TacitError(f"timm:{name} needs timm, which is not installed: pip install 'tacit[timm]'") from None
    if not timm.is_model(name):
        raise TacitError(f"timm has no model '{name}'{nearest(name, timm.list_models())}")
    by_size = {"img_size": tuple(extent)} if "vit" in name or "swin" in name else {}
    model = timm.create_model(name, pretrained=False, in_chans=channels, num_classes=0, **by_size, **options)
    return Foreign(model, model.num_features, model.feature_info[-1]["reduction"], getattr(model, "num_prefix_tokens", 0))


def absolute(name: str) -> str:
    """`file.py:Class` with the whole path, so that a run can go on from another folder."""
    path, _, title = name.rpartition(":")
    return f"{Path(path).resolve()}:{title}"


def from_file(name: str, channels: int, extent: Sequence[int], options: dict[str, Any]) -> Encoder:
    """A class of the user's own, `file.py:Class`, called with `channels`, `size=(height, width)` and the options.

    It is an `Encoder`, or any module from images to features that says their length as `width`.
    """
    path, _, title = name.rpartition(":")
    if not Path(path).is_file():
        raise TacitError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(f"tacit_user_{hashlib.sha256(path.encode()).hexdigest()[:12]}", path)
    if spec is None or spec.loader is None:
        raise TacitError(f"cannot import {path}; it must be a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    make = getattr(module, title, None)
    if not (isinstance(make, type) and issubclass(make, nn.Module)):
        classes = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, nn.Module)]
        raise TacitError(f"{path} has no torch module '{title}', only {', '.join(classes) or 'none'}{nearest(title, classes)}")
    made = make(channels=channels, size=tuple(extent), **options)
    if isinstance(made, Encoder):
        return made
    if not isinstance(width := getattr(made, "width", None), int):
        raise TacitError(f"{title} in {path} must say how long its features are: set self.width to that number")
    return Foreign(made, width)
