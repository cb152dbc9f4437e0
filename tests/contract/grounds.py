"""What methods of each kind of data are tried on: the smallest real sample, made-up batches, encoders that suit tiny views."""

from __future__ import annotations

import csv
import io
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
import torch.nn.functional as F

from tacit.core.draws import Draws
from tacit.data.samples import SAMPLES
from tacit.data.spec import Batch
from tacit.data.text.wording import Wording
from tacit.methods.registry import method


@dataclass(frozen=True)
class Ground:
    """Where methods of one kind stand.

    Attributes:
        data: a bundled sample, or what makes one: called once.
        encoders: names that suit tiny views, those that hide tokens first.
        size: of tiny views, in pixels (or points).
        extent: of views of a size.
        sample: extent of the made-up samples.
        channels: how many channels a method has to take, the usual number first.
        several: writes so many real samples below a folder, with these labels or without, and says where.
        made_up: so many samples whose rows begin at a number, with so many channels.
        planes: how many planes an encoder is shown of so many channels.
        small: further options of a small run.
        refused: options that cannot be, and what is said to them.
        many: encoders that `auto` must have an answer for, beside those of `encoders`.
        plenty: as many real samples as `several` can write, or enough.
        sides: sizes of views that `auto` must have an answer for.
    """

    data: str | Callable[[], str]
    encoders: tuple[str, ...]
    size: int
    extent: Callable[[int], tuple[int, ...]]
    sample: tuple[int, ...]
    channels: tuple[int, ...]
    several: Callable[[Path, int, Sequence[str] | None], Path]
    made_up: Callable[[Ground, int, int, int], Batch]
    planes: Callable[[int], int] = lambda channels: channels
    small: dict[str, Any] = field(default_factory=dict)
    refused: tuple[tuple[dict[str, Any], str], ...] = ()
    many: tuple[str, ...] = ()
    plenty: int = 120
    sides: tuple[int, ...] = (8, 16, 32, 96, 224)

    def batch(self, count: int, first: int = 0, channels: int | None = None) -> Batch:
        """Made-up samples."""
        return self.made_up(self, count, first, channels or self.channels[0])

    def probe(self, channels: int) -> torch.Tensor:
        """What an encoder is shown: `[4, planes, *extent]`; ones say where something is, if a plane says so."""
        x = Draws(3, 0, torch.arange(4)).normal("probe", channels, *self.extent(self.size))
        return torch.cat([x, torch.ones_like(x[:, : self.planes(channels) - channels])], dim=1)


def sloped(ground: Ground, count: int, first: int, channels: int) -> Batch:
    """Noise on a slope, in 8 bits."""
    ids = torch.arange(first, first + count)
    noise = Draws(7, 0, ids).uniform("samples", channels, *ground.sample, high=128)
    data = (noise + torch.linspace(0, 127, ground.sample[-1])).to(torch.uint8)
    return Batch(ids, data, torch.tensor([ground.sample], dtype=torch.int32).expand(count, -1))


def ragged(ground: Ground, count: int, first: int, channels: int) -> Batch:
    """The same, with fewer places along the first axis in every other sample."""
    whole = sloped(ground, count, first, channels)
    sizes = whole.sizes.clone()
    sizes[whole.ids % 2 == 1, 0] -= 1
    there = torch.arange(ground.sample[0]) < sizes[:, :1]
    return Batch(whole.ids, whole.data * there[(slice(None), None, slice(None), *[None] * (whole.data.ndim - 3))], sizes)


def paired(ground: Ground, count: int, first: int, channels: int) -> Batch:
    """Samples, and another one for each."""
    batch = sloped(ground, count, first, channels)
    batch.parts["partner"] = sloped(ground, count, first + 10_000, channels)
    return batch


def strewn(ground: Ground, count: int, first: int, channels: int) -> Batch:
    """Points in a box, in clouds of different sizes."""
    ids = torch.arange(first, first + count)
    data = Draws(7, 0, ids).uniform("samples", channels, *ground.sample, low=-1)
    sizes = ground.sample[0] - (ids % 3)[:, None].to(torch.int32)
    return Batch(ids, data * (torch.arange(ground.sample[0]) < sizes)[:, None], sizes)


