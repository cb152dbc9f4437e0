"""SimCLR's blur against numbers from its published code."""

from __future__ import annotations

import pytest
import torch

from golden import assert_near, golden
from tacit.views.blur import gaussian_blur


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-6)])
def test_blur_gives_the_published_numbers(dtype, tolerance):
    case = golden("simclr")["gaussian_blur"]
    image = case.inputs["image"].to(dtype).permute(2, 0, 1)[None]
    blurred = gaussian_blur(image, case.hyper["kernel_size"], case.hyper["sigma"])[0].permute(1, 2, 0)
    assert blurred.dtype == dtype
    assert_near(blurred, case.out["image"], rtol=0, atol=tolerance)
