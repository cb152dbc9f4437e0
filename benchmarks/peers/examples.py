"""Whole training steps of other libraries, in the shape of lightly's own examples (`examples/pytorch/` in its repository).

python benchmarks/peers/examples.py CASE [--batch 256] [--steps 1]

Random images lie in memory as Pillow's, as those of a small data set do; one worker of a DataLoader makes the views. Everything
computes in float32, as the examples do. `train.py` trains the same examples on real ones.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from turns import import_torchvision, take_turns

import_torchvision()

from lightly.loss import DINOLoss, NTXentLoss  # noqa: E402
from lightly.models import utils  # noqa: E402
from lightly.models.modules import DINOProjectionHead, MaskedVisionTransformerTIMM, SimCLRProjectionHead  # noqa: E402
from lightly.models.modules.masked_autoencoder_timm import MAEDecoderTIMM  # noqa: E402
from lightly.transforms import DINOTransform, MAETransform, SimCLRTransform  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from torchvision.models import resnet18  # noqa: E402


@dataclass(frozen=True)
class Example:
    """What an example is made of.

    Attributes:
        size: side of its (large) views, in pixels.
        transform: from an image to its views.
        step: from the views of a batch to an update.
        encoder: what is kept; its features are `encoder(x)`, `[B, D]`.
    """

    size: int
    transform: Callable[[Image.Image], Any]
    step: Callable[[Sequence[Tensor]], object]
    encoder: nn.Module


class Images(Dataset[Any]):
    """Images, again and again: an epoch's end, where workers pause, lies beyond what is measured."""

    def __init__(self, pixels: np.ndarray, transform: Callable[[Image.Image], Any]) -> None:
        self.images = [Image.fromarray(image) for image in pixels]
        self.transform = transform

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.images[index % len(self.images)])


def batches(pixels: np.ndarray, example: Example, batch: int) -> Iterator[Sequence[Tensor]]:
    """The views of random batches of images `[N, H, W, 3]`, without an end in sight."""
    return iter(DataLoader(Images(pixels, example.transform), batch, shuffle=True, num_workers=1, drop_last=True))


def backbone() -> nn.Module:
    """A ResNet-18 without its classifier, as the examples take it."""
    return nn.Sequential(*list(resnet18().children())[:-1], nn.Flatten())


def updated(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """What follows a loss in every example."""
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()


def simclr(size: int) -> Example:
    """ResNet-18 on two views, each by itself."""
    encoder = backbone()
    model = nn.Sequential(encoder, SimCLRProjectionHead(512, 512, 128))
    criterion, optimiser = NTXentLoss(), torch.optim.SGD(model.parameters(), lr=0.06)

    def step(views: Sequence[Tensor]) -> None:
        updated(optimiser, criterion(model(views[0]), model(views[1])))

    return Example(size, SimCLRTransform(input_size=size), step, encoder)


class MAE(nn.Module):
    """lightly's encoder and decoder, put together as in its example: only hidden places are predicted."""

    def __init__(self, size: int, patch: int, width: int, heads: int, decoder: tuple[int, int, int]) -> None:
        super().__init__()
        vit = VisionTransformer(size, patch, embed_dim=width, depth=12, num_heads=heads, num_classes=0)
        self.patch, (inner, depth, inner_heads) = patch, decoder
        self.encoder = MaskedVisionTransformerTIMM(vit)
        self.decoder = MAEDecoderTIMM(
            vit.patch_embed.num_patches, patch, 3, width, inner, decoder_depth=depth, decoder_num_heads=inner_heads
        )

    def forward(self, x: Tensor) -> Tensor:
        shape = len(x), self.encoder.sequence_length
        keep, hidden = utils.random_token_mask(shape, mask_ratio=0.75)
        seen = self.decoder.embed(self.encoder.encode(x, idx_keep=keep))
        tokens = utils.set_at_index(utils.repeat_token(self.decoder.mask_token, shape), keep, seen)
        predicted = self.decoder.predict(utils.get_at_index(self.decoder.decode(tokens), hidden))
        return nn.functional.mse_loss(predicted, utils.get_at_index(utils.patchify(x, self.patch), hidden - 1))


def mae(*shape: Any) -> Example:
    """A masked autoencoder of lightly's modules."""
    model, size = MAE(*shape), shape[0]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1.5e-4)
    return Example(size, MAETransform(input_size=size), lambda views: updated(optimiser, model(views[0])), model.encoder)


def vitmae() -> Example:
    """Hugging Face's ViT-S/16 with the published decoder, which are its defaults but for the encoder's widths."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)
    model = ViTMAEForPreTraining(config).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1.5e-4)
    return Example(224, MAETransform(), lambda views: updated(optimiser, model(views[0]).loss), model.vit)


def dino(size: int, local: int, even: bool = False) -> Example:
    """ResNet-18, two large crops and six small ones, each by itself; `even` blurs none, and its heads start alike."""
    student, student_head = backbone(), DINOProjectionHead(512, 512, 64, 2048, freeze_last_layer=1)
    teacher, teacher_head = copy.deepcopy(student), DINOProjectionHead(512, 512, 64, 2048)
    if even:
        teacher_head.load_state_dict(student_head.state_dict())
    for part in (teacher, teacher_head):
        utils.deactivate_requires_grad(part)
    criterion = DINOLoss(output_dim=2048, warmup_teacher_temp_epochs=5)
    optimiser = torch.optim.Adam([*student.parameters(), *student_head.parameters()], lr=0.001)

    def step(views: Sequence[Tensor]) -> None:
        utils.update_momentum(student, teacher, m=0.99)
        utils.update_momentum(student_head, teacher_head, m=0.99)
        taught = [teacher_head(teacher(view)) for view in views[:2]]
        updated(optimiser, criterion(taught, [student_head(student(view)) for view in views], epoch=5))

    blur = (0.0, 0.0, 0.0) if even else (1.0, 0.1, 0.5)
    transform = DINOTransform(global_crop_size=size, local_crop_size=local, gaussian_blur=blur)
    return Example(size, transform, step, teacher)


CASES: dict[str, tuple[Callable[..., Example], tuple[Any, ...], str]] = {
    "simclr": (simclr, (32,), "lightly"),
    "mae-tiny": (mae, (32, 4, 192, 3, (192, 2, 3)), "lightly"),
    "mae-small": (mae, (224, 16, 384, 6, (512, 8, 16)), "lightly"),
    "vitmae-small": (vitmae, (), "transformers"),
    "dino": (dino, (224, 96), "lightly"),
}


def main() -> None:
    """A turn makes so many steps."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("case", choices=CASES)
    words.add_argument("--batch", type=int, default=256)
    words.add_argument("--steps", type=int, default=1)
    asked = words.parse_args()
    make, shape, library = CASES[asked.case]
    example = make(*shape)
    side = example.size if example.size < 64 else 256  # as a store would keep photographs for views of 224
    pixels = np.random.default_rng(0).integers(0, 256, (2**20 // side**2, side, side, 3), dtype=np.uint8)
    views = batches(pixels, example, asked.batch)
    take_turns(lambda: [example.step(next(views)) for _ in range(asked.steps)], asked.steps, "torchvision", "timm", library)


if __name__ == "__main__":
    main()
