"""Train one of lightly's examples on images for so many minutes or images seen, and take the features of all of them.

python benchmarks/peers/train.py METHOD FOLDER (--minutes 4 | --samples 20000) [--largest 64] [--seed 0] [--threads 1]

METHOD is `simclr`, `dino`, `mae`, or `dino-even`: without blur, and with a teacher that starts as its student, head and all.

FOLDER holds `images.npy`, uint8 `[N, H, W, 3]`, and `train.npy`, int64: which of them are trained on. `features.npy`, float32
`[N, D]`, is written beside them. Views are as large as the images, but `--largest` pixels at most; DINO's small crops half of
that. Batch, rates and everything else are the examples'. Encoders are ResNet-18 and, for MAE, ViT-tiny with a decoder of two
blocks. The clock starts with the first batch. The last line of the output says in JSON what was done.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from examples import Example, batches, dino, mae, simclr
from lightly.transforms.utils import IMAGENET_NORMALIZE
from PIL import Image
from torch import Tensor
from torchvision import transforms as T

BATCHES = {"simclr": 256, "dino": 64, "dino-even": 64, "mae": 256}
"""The examples'; all images where there are fewer."""


def example_of(method: str, side: int) -> Example:
    """The example at the size that suits images of this side."""
    patch = 4 if side < 48 else 8
    size = side // patch * patch
    if method in ("dino", "dino-even"):
        return dino(size, size // 2, even=method == "dino-even")
    return simclr(size) if method == "simclr" else mae(size, patch, 192, 3, (192, 2, 3))


def learn(example: Example, pixels: np.ndarray, batch: int, seconds: float, samples: float) -> int:
    """Steps until the time has passed, or as many samples are seen; how many."""
    views, steps, start = batches(pixels, example, batch), 0, time.monotonic()
    while time.monotonic() - start < seconds and (steps + 1) * batch <= samples:
        example.step(next(views))
        steps += 1
    return steps


@torch.no_grad()
def features(example: Example, pixels: np.ndarray) -> np.ndarray:
    """`[N, D]` of whole images."""
    still = T.Compose(
        [
            T.Resize((example.size, example.size), T.InterpolationMode.BICUBIC),
            T.ToTensor(),
            T.Normalize(**IMAGENET_NORMALIZE),
        ]
    )
    encoder, found = example.encoder.eval(), []
    for start in range(0, len(pixels), 256):
        x = torch.stack([Tensor(still(Image.fromarray(image))) for image in pixels[start : start + 256]])
        found.append(encoder(x).float().numpy())
    return np.concatenate(found)


def main() -> None:
    """One run."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("method", choices=BATCHES)
    words.add_argument("folder", type=Path)
    budget = words.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float, default=math.inf)
    budget.add_argument("--samples", type=float, default=math.inf)
    words.add_argument("--largest", type=int, default=64)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = words.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(asked.seed)
    pixels, train = np.load(asked.folder / "images.npy"), np.load(asked.folder / "train.npy")
    example = example_of(asked.method, min(*pixels.shape[1:3], asked.largest))
    batch = min(BATCHES[asked.method], len(train))
    start = time.monotonic()
    steps = learn(example, pixels[train], batch, 60 * asked.minutes, asked.samples)
    seconds = round(time.monotonic() - start, 1)
    np.save(asked.folder / "features.npy", features(example, pixels))
    encoder = "vit-tiny" if asked.method == "mae" else "resnet18"
    said = {"seconds": seconds, "samples_seen": steps * batch, "encoder": encoder, "size": example.size, "batch": batch}
    print(json.dumps(said | {"precision": "float32", "versions": {name: version(name) for name in ("torch", "lightly")}}))


if __name__ == "__main__":
    main()