def captioned(ground: Ground, count: int, first: int, channels: int) -> Batch:
    """Pictures, and rows of tokens that begin and end as captions do."""
    batch = sloped(ground, count, first, channels)
    words = Draws(7, 0, batch.ids).integers("words", 0, 100, CAPTION["context"] - 2)
    batch.extra["tokens"] = Wording(**CAPTION).rows(words.tolist())
    return batch


CAPTION = {"vocabulary": 600, "context": 8}


def _pictures(folder: Path, count: int, labels: Sequence[str] | None) -> Path:
    with np.load(SAMPLES["fashion_mnist_sprite"].folder / "images.npz") as arrays:
        pictures = next(arrays[key] for key in arrays.files if arrays[key].ndim >= 3)[:count, :16, :16]
    columns = {} if labels is None else {"train_labels": np.array(labels)}
    np.savez(folder / "pictures.npz", train_images=pictures, **columns)
    return folder / "pictures.npz"


def _shard(sample: str, ending: str) -> Callable[[Path, int, Sequence[str] | None], Path]:
    """The first samples of a bundled shard, with other labels."""

    def several(folder: Path, count: int, labels: Sequence[str] | None) -> Path:
        with tarfile.open(SAMPLES[sample].folder / "train-000.tar") as shard:
            members = [m for m in shard.getmembers() if m.name.endswith(ending)][:count]
            contents = {member.name: _bytes(shard, member) for member in members}
        if labels is not None:
            contents |= {name.replace(ending, ".cls"): label.encode() for name, label in zip(contents, labels, strict=True)}
        with tarfile.open(folder / "samples-000.tar", "w") as shard:
            for name in sorted(contents):
                info = tarfile.TarInfo(name)
                info.size = len(contents[name])
                shard.addfile(info, io.BytesIO(contents[name]))
        return folder / "samples-000.tar"

    return several


def _emoji(folder: Path, count: int, labels: Sequence[str] | None) -> Path:
    """Pictures and a manifest with their captions."""
    source = SAMPLES["emoji_names"].folder
    with np.load(source / "images.npz") as arrays, open(source / "manifest.csv", newline="") as table:
        blob, starts = arrays["blob"], arrays["offset"]
        rows = list(csv.DictReader(table))[:count]
    with open(folder / "pairs.csv", "w", newline="") as file:
        manifest = csv.writer(file)
        manifest.writerow(["path", "caption", *(["label"] if labels else [])])
        for number, row in enumerate(rows):
            (folder / f"{number}.webp").write_bytes(blob[starts[number] : starts[number + 1]].tobytes())
            manifest.writerow([f"{number}.webp", row["caption"], *(labels[number : number + 1] if labels else [])])
    return folder / "pairs.csv"


