"""C3D with batch-norm: eight convolutions over time and place."""

from __future__ import annotations

from torch import nn

from tacit.nn import init as first_values
from tacit.nn.resnet3d import Triple, VideoConvNet, normed

LAYERS = {"1": 64, "2": 128, "3a": 256, "3b": 256, "4a": 512, "4b": 512, "5a": 512, "5b": 512}
POOLED = {"1": (1, 2, 2), "2": (2, 2, 2), "3b": (2, 2, 2), "4b": (2, 2, 2)}


class C3D(VideoConvNet):
    """3x3x3 convolutions, each with batch-norm and ReLU, and four max-pools; the mean over the last map stands for the fifth.

    Args:
        channels: of the frames.
        multiplier: of all widths, 1 for the published 64 to 512.
        norm: `batch` or `group`.
    """

    def __init__(self, channels: int, multiplier: float = 1.0, norm: str = "batch") -> None:
        super().__init__()
        inputs, self.shrinking = channels, []
        for name, published in LAYERS.items():
            width = max(1, round(published * multiplier))
            layer = nn.Sequential(nn.Conv3d(inputs, width, 3, padding=1, bias=False), normed(norm, width), nn.ReLU())
            if name in POOLED:
                window: Triple = POOLED[name]
                layer.append(nn.MaxPool3d(window, window))
                self.shrinking.append((window, window, (0, 0, 0)))
            self.add_module(f"conv{name}", layer)
            inputs = width
        self.counts = {f"conv{name}": 1 for name in LAYERS}
        self.depth, self.width = len(LAYERS), inputs
        first_values.kaiming(self)
