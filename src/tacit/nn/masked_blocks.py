"""The blocks that encoders of channels are made of, with norms before or after each part. Names are timm's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tacit.core.draws import Draws
from tacit.nn.blocks import Attention, Block, Mlp, drop_path


class ReluMlp(Mlp):
    """`fc2(relu(fc1(x)))`."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(x)))


class PreNormBlock(Block):
    """The usual block, `x += attn(norm1(x)); x += mlp(norm2(x))`, with a hidden layer of any width.

    Args:
        width: D.
        heads: how many; a divisor of the width.
        hidden: width of the MLP's hidden layer.
        drop_path: chance that a branch is dropped, per sample.
        eps: of the layer norms.
    """

    feedforward: type[Mlp] = Mlp

    def __init__(self, width: int, heads: int, hidden: int, drop_path: float = 0.0, eps: float = 1e-6) -> None:
        super().__init__(width, heads, 1.0, drop_path, eps=eps)
        self.attn = Attention(width, heads)  # anew, so that a seed stands for the first values that it always stood for
        self.mlp = self.feedforward(width, hidden)


class PostNormBlock(PreNormBlock):
    """The official block: `x = norm1(x + attn(norm1(x))); x = norm2(x + mlp(x))`, ReLU; one `norm1` does both."""

    feedforward = ReluMlp

    def __init__(self, width: int, heads: int, hidden: int, drop_path: float = 0.0, eps: float = 1e-5) -> None:
        super().__init__(width, heads, hidden, drop_path, eps)

    def _finish(self, x: Tensor, branch: Tensor, draws: Draws | None) -> Tensor:
        x = self.norm1(x + drop_path(branch, self.drop_path, draws, "attn"))
        return self.norm2(x + drop_path(self.mlp(x), self.drop_path, draws, "mlp"))


BLOCKS: dict[str, type[PreNormBlock]] = {"official": PostNormBlock, "prenorm": PreNormBlock}
