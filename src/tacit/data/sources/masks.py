"""Folders of label maps beside the folders of what they label: `imagesTr` and `labelsTr`, `images` and `masks`."""

# pyright: reportAttributeAccessIssue=false
# (PyArrow makes its compute functions when it is imported.)
from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from tacit.data.kinds.kind import endings, named

LABELS = r"(?i)(^|/)(labels|masks)(tr|va|ts)?/"

SIDE = re.compile(r"(?is)(.*/|)(images|labels|masks)(|tr|va|ts)/(.+)")
"""A path on one of the two sides: what stands before, the side, the split, and the name below."""


class Labelled(NamedTuple):
    """What a label map and the files that it labels have in common: where they lie, the split, and the name."""

    before: str
    split: str
    name: str


def set_apart(listed: pa.Table) -> tuple[pa.Table, str]:
    """The files without those of folders of labels, and these as a column `mask` of the files that they label.

    `images/a/1.jpg` is labelled by `masks/a/1.png`, `imagesTr/case.nii.gz` or `imagesTr/case_0000.nii.gz` by
    `labelsTr/case.nii.gz`. Files that share one are a `group`.

    Returns:
        The table, and a description; the same table and nothing, where no more than half of the label maps find what they
        label.
    """
    if not pc.any(pc.match_substring_regex(listed["path"], LABELS)).as_py():
        return listed, ""
    paths, known = listed["path"].to_pylist(), endings()
    found = [SIDE.fullmatch(path) if path.lower().endswith(known) else None for path in paths]
    maps: dict[Labelled, str] = {}
    for path, side in zip(paths, found, strict=True):
        if side and side[2].lower() != "images":
            maps.setdefault(_labelled(side), path)
    samples = [row for row, side in enumerate(found) if not side or side[2].lower() == "images"]
    masks = [_mask(side, maps) if (side := found[row]) else None for row in samples]
    uses = Counter(mask for mask in masks if mask)
    if 2 * len(uses) <= len(maps):
        return listed, ""
    table = listed.take(pa.array(samples)).append_column("mask", pa.array(masks, pa.string()))
    if max(uses.values()) > 1:
        table = table.append_column("group", pa.array([mask and _stem(mask) for mask in masks], pa.string()))
    folders = sorted({path[: side.end(3)] for path, side in zip(paths, found, strict=True) if side and path in uses})
    return table, f"label maps of {sum(uses.values()):,} files from {named(folders)} (for evaluation only)"


def _labelled(side: re.Match[str]) -> Labelled:
    return Labelled(side[1], side[3].lower(), _stem(side[4]))


def _mask(side: re.Match[str], maps: dict[Labelled, str]) -> str | None:
    """The label map of a file: of its own name, or of its name without the number of a channel."""
    own = _labelled(side)
    return maps.get(own) or maps.get(own._replace(name=re.sub(r"_\d{4}$", "", own.name)))


def _stem(path: str) -> str:
    return re.sub(r"(?i)(\.nii)?\.[^./]+$", "", path)
