"""A program of `torch.export`: runs without tacit, in Python or C++."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tacit.core.files import write_bytes
from tacit.nn.encoder import Encoder
from tacit.use.export import Exported, compared, traced


def to_torch(encoder: Encoder, described: dict[str, Any], samples: Tensor, path: Path) -> Exported:
    """For `torch.export.load(path).module()(image)`, any batch size; the preprocessing lies inside as `preprocessing.json`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = traced(encoder, samples)
        content = io.BytesIO()
        torch.export.save(program, content, extra_files={"preprocessing.json": json.dumps(described)})
        content.seek(0)
        module = torch.export.load(content).module()
    expected = encoder(samples).pooled
    got = torch.cat([module(one) for one in samples.split(1)])
    result = compared(path, "torch", f"torch {torch.__version__}", expected, got)
    write_bytes(path, content.getvalue())
    return result
