"""An encoder so small that a hundred runs of it fit into an hour of one core: `small_encoder.py:Small`."""

from __future__ import annotations

from tacit.nn.resnet import ResNet


class Small(ResNet):
    """A residual network of four blocks and 128 features."""

    def __init__(self, channels: int, size: tuple[int, ...]) -> None:  # noqa: ARG002
        super().__init__(channels, (1, 1, 1, 1), widths=(16, 32, 64, 128), stem="small")
