"""The encoder for other programs: written, opened again by what will open it, compared, and only then put in its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tacit.core.errors import TacitError, nearest
from tacit.data.spec import Spec
from tacit.nn.encoder import Encoder
from tacit.views.normalise import statistics
from tacit.views.sight import sight

TOLERANCE = 1e-3
"""Largest difference that is still the same encoder, as a share of the largest feature."""

LARGEST_BATCH = 1 << 20
"""Without a bound, lengths that are a multiple of it would not fit into a program's integers."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how far what came back differs.

    Attributes:
        path: the file, or for timm the folder.
        form: `onnx`, `timm` or `torch`.
        difference: largest absolute difference between a feature of the export and of the encoder.
        largest: largest absolute feature, to judge it by.
        samples: how many samples were compared.
        reopened: by which program.
    """

    path: Path
    form: str
    difference: float
    largest: float
    samples: int
    reopened: str

    def text(self) -> str:
        return (
            f"{self.form} in {self.path}: reopened by {self.reopened}, {self.samples} samples compared, "
            f"largest difference {self.difference:.1e} (largest feature {self.largest:.3g})"
        )


class PooledFeatures(nn.Module):
    """The encoder as other programs want it: a tensor in, `[B, C, *extent]`, a tensor out, `[B, D]`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        return self.encoder.program(image)


def export(
    encoder: Encoder, spec: Spec, extent: Sequence[int], form: str, path: str | os.PathLike[str], samples: Tensor
) -> Exported:
    """Write the encoder for other programs and compare what they get with what it says itself.

    Args:
        encoder: in evaluation mode while it is exported, on the CPU.
        spec: what samples look like; goes into the file as a description of the preprocessing.
        extent: of the view, all its axes.
        form: `onnx` (dynamic batch), `timm` (a folder for `timm.create_model("local-dir:FOLDER")`), `torch` (`torch.export`).
        path: file, or folder for timm; replaced only by an export that came back right.
        samples: float32 `[n, C, *extent]`, normalised as in training: real ones, to compare on.

    Raises:
        TacitError: unknown form, a missing extra, an encoder that the form cannot hold, features that come back different.
    """
    from tacit.use.export_onnx import to_onnx
    from tacit.use.export_timm import to_timm
    from tacit.use.export_torch import to_torch

    forms: dict[str, Callable[..., Any]] = {"onnx": to_onnx, "timm": to_timm, "torch": to_torch}
    if form not in forms:
        raise TacitError(f"unknown form '{form}'{nearest(form, forms)}; one of {', '.join(forms)} was expected")
    if samples.ndim != 2 + len(extent) or not len(samples):
        expected = ", ".join(map(str, ("n", samples.shape[1], *extent)))
        raise TacitError(f"samples of shape {tuple(samples.shape)} were given; [{expected}] was expected")
    was_training, device = encoder.training, next(encoder.parameters()).device
    samples = samples.detach().float().cpu()
    try:
        with torch.no_grad():
            return forms[form](encoder.cpu().eval(), preprocessing(spec, samples.shape[1:]), samples, Path(path))
    finally:
        encoder.to(device).train(was_training)


def preprocessing(spec: Spec, shape: Sequence[int]) -> dict[str, Any]:
    """How to make the encoder's input, of this shape, from a decoded sample, in words and numbers; plain JSON."""
    extent = shape[1:]
    mean, std = statistics("data", spec)
    return {
        "input": f"float32 [batch, {', '.join(map(str, shape))}]",
        "steps": list(sight(spec.kind).told(spec, extent)),
        "size": extent[-1],
        "extent": list(extent),
        "channels": spec.channels,
        "names": list(spec.names),
        "low": spec.low,
        "high": spec.high,
        "mean": [float(f"{value:.7g}") for value in mean.tolist()],
        "std": [float(f"{value:.7g}") for value in std.tolist()],
    }


def traced(encoder: Encoder, samples: Tensor) -> torch.export.ExportedProgram:
    """The encoder as a program with one input `image`, `[batch, C, *extent]`, any batch."""
    # A batch of one would be taken for a constant.
    example = samples[:2] if len(samples) > 1 else samples.repeat(2, *[1] * (samples.ndim - 1))
    shapes = {"image": {0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH)}}
    try:
        program = torch.export.export(PooledFeatures(encoder).eval(), (example,), dynamic_shapes=shapes)
    except TacitError:
        raise
    except Exception as problem:  # Whatever a user's own network does, it ends here.
        first = next((line for line in str(problem).splitlines() if line.strip(" -")), type(problem).__name__)
        raise TacitError(
            f"torch.export cannot follow this encoder for every batch size: {first[:200]}; take --format timm"
        ) from problem
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # It names files of this machine, and programs travel.
    return program


def compared(path: Path, form: str, reopened: str, expected: Tensor, got: Tensor) -> Exported:
    """What is reported, or a `TacitError` where the export says something else than the encoder."""
    if got.shape != expected.shape:
        raise TacitError(
            f"{form} came back with features of shape {tuple(got.shape)}, not {tuple(expected.shape)}; nothing was written"
        )
    difference, largest = float((got - expected).abs().max()), float(expected.abs().max())
    if not difference <= TOLERANCE * largest:
        raise TacitError(
            f"{form} came back different, by up to {difference:.2g} (largest feature {largest:.2g}); nothing was written"
        )
    return Exported(path, form, difference, largest, len(expected), reopened)
