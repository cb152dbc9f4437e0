"""Vision transformers over tubelets of clips, for any set of visible tubelets. Parameter names are timm's where it has them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError, one_of
from tacit.nn.blocks import Block
from tacit.nn.encoder import Encoded, bounded
from tacit.nn.spacetime import SpaceTimePositions, TubeletEmbed, first_values
from tacit.nn.trunk import Transformer, rising

POSITIONS = ("separable", "joint")


class VideoTransformer(Transformer):
    """Tubelet embedding, learned positions, pre-norm blocks, a last layer norm (MAE-ST).

    Args:
        channels: of the frames.
        size: frames, height and width of the clips that positions are made for. Frames of another size are served by
            positions resampled bicubically; the number of frames is fixed.
        tubelet: frames of a tubelet.
        patch: its side in pixels.
        width, depth, heads: D, the number of blocks, attention heads.
        mlp_ratio: hidden width of the MLPs over D.
        positions: `separable` (a row per time slot plus a row per place) or `joint` (a row per tubelet).
        class_token: whether there is one, with a position of its own.
        pool: what a clip's vector is: `mean` of the tokens or `cls`, both after the last norm. Where pretraining uses the
            tokens alone, nothing ever trains what the last block makes of the class token: then `mean` is the better one.
        drop_path: chance that a branch is dropped in the last block; it grows linearly from 0 in the first.
        eps: of the layer norms.
    """

    def __init__(
        self,
        channels: int,
        size: Sequence[int],
        tubelet: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        positions: str = "separable",
        class_token: bool = True,
        pool: str = "mean",
        drop_path: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        one_of("positions", positions, POSITIONS)
        one_of("pool", pool, ("mean", "cls") if class_token else ("mean",))
        self.width, self.depth, self.pool = width, bounded(depth), pool
        self.prefix = int(class_token)
        self.patch_embed = TubeletEmbed(channels, width, tubelet, patch)
        self.pos_embed = SpaceTimePositions(width, self._whole(size), class_token, joint=positions == "joint")
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if class_token else None
        self.blocks = nn.ModuleList([Block(width, heads, mlp_ratio, rate, eps=eps) for rate in rising(drop_path, depth)])
        self.norm = nn.LayerNorm(width, eps=eps)
        first_values(self)
        if self.cls_token is not None:
            nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        draws: Draws | None = None,
        taps: Sequence[str] = (),
        attention: bool = False,
    ) -> Encoded:
        """See `Encoder.forward`; `x` is `[B, C, T, H, W]`. A tap `blocks.i` is the output of a block, class token first."""
        places = self.pos_embed(self._whole(x.shape[2:]))  # [L, D]
        tokens = self.patch_embed(x, keep) + (places if keep is None else places[keep])
        return self.read(self.pos_embed.led(self.cls_token, tokens), draws, taps, attention)

    def _whole(self, extent: Sequence[int]) -> tuple[int, ...]:
        grid = self.grid(extent)
        if not all(grid):
            raise TacitError(
                f"clips of {extent[0]} frames of {extent[1]}x{extent[2]} pixels hold no tubelet of {self.patch_embed.tubelet} "
                f"frames of {self.patch_embed.patch} pixels; take longer or larger clips, or a smaller tubelet"
            )
        return grid

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        return self.patch_embed.grid(extent)
