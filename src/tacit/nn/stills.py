"""Encoders for images that look at a clip frame by frame: what there is to know of a film without its motion."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tacit.core.draws import Draws
from tacit.nn.encoder import Encoded, Encoder
from tacit.nn.vit import VisionTransformer


class Stills(Encoder):
    """A vision transformer on each frame by itself; a clip's vector is the mean over its frames.

    Args:
        channels: of the frames.
        size: frames, height and width of the clips; any number of frames is served.
        patch: side of a patch in pixels.
        width, depth, heads, pool: of the transformer; its positions are fixed, as in MAE.
    """

    def __init__(
        self, channels: int, size: Sequence[int], patch: int, width: int, depth: int, heads: int, pool: str = "mean"
    ) -> None:
        super().__init__()
        self.width, self.depth = width, depth
        self.image = VisionTransformer(channels, size[1:], patch, width, depth, heads, pool=pool)

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        draws: Draws | None = None,
        taps: Sequence[str] = (),
        attention: bool = False,
    ) -> Encoded:
        """See `Encoder.forward`; `x` is `[B, C, T, H, W]`.

        `keep [B, T * k]` names places of the clip, equally many of each frame, those of the first frame first. Tokens come
        frame after frame, and so do class tokens; taps and attention are those of the frames, `[B * T, ...]`.
        """
        frames, (slots, *sides) = x.shape[2], self.grid(x.shape[2:])
        if keep is not None:
            keep = (keep % (sides[0] * sides[1])).unflatten(1, (slots, -1)).flatten(0, 1)
        seen = self.image(x.transpose(1, 2).flatten(0, 1), keep, draws, taps, attention)
        tokens, prefix = (each.unflatten(0, (-1, frames)).flatten(1, 2) for each in (seen.tokens, seen.prefix))
        return Encoded(seen.pooled.unflatten(0, (-1, frames)).mean(dim=1), tokens, prefix, seen.taps, seen.attention)

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        return (extent[0], *self.image.grid(extent[1:]))

    def level(self, name: str) -> int:
        return self.image.level(name.removeprefix("image."))