def _bytes(shard: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = shard.extractfile(member)
    assert file is not None
    return file.read()


def _volumes(folder: Path, count: int, labels: Sequence[str] | None) -> Path:
    """Smooth noise in NIfTI files, and a manifest of them."""
    noise = Draws(5, 0, torch.arange(count)).uniform("volumes", 1, 6, 6, 6)
    blocks = F.interpolate(noise, size=(20, 20, 20), mode="trilinear")[:, 0]
    with open(folder / "volumes.csv", "w", newline="") as file:
        manifest = csv.writer(file)
        manifest.writerow(["path", *(["label"] if labels else [])])
        for number, block in enumerate(blocks):
            voxels = nibabel.Nifti1Image((255 * block.numpy()).astype(np.uint8), np.eye(4))
            (folder / f"{number:03d}.nii").write_bytes(voxels.to_bytes())
            manifest.writerow([f"{number:03d}.nii", *(labels[number : number + 1] if labels else [])])
    return folder / "volumes.csv"


@cache
def _made_volumes() -> str:
    """Volumes of a few voxels: the bundled ones take longer than all else that a contract asks for."""
    return str(_volumes(Path(tempfile.mkdtemp()), 64, None))


def square(size: int) -> tuple[int, ...]:
    return (size, size)


GROUNDS = {
    "image": Ground(
        data="sample:fashion_mnist_sprite",
        encoders=("vit-micro/4", "resnet-mini"),
        size=16,
        extent=square,
        sample=(20, 20),
        channels=(3, 1, 2, 5),
        several=_pictures,
        made_up=sloped,
        refused=(
            ({"encoder": "vit-mikro/4"}, "did you mean 'vit-micro"),
            ({"encoder": "vit-micro/32"}, "give a patch of 1 to 16 pixels"),
            ({"normalise": "imagenet"}, "for 3 channels, the data has 1"),
        ),
        many=("resnet18", "vit-mini/4", "vit-small/8", "timm:some_net", "own/net.py:Net"),
    ),
    "video": Ground(
        data="sample:motion_sim",
        encoders=("video-vit-micro/2x4", "r3d-mini"),
        size=16,
        extent=lambda size: (4, size, size),
        sample=(6, 20, 20),
        channels=(3, 1),
        several=_shard("motion_sim", ".mp4"),
        made_up=sloped,
        small={"frames": 4},
        refused=(
            ({"encoder": "video-vit-mikro/2x4"}, "did you mean 'video-vit-micro"),
            ({"encoder": "video-vit-micro/2x32"}, "give a patch of .* 1 to 16 pixels"),
        ),
        many=("r3d18", "video-vit-mini/2x4", "video-vit-small/2x8", "c3d", "own/net.py:Net"),
    ),
    "channels": Ground(
        data="sample:cells",
        encoders=("channel-vit-micro/8",),
        size=16,
        extent=lambda size: (6, size, size),
        sample=(6, 20, 20),
        channels=(1,),
        several=_shard("cells", ".ome.tif"),
        made_up=ragged,
        planes=lambda channels: channels + 1,
        refused=(({"encoder": "channel-vit-mikro/8"}, "did you mean 'channel-vit-micro"),),
        many=("channel-vit-tiny/16", "own/net.py:Net"),
    ),
    "volume": Ground(
        data=_made_volumes,
        encoders=("swin3d-micro",),
        size=16,
        extent=lambda size: (size, size, size),
        sample=(20, 20, 20),
        channels=(1, 2),
        several=_volumes,
        made_up=paired,
        small={"partner": "position"},
        refused=(({"encoder": "swin3d-mikro"}, "did you mean 'swin3d-micro"),),
        many=("swin3d-mini", "own/net.py:Net"),
        sides=(16, 32, 96),
    ),
    "points": Ground(
        data="sample:particle_events",
        encoders=("point-vit-micro",),
        size=128,
        extent=lambda size: (size,),
        sample=(96,),
        channels=(4, 3, 5),
        several=_shard("particle_events", ".ply"),
        made_up=strewn,
        planes=lambda channels: channels + 1,
        small={"batch": 16, "held_back": 8},
        plenty=48,
        refused=(({"encoder": "point-vit-mikro"}, "did you mean 'point-vit-micro"),),
        many=("point-vit-mini", "own/net.py:Net"),
        sides=(64, 512, 4096),
    ),
    "pair": Ground(
        data="sample:emoji_names",
        encoders=("clip-vit-micro/4",),
        size=16,
        extent=square,
        sample=(20, 20),
        channels=(3, 1),
        several=_emoji,
        made_up=captioned,
        small=CAPTION,
        refused=(({"encoder": "clip-vit-mikro/4"}, "did you mean 'clip-vit-micro"),),
        many=("clip-vit-small/8", "clip-resnet50", "own/net.py:Net"),
    ),
}


@cache
def ground(name: str) -> Ground:
    """Of the first kind that a method takes."""
    return GROUNDS[method(name).kinds[0]]


OWN = {"anatomy": ("anatomy-mini",)}
"""Encoders of methods that stand on no other."""


def encoders(name: str) -> tuple[str, ...]:
    """Those that a method can stand on."""
    return OWN.get(name) or tuple(each for each in ground(name).encoders if "vit" in each or not method(name).tokens)


@cache
def data_of(name: str) -> str:
    """Where the smallest real sample of a method lies."""
    data = ground(name).data
    return data if isinstance(data, str) else data()
