"""A torch `Dataset` (or an array, or anything with a length and items), from Python."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from tacit.core.errors import TacitError
from tacit.data.index import spread
from tacit.data.kinds.formats.pillow import as_array
from tacit.data.payload import Limits, Payload, Unreadable
from tacit.data.sources.source import Source

KNOWN_BY = 64
"""So many items, evenly spread, go into the fingerprint."""


def is_dataset(data: Any) -> bool:
    return (hasattr(data, "__getitem__") and hasattr(data, "__len__")) or isinstance(data, torch.utils.data.Dataset)


def open_dataset(data: Any) -> Source:
    """Items are tensors, arrays, pictures or bytes, alone or first in a tuple with a label, or under `image` in a dict."""
    what = f"the {type(data).__name__} given in Python"
    try:
        count = len(data)
    except TypeError:
        raise TacitError(
            f"{what} has no length: tacit reads by row, give a map-style Dataset with __len__ and __getitem__"
        ) from None
    alone = threading.Lock()  # Nobody promised that items may be made by several threads at once.

    def item(row: int) -> Any:
        try:
            with alone:
                return data[row]
        except Exception as problem:
            raise Unreadable(f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}") from problem

    def read(row: int, limits: Limits) -> Payload:
        return _payload(item(row))

    columns: dict[str, Any] = {"path": [f"{type(data).__name__}/{row}" for row in range(count)]}
    labels = _labels(data)
    if labels is not None and len(labels) == count:
        columns["label"] = pa.array(labels, pa.string())
    columns["content"] = pa.array(_contents(read, count, what), pa.string())

    def late_labels(rows: np.ndarray) -> list[str]:
        return [_label(item(int(row))) or "" for row in rows]

    late = "label" not in columns and _label(_first(item, count)) is not None
    return Source(pa.table(columns), read, "", what, late_labels=late_labels if late else None)


def _payload(item: Any) -> Payload:
    if isinstance(item, (tuple, list)) and item:
        item = item[0]
    if isinstance(item, dict):
        item = next((item[k] for k in ("image", "img", "pixel_values", "x", "input") if k in item), item)
    if isinstance(item, torch.Tensor):
        return item.detach().cpu().float().numpy() if item.dtype == torch.bfloat16 else item.detach().cpu().numpy()
    if isinstance(item, Image.Image):
        return as_array(item)
    if isinstance(item, (bytes, np.ndarray)):
        return item
    raise Unreadable(f"an item of type {type(item).__name__}: a tensor, an array, a picture or bytes were expected")


def _label(item: Any) -> str | None:
    """The label of a (sample, label) pair or of a dict with a label, where it is one value."""
    value = None
    if isinstance(item, (tuple, list)) and len(item) >= 2:
        value = item[1]
    elif isinstance(item, dict):
        value = next((item[k] for k in ("label", "labels", "target", "y") if k in item), None)
    if isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim == 0:
        value = value.item()
    return str(value) if isinstance(value, (str, int, np.integer)) else None


def _labels(data: Any) -> list[str] | None:
    """Labels that a data set keeps beside its items, as torch's and torchvision's own do."""
    if isinstance(data, torch.utils.data.Subset):
        whole = _labels(data.dataset)
        return None if whole is None else [whole[i] for i in data.indices]
    if isinstance(data, torch.utils.data.TensorDataset):
        values = data.tensors[1] if len(data.tensors) > 1 else None
    elif isinstance(data, (np.ndarray, torch.Tensor)):
        return None
    else:
        values = next((v for k in ("targets", "labels") if (v := getattr(data, k, None)) is not None), None)
    if values is None or not hasattr(values, "__len__"):
        return None
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    if not all(isinstance(v, (str, int)) for v in values):
        return None
    classes = getattr(data, "classes", None) or []
    return [str(classes[v]) if isinstance(v, int) and 0 <= v < len(classes) else str(v) for v in values]


def _first(item: Any, count: int) -> Any:
    for row in range(min(count, 16)):
        try:
            return item(row)
        except Unreadable:
            continue
    return None


def _contents(read: Any, count: int, what: str) -> list[str | None]:
    """A digest for some items, none for the others. Refuses items that are another thing each time they are asked for."""
    digests: list[str | None] = [None] * count
    for number, row in enumerate(spread(count, KNOWN_BY).tolist()):
        digest = _digest(read, row)
        if number < 4 and digest != _digest(read, row):
            raise TacitError(
                f"item {row} of {what} differs each time it is read: give it without random transforms, tacit makes the views"
            )
        digests[row] = digest
    return digests


def _digest(read: Any, row: int) -> str:
    try:
        payload = read(row, Limits())
    except Unreadable:
        return "unreadable"
    content = payload if isinstance(payload, bytes) else f"{payload.shape}{payload.dtype}".encode() + payload.tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()
