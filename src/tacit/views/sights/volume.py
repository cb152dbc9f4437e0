"""How volumes are shown where no method has a say: the largest box in the middle, or parts of it in another light."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d

from tacit.data.spec import Spec
from tacit.views.normalise import TOLD
from tacit.views.volume import CentreVolume, Light, VolumeView

coarse = (16, 16, 16)
varied = "intensities"


def window(spec: Spec, extent: Sequence[int]) -> None:
    return None


def looks(spec: Spec, extent: Sequence[int]) -> tuple[()]:
    return ()


def still(extent: Sequence[int]) -> CentreVolume:
    return CentreVolume(_three(extent))


def told(spec: Spec, extent: Sequence[int]) -> tuple[str, ...]:
    return (f"cut out the central box and resize it to {' x '.join(map(str, extent))} voxels", *TOLD)


def crops(extent: Sequence[int]) -> VolumeView:
    return VolumeView(_three(extent), zoom=(0.7, 1.0), light=Light(0.2, 0.1, 0.2))


def light(extent: Sequence[int]) -> VolumeView:
    return VolumeView(_three(extent), zoom=(0.95, 1.0), light=Light(0.4, 0.2, 0.6))


def tuning(extent: Sequence[int], mirrored: float) -> VolumeView:
    """Along the last axis alone: a body seen in a mirror is still a body, one upside down is none."""
    return VolumeView(_three(extent), zoom=(0.6, 1.0), flip=(0.0, 0.0, mirrored), light=Light(0.1, 0.1, 0.1))


def flat(x: Tensor) -> Tensor:
    places = tuple(min(most, length) for most, length in zip(coarse, x.shape[2:], strict=True))
    return adaptive_avg_pool3d(x, places).flatten(1)  # pyright: ignore[reportArgumentType]


def _three(extent: Sequence[int]) -> tuple[int, int, int]:
    depth, height, width = extent
    return depth, height, width
