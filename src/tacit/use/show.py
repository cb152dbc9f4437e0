"""The report of a run that can be opened: what lies in its folder, and what only its encoder can add."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tacit.data.kinds.kind import thumbnail
from tacit.evaluation.features import extract
from tacit.use.report import ReportContent, render
from tacit.use.report_samples import map_of, neighbours_of, rows_to_show, samples_of
from tacit.use.run import OpenRun

THUMBNAIL = 112
"""Side of the samples' pictures, in pixels: the page shrinks them where they would be too many bytes."""


def report(run: OpenRun, path: Path | None = None) -> Path:
    """Write the page of a run, with a map and the neighbours of samples it was trained on."""
    path = path or run.folder.report
    content = ReportContent.from_folder(run.folder.path)
    collection = run.data()
    rows = rows_to_show(len(collection), run.seed)
    found = extract(run.encode(), run.loader(collection, rows, max_bad=1.0))
    ids = found.ids.tolist()
    vectors = found.values.cpu().numpy().astype(np.float32)
    labels = collection.labels
    names = [None if labels is None else str(labels[row]) or None for row in ids]
    low, high = run.spec.low, run.spec.high
    thumbnails = [thumbnail(collection.kind, collection.glance(row, THUMBNAIL), THUMBNAIL, low, high) for row in ids]
    paths = [collection.index.names[row] for row in ids]
    content.map = map_of(vectors, thumbnails, paths, names, run.seed)
    content.neighbours = neighbours_of(vectors, thumbnails, paths, names, run.seed)
    render(content, path, samples_of(collection, ids, run.spec, run.seed))
    return path
