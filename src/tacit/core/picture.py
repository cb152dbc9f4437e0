"""From arrays to PNG bytes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from torch import Tensor

from tacit.core.errors import TacitError


def png(image: Tensor | np.ndarray) -> bytes:
    """PNG of one picture: float `[C, H, W]` in `[0, 1]` (what lies outside is clipped), C 1 or 3."""
    array = np.asarray(image.detach().float().cpu() if isinstance(image, Tensor) else image, dtype=np.float32)
    if array.ndim != 3 or array.shape[0] not in (1, 3):
        raise TacitError(f"a picture of shape {tuple(array.shape)} was given; [1, H, W] or [3, H, W] was expected")
    pixels = np.rint(np.nan_to_num(array).clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, "PNG", optimize=True)
    return file.getvalue()
