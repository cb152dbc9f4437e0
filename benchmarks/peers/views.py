"""Views made image by image by torchvision's transforms on Pillow images, composed as lightly composes those of its methods.

python benchmarks/peers/views.py IMAGES SIDE VIEWS

Random images of this many, with this side in pixels; VIEWS describes each view in JSON, as `tacit.views.image.ImageView` does.
From uint8 pixels to one normalised float tensor per view. The blur is Pillow's (as in lightly): box filters, quicker than the
true Gaussian.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from turns import import_torchvision, take_turns

import_torchvision()

from torchvision import transforms as T  # noqa: E402


class Blur:
    """A Gaussian of a random width."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(self.low, self.high)))


def composed(view: dict[str, Any]) -> T.Compose:
    """The classic transforms: on such images they are a little quicker than their second version."""
    steps: list[Any] = [
        T.RandomResizedCrop(view["size"], view["area"], view["aspect"], T.InterpolationMode(view["interpolation"])),
        T.RandomHorizontalFlip(view["flip"]),
    ]
    if jitter := view["jitter"]:
        amplitudes = (jitter[name] for name in ("brightness", "contrast", "saturation", "hue"))
        steps.append(T.RandomApply([T.ColorJitter(*amplitudes)], jitter["probability"]))
    if view["grey"]:
        steps.append(T.RandomGrayscale(view["grey"]))
    if blur := view["blur"]:
        steps.append(T.RandomApply([Blur(blur["low"], blur["high"])], blur["probability"]))
    if view["solarise"]:
        steps.append(T.RandomSolarize(255 * view["solarise_threshold"], view["solarise"]))
    return T.Compose([*steps, T.ToTensor(), T.Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))])


def main() -> None:
    """A turn makes every view of every image."""
    torch.set_num_threads(1)
    count, side = (int(word) for word in sys.argv[1:3])
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    images = [Image.fromarray(image) for image in pixels]
    views = [composed(view) for view in json.loads(sys.argv[3])]
    take_turns(lambda: [torch.stack([view(image) for image in images]) for view in views], 1, "torchvision", "pillow")


if __name__ == "__main__":
    main()
