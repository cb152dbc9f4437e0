"""What convolutional encoders have in common, for images and for video: stages one after the other, blocks in a stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError, one_of
from tacit.nn.encoder import Encoded, Encoder, bounded


class ConvNet(Encoder):
    """Stages, one after the other, and the mean over the last map.

    Attributes:
        counts: names of the submodules that are stages, in their order, and as how many blocks each counts, if any. Taps can
            ask for all of them.
    """

    counts: dict[str, int]

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        draws: Draws | None = None,  # noqa: ARG002 - nothing is dropped here
        taps: Sequence[str] = (),
        attention: bool = False,
    ) -> Encoded:
        """See `Encoder.forward`. Tokens are the cells of the last map, the last axis fastest; a tap is a map `[B, C, ...]`."""
        if keep is not None or attention:
            raise TacitError(
                "a convolutional network has no tokens to hide and no attention to show; take a transformer (vit-mini, "
                "video-vit-mini, ...)"
            )
        for tap in taps:
            one_of("tap", tap, self.counts)
        x, seen = self.first_map(x), {}
        for name in self.counts:
            x = self.get_submodule(name)(x)
            if name in taps:
                seen[name] = x
        tokens = x.flatten(2).transpose(1, 2)
        return Encoded(self.pooled(x, tokens), tokens, taps=seen)

    def first_map(self, x: Tensor) -> Tensor:
        """What the first stage is given of samples `[B, C, ...]`."""
        return x

    def pooled(self, last: Tensor, cells: Tensor) -> Tensor:  # noqa: ARG002 - others look at the map
        """One vector `[B, D]` of the last map `[B, C, ...]`, whose cells are `[B, L, C]`."""
        return cells.mean(dim=1)

    def level(self, name: str) -> int:
        stage, index = [*name.split("."), ""][:2]
        if not (count := self.counts.get(stage, 0)):
            return 0
        before = list(self.counts.values())[: list(self.counts).index(stage)]
        return sum(before) + (int(index) if count > 1 else 0) + 1

    def add_stages(
        self,
        block: Callable[[int, int, int], nn.Module],
        inputs: int,
        blocks: Sequence[int],
        widths: Sequence[int],
        expansion: int = 1,
    ) -> int:
        """Add and count residual stages `layer1`, `layer2` ..., of which all but the first begin with a stride of 2.

        Args:
            block: makes one of its channels, width and stride.
            inputs: channels of the first map.
            blocks, widths: of each stage.
            expansion: how many times as wide as its width a block is at its end.

        Returns:
            The channels of the last map.
        """
        self.depth = bounded(sum(blocks))
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), 1):
            layer = nn.Sequential()
            for index in range(count):
                layer.append(block(inputs, width, 2 if stage > 1 and index == 0 else 1))
                inputs = expansion * width
            self.add_module(f"layer{stage}", layer)
            self.counts[f"layer{stage}"] = count
        return inputs
