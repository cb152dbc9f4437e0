"""Volumes, clouds of points and pictures of many channels, from files to what a step takes, beside the obvious pipeline.

python benchmarks/inputs.py [--volumes 32] [--clouds 256] [--pictures 128] [--pairs 7]

The obvious pipeline loads a sample, prepares it alone, and stacks what comes out. tacit reads what a view wants, and makes
views of whole batches. Goals: three times as fast where decoding can be left out (NIfTI), and nowhere slower.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
import torch
import torch.nn.functional as F
from feeding import SEED, beside
from pairs import asked, keep
from torch import Tensor

from tacit.core.allocator import keep_freed_memory
from tacit.core.draws import Draws
from tacit.data.spec import Batch, Spec
from tacit.data.window import Box
from tacit.nn.points.grouping import Groups, contents
from tacit.nn.points.sampling import farthest_points, gather, nearest
from tacit.views.channel_image import ChannelView
from tacit.views.image import ImageView
from tacit.views.points import PointView

VOLUME, BOX = (160, 192, 160), 48
CLOUD, CENTRES, NEIGHBOURS = (512, 2048), 64, 32
MEAN, RANGE = np.zeros(4, np.float32), np.array([3, 3, 3, 2], np.float32)
"""Of coordinates and feature: what `PointView` subtracts and divides by where deviations are 1."""

CHANNELS, PICTURE, VIEW, AREA, SHIFT, GAIN = 5, 256, 96, 0.3, 0.15, 0.25
RANDOM = np.random.default_rng(1)
"""Of the obvious pipelines."""


def voxels(path: Path) -> np.ndarray:
    """`[D, H, W]` of a whole volume; nibabel has the axes the other way round, and gives float64."""
    return nibabel.load(path).get_fdata().T if path.suffix == ".nii" else np.load(path)  # pyright: ignore


def box(path: Path) -> Tensor:
    """A random box of a volume that is read whole."""
    volume = voxels(path)
    z, y, x = (int(RANDOM.integers(side - BOX + 1)) for side in VOLUME)
    return torch.from_numpy(volume[z : z + BOX, y : y + BOX, x : x + BOX].astype(np.float32))[None]


def holds(path: Path, found: Tensor) -> bool:
    """Whether this box is one of the volume."""
    volume, wanted = voxels(path), found[0].numpy()
    corners = np.argwhere(volume == wanted[0, 0, 0]).tolist()
    return any(np.array_equal(volume[z : z + BOX, y : y + BOX, x : x + BOX], wanted) for z, y, x in corners)


def volumes(place: Path, ending: str, count: int, pairs: int) -> dict[str, Any]:
    """Boxes out of volumes that are not compressed."""
    folder, generator = place / ending, np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        volume = generator.integers(-1000, 3000, VOLUME, dtype=np.int16)
        if ending == "nii":
            nibabel.save(nibabel.Nifti1Image(volume.T, np.eye(4)), folder / f"{number:03d}.nii")  # pyright: ignore
        else:
            np.save(folder / f"{number:03d}.npy", volume)
    what = f"boxes of {BOX} voxels a side out of .{ending} volumes of {'x'.join(map(str, VOLUME))}, int16"
    other = "nibabel's `get_fdata`, then a crop" if ending == "nii" else "`numpy.load`, then a crop"
    window = {"box": Box((BOX, BOX, BOX))}
    return beside(what, other, folder, "volume", box, 8, pairs, 1 / 3 if ending == "nii" else 1.0, window, same=holds)


def neighbourhoods(path: Path) -> Tensor:
    """One cloud, prepared alone: `[CENTRES, NEIGHBOURS, 4]`."""
    points = torch.from_numpy((np.load(path) - MEAN) / RANGE)
    left, taken = torch.full((len(points),), torch.inf), [0]
    for _ in range(CENTRES - 1):
        left = torch.minimum(left, (points[:, :3] - points[taken[-1], :3]).square().sum(1))
        taken.append(int(left.argmax()))
    centres = points[taken, :3]
    near = (centres[:, None] - points[None, :, :3]).square().sum(2).topk(NEIGHBOURS, largest=False).indices
    groups = points[near]
    groups[..., :3] -= centres[:, None]
    return groups


def grouped(batch: Batch) -> Tensor:
    """The same of a batch of clouds, with tacit's parts: `[B, CENTRES, NEIGHBOURS, 4]`."""
    spec = Spec("points", 4, (CLOUD[1],), 0.0, 1.0, (0.0,) * 4, (1.0,) * 4)
    points = PointView(CLOUD[1])(batch, Draws(SEED, 0, batch.ids), spec)[:, :4].transpose(1, 2)
    where, sizes = points[..., :3], batch.sizes[:, 0]
    centre = farthest_points(where, CENTRES, sizes)
    members = nearest(where, gather(where, centre), NEIGHBOURS, sizes)
    return contents(points, Groups(centre, members, torch.full_like(centre, NEIGHBOURS)), None)[0]


