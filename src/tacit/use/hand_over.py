"""Export from a run: compared on samples that it was trained on."""

from __future__ import annotations

from pathlib import Path

from tacit.use.export import Exported, export
from tacit.use.run import OpenRun

ENDINGS = {"onnx": "encoder.onnx", "timm": "timm", "torch": "encoder.pt2"}
COMPARED = 16


def hand_over(run: OpenRun, form: str, path: Path | None = None) -> Exported:
    """Write the encoder in a form (`onnx`, `timm`, `torch`), by default to `RUN/export/`."""
    collection = run.data()
    batch = next(iter(run.loader(collection, batch=min(COMPARED, len(collection)), max_bad=1.0)))
    samples = run.seen(batch).cpu()
    path = path or run.folder.path / "export" / ENDINGS.get(form, form)
    return export(run.encoder, run.spec, run.extent, form, path, samples)
