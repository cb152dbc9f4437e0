"""ONNX, checked with onnxruntime."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tacit.core.errors import TacitError
from tacit.core.files import write_bytes
from tacit.nn.encoder import Encoder
from tacit.use.export import Exported, compared, traced

LARGEST = 2_000_000_000
"""Bytes that a single ONNX file can hold."""


def to_onnx(encoder: Encoder, described: dict[str, Any], samples: Tensor, path: Path) -> Exported:
    """Input `image`, output `features`, any batch size; the preprocessing lies in the metadata under `tacit.preprocessing`."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as missing:
        raise TacitError(f"export to ONNX needs {missing.name}, which is not installed: pip install 'tacit[export]'") from None
    if sum(p.numel() * p.element_size() for p in encoder.parameters()) > LARGEST:
        raise TacitError("the encoder is larger than the 2 GB that one ONNX file can hold; take --format torch or timm")

    content = _program(encoder, samples, described)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # One at a time and all at once: the batch size must really be free.
    together = torch.from_numpy(session.run(None, {"image": samples.numpy()})[0])
    apart = torch.cat([torch.from_numpy(session.run(None, {"image": one.numpy()})[0]) for one in samples.split(1)])
    expected = encoder(samples).pooled
    result = compared(
        path, "onnx", f"onnxruntime {onnxruntime.__version__}", expected.repeat(2, 1), torch.cat([together, apart])
    )
    write_bytes(path, content)
    return Exported(path, "onnx", result.difference, result.largest, len(samples), result.reopened)


def _program(encoder: Encoder, samples: Tensor, described: dict[str, Any]) -> bytes:
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                traced(encoder, samples),
                input_names=["image"],
                output_names=["features"],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    assert program is not None
    program.model.metadata_props["tacit.preprocessing"] = json.dumps(described)
    return program.model_proto.SerializeToString()
