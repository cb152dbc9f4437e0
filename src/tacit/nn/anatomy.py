"""A small network that says of every place in a volume which place of the body it is: one unit vector fine, one coarse.

After "Self-supervised Anatomical eMbedding" (SAM, Yan et al. 2020): a 3D residual network whose deepest map gives coarse
vectors, and a pyramid that carries it down again for fine ones. It is the embedding that Alice finds its pairs with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError, one_of
from tacit.nn import init as first_values
from tacit.nn.encoder import Encoded, Encoder
from tacit.nn.norms import BatchNorm
from tacit.nn.resnet3d import BasicBlock3d

FINE = 2
"""Voxels to a fine cell, along each axis."""


class Shape(NamedTuple):
    width: int


VARIANTS = {"anatomy-mini": Shape(16), "anatomy-small": Shape(32)}


class AnatomyNet(Encoder):
    """Unit vectors for every place of a volume, at stride 2 (fine) and at a coarser stride.

    Args:
        channels: of the volumes.
        width: channels of the first map; it doubles with every halving, up to four times as many.
        out: D, the length of both kinds of vectors.
        coarse: voxels to a coarse cell, a power of 2 above 2: 16, or 8 for volumes below 64 voxels.
    """

    def __init__(self, channels: int, width: int = 32, out: int = 64, coarse: int = 16) -> None:
        super().__init__()
        halvings = coarse.bit_length() - 1
        if coarse != 2**halvings or halvings < 2:
            raise TacitError(f"coarse={coarse}: give a power of 2 that is at least 4")
        self.coarse, self.width, self.depth = coarse, out, halvings - 1
        widths = [width * min(2**index, 4) for index in range(halvings)]
        self.conv1 = nn.Conv3d(channels, width, 3, stride=FINE, padding=1, bias=False)
        self.bn1 = BatchNorm(width)
        self.layers = nn.ModuleList(
            BasicBlock3d(widths[i], widths[i + 1], 2, factored=False, norm="batch") for i in range(halvings - 1)
        )
        self.laterals = nn.ModuleList(nn.Conv3d(side, out, 1) for side in widths)
        self.fine_head = nn.Conv3d(out, out, 3, padding=1)
        self.coarse_head = nn.Conv3d(out, out, 3, padding=1)
        first_values.kaiming(self)

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        draws: Draws | None = None,  # noqa: ARG002 - nothing is dropped here
        taps: Sequence[str] = (),
        attention: bool = False,
    ) -> Encoded:
        """See `Encoder.forward`. Tokens are the coarse vectors, the last axis fastest, and `pooled` is their mean.

        The taps `fine` and `coarse` are maps `[B, D, x, y, z]` of unit vectors, as `views.volume_crops.descriptors` takes
        them. Fine vectors cost nothing unless they are asked for.
        """
        if keep is not None or attention:
            raise TacitError("the anatomy network has no tokens to hide and no attention to show; take a transformer")
        for tap in taps:
            one_of("tap", tap, ("fine", "coarse"))
        maps = [self.bn1(self.conv1(x)).relu()]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        top = self.laterals[-1](maps[-1])
        coarse = F.normalize(self.coarse_head(top), dim=1)
        seen = {"coarse": coarse} if "coarse" in taps else {}
        if "fine" in taps:
            for lateral, finer in zip(reversed(self.laterals[:-1]), reversed(maps[:-1]), strict=True):
                top = lateral(finer) + F.interpolate(top, size=finer.shape[2:], mode="trilinear", align_corners=False)
            seen["fine"] = F.normalize(self.fine_head(top), dim=1)
        tokens = coarse.flatten(2).transpose(1, 2)
        return Encoded(tokens.mean(dim=1), tokens, taps=seen)

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        """Coarse cells along each axis; every halving rounds up."""
        return tuple(-(-side // self.coarse) for side in extent)

    def level(self, name: str) -> int:
        if name.startswith("layers."):
            return int(name.split(".")[1]) + 1
        return 0 if name.startswith(("conv1.", "bn1.")) else self.depth + 1