def clouds(place: Path, count: int, pairs: int) -> dict[str, Any]:
    """Clouds of different numbers of points, in groups around points far from each other."""
    folder, generator = place / "clouds", np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        np.save(folder / f"{number:04d}.npy", generator.normal(size=(generator.integers(*CLOUD), 4)).astype(np.float32))
    what = f"clouds of {CLOUD[0]:,} to {CLOUD[1]:,} points, in {CENTRES} groups of {NEIGHBOURS} neighbours"
    other = "`numpy.load`, a loop in PyTorch for the centres, `topk`, cloud by cloud"
    same = lambda path, found: torch.allclose(neighbourhoods(path), found, atol=1e-5)  # noqa: E731
    return beside(what, other, folder, "points", neighbourhoods, 32, pairs, 1.0, finish=grouped, same=same)


def channel_by_channel(path: Path) -> Tensor:
    """One picture, prepared alone: one box for all channels, then each in a light of its own; `[C, VIEW, VIEW]`."""
    picture = torch.from_numpy(tifffile.imread(path).astype(np.float32))
    area, aspect = RANDOM.uniform(AREA, 1) * PICTURE**2, np.exp(RANDOM.uniform(np.log(3 / 4), np.log(4 / 3)))
    tall, wide = (min(PICTURE, round(float(side))) for side in ((area / aspect) ** 0.5, (area * aspect) ** 0.5))
    top, left = RANDOM.integers(PICTURE - tall + 1), RANDOM.integers(PICTURE - wide + 1)
    mirrored, upside_down, turned = RANDOM.random(3) < 0.5
    channels = []
    for channel in picture:
        x = channel[None, None, top : top + tall, left : left + wide]
        x = F.interpolate(x, (VIEW, VIEW), mode="bicubic", antialias=True)[0, 0]
        x = ((x - channel.min()) / (channel.max() - channel.min())).clamp(0, 1)
        x = x.flip(1) if mirrored else x
        x = x.flip(0) if upside_down else x
        x = x.T if turned else x
        channels.append(((x + RANDOM.uniform(-SHIFT, SHIFT)) * RANDOM.uniform(1 - GAIN, 1 + GAIN)).clamp(0, 1))
    return torch.stack(channels)


def seen(batch: Batch) -> Tensor:
    """The same of a batch, with tacit's view."""
    look = ImageView(VIEW, area=(AREA, 1.0), flip=0.5, flip_vertical=0.5, normalise="none")
    view = ChannelView(look, SHIFT, GAIN, turns=True)
    spec = Spec("channels", 1, (CHANNELS, PICTURE, PICTURE), 0.0, 65535.0)
    return view(batch, Draws(SEED, 0, batch.ids), spec)[:, 0]


def pictures(place: Path, count: int, pairs: int) -> dict[str, Any]:
    """Views of pictures of many channels."""
    folder, generator = place / "pictures", np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        picture = generator.integers(0, 65536, (CHANNELS, PICTURE, PICTURE), dtype=np.uint16)
        tifffile.imwrite(folder / f"{number:04d}.tif", picture, photometric="minisblack")
    what = f"views of {VIEW} pixels of TIFFs of {CHANNELS} channels, {PICTURE}x{PICTURE}, 16 bits"
    other = "tifffile, then PyTorch channel by channel, picture by picture"
    return beside(what, other, folder, "channels", channel_by_channel, 32, pairs, 1.0, finish=seen)


def main() -> None:
    """All kinds."""
    words = asked(pairs=7, volumes=32, clouds=256, pictures=128)
    keep_freed_memory()  # as in a run
    with tempfile.TemporaryDirectory() as name:
        os.environ["TACIT_CACHE"] = f"{name}/cache"
        place = Path(name)
        rows = [volumes(place, ending, words.volumes, words.pairs) for ending in ("nii", "npy")]
        rows += [clouds(place, words.clouds, words.pairs), pictures(place, words.pictures, words.pairs)]
    keep("inputs", {"rows": rows})


if __name__ == "__main__":
    main()
