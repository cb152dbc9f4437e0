"""A folder of files, nested as deep as it likes; class folders and split folders are seen and used."""

# pyright: reportAttributeAccessIssue=false
# (PyArrow makes its compute functions when it is imported.)
from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tacit.core.errors import TacitError
from tacit.data.cache import keep_table, kept_table
from tacit.data.index import spread
from tacit.data.kinds.formats.zarr_words import pictures
from tacit.data.kinds.kind import Kind, kind_named, recognised
from tacit.data.payload import STORE, Limits, Payload, Unreadable, is_store
from tacit.data.sources.masks import set_apart
from tacit.data.sources.place import Place, facts_of
from tacit.data.sources.source import Read, Source

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "imagestr": "train",
    "imagesva": "val",
    "imagests": "test",
}
"""Names that mean a split, in any case, and what tacit calls it."""

LISTED = pa.schema([("path", pa.string()), ("size", pa.int64()), ("mtime", pa.int64())])
"""One row per file. A byte of a name that is not UTF-8 is written as `\\udcNN`."""

SETTLED = 2_000_000_000
"""A folder changed less than so many nanoseconds ago may change again within the same tick of its clock."""

ASKED = 20_000
"""So many files are asked at a start whether they are as they were listed: asking 300,000 would take longer than all else."""


def open_folder(place: Place, kind: str | None) -> Source:
    """All files below `place` that have an extension of the kind (or, where hardly any has one, that begin like it)."""
    listed, masks = set_apart(_listing(place))
    if not len(listed):
        raise TacitError(f"the folder {place} has no files: give a folder with samples in it, or below it")
    chosen, why = _kind(place, listed, kind)
    fitting = pc.match_substring_regex(listed["path"], _pattern(chosen.extensions()))
    others = len(listed) - pc.sum(fitting).as_py()
    table = _gathered(listed.filter(fitting), chosen.together)
    if not len(table):
        raise TacitError(f"none of the {len(listed)} files in {place} is of the kind '{chosen.name}': {why}")
    table, folders = _with_folder_names(table)
    what = f"a folder, {folders}" if folders else "a folder of files"
    if masks:
        what += f", {masks}"
    if others:
        what += f" ({others} files of other types left out)"
    read = read_files(place.__truediv__, table)
    return Source(table, read, str(place), what, chosen, why, read_mask=read_masks(place, table))


def read_files(place_of: Callable[[str], Place], files: pa.Table) -> Read:
    """Reads files, of which `place_of` says where they are; a local one must still be as it was when it was listed."""
    paths, sizes, times = (files[name] for name in LISTED.names)

    def read(row: int, limits: Limits) -> bytes | Path:
        file, listed = place_of(unescaped(paths[row].as_py())), (sizes[row].as_py(), times[row].as_py())
        content = file.payload(limits)
        if file.fs is None and None not in listed and file.facts() != listed:
            raise Unreadable("changed since it was listed")
        return content

    return read


def read_masks(root: Place, table: pa.Table) -> Read | None:
    """Reads the files of labels that a column `mask` names; None where there is none."""
    if "mask" not in table.column_names or not pa.types.is_string(table["mask"].type):
        return None
    names = table["mask"]

    def read(row: int, limits: Limits) -> Payload:
        if not (name := names[row].as_py()):
            raise Unreadable("no mask")
        return (root / unescaped(name)).payload(limits)

    return read


def escaped(path: str) -> str:
    r"""A path that Arrow can hold: bytes that are not UTF-8 are written `\udcNN`, and what looks like that `\udc5cudcNN`."""
    path = path.replace("\\udc", "\\udc5cudc")
    return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode()


def unescaped(path: str) -> str:
    """The path that `escaped` wrote."""

    def meant(found: re.Match[str]) -> str:
        return "\\" if found[1] == "5c" else chr(0xDC00 + int(found[1], 16))

    return re.sub(r"\\udc([89a-f][0-9a-f]|5c)", meant, path) if "\\udc" in path else path


def _kind(place: Place, listed: pa.Table, kind: str | None) -> tuple[Kind, str]:
    if kind is not None:
        return kind_named(kind), "it was asked for"
    looked_at = listed.take(spread(len(listed), 1000))
    chosen, why = recognised(looked_at["path"].to_pylist(), read_files(place.__truediv__, looked_at))
    if chosen is None:
        raise TacitError(f"no kind of data recognises the {len(listed)} files in {place}: {why}; name the kind with --kind")
    return chosen, why


def _pattern(extensions: Iterable[str]) -> str:
    """What paths of files with these extensions look like, and those of pictures in such folders."""
    return r"(?i)\.(" + "|".join(re.escape(e[1:]) + "(/.+)?" * (e == STORE) for e in sorted(extensions)) + ")$"


def _gathered(table: pa.Table, together: frozenset[str]) -> pa.Table:
    """Of the files with these extensions, the first in every folder stands for all of them: they are one sample."""
    if not together:
        return table
    seen: set[str] = set()
    kept = []
    for path in table["path"].to_pylist():
        folder = path.rpartition("/")[0] if path.lower().endswith(tuple(together)) else path
        kept.append(folder not in seen)
        seen.add(folder)
    return table.filter(pa.array(kept))


def _with_folder_names(table: pa.Table) -> tuple[pa.Table, str]:
    """Columns `split` and `label` from the names of folders, where they look like that, and a description of them."""
    said = []
    # Each folder is looked at once: there are far more files.
    parts = pc.split_pattern(table["path"].combine_chunks(), "/", max_splits=1, reverse=True)
    below = pc.if_else(pc.equal(pc.list_value_length(parts), 2), pc.list_element(parts, 0), "").dictionary_encode()
    names = "|".join(SPLITS)
    plate = re.compile(rf"(?i)[^/]*{re.escape(STORE)}/.*")  # neither it nor what lies in it is a class
    folders = [plate.sub("", f"{folder}/") for folder in below.dictionary.to_pylist()]
    # A split may be the first folder (train/cat/1.jpg) or the second (cat/train/1.jpg).
    for pattern in (rf"(?i)({names})/", rf"(?i)[^/]+/({names})/"):
        matches = [re.match(pattern, folder) for folder in folders]
        meant = [SPLITS[match[1].lower()] if match else None for match in matches]
        if "train" in meant or (any(meant) and None not in meant):
            table = table.append_column("split", pa.array(meant, pa.string()).take(below.indices))
            said.append(f"splits {', '.join(sorted(set(filter(None, meant))))} by folder name")
            folders = [re.sub(rf"(?i)^([^/]+/)??({names})/", r"\1", folder) for folder in folders]
            break
    tops = [folder.partition("/")[0] or None for folder in folders]
    classes = len(set(tops) - {None})
    if None not in tops and classes >= 2:
        table = table.append_column("label", pa.array(tops, pa.string()).take(below.indices))
        said.append(f"{classes} class folders (labels, for evaluation only)")
    return table, " and ".join(said)


def _listing(place: Place) -> pa.Table:
    if place.fs is None:
        return _local_listing(place.path)
    rows = [(path, *facts_of(info)) for path, info in place.walk() if not _hidden(path)]
    paths, sizes, times = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table([paths, sizes, times], schema=LISTED)


def _hidden(path: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def _local_listing(root: str) -> pa.Table:
    """The files below a local folder: from the cache where no folder has changed since, else from the disk."""
    name = hashlib.blake2b(os.fsencode(os.path.abspath(root)), digest_size=12).hexdigest()
    kept = f"listings/{name}"
    if (table := _remembered(kept, root)) is not None:
        return table
    began = time.time_ns()
    table, folders = _scan(root)
    if began - max(folders.values()) > SETTLED:
        _remember(kept, table, folders)
    return table


def _scan(root: str) -> tuple[pa.Table, dict[str, int]]:
    """All regular files in sorted order, and all folders with their times. No folder is entered twice."""
    paths: list[str] = []
    sizes: list[int | None] = []
    times: list[int | None] = []
    folders: dict[str, int] = {}
    seen: set[tuple[int, int]] = set()

    def keep(path: str, size: int | None, when: int | None) -> None:
        paths.append(escaped(path))
        sizes.append(size)
        times.append(when)

    # Links are followed after everything else, so that a folder is listed under its own name where it has one here.
    waiting, links = [""], []
    while waiting or links:
        below = waiting.pop() if waiting else links.pop()
        path = os.path.join(root, below)
        try:
            facts = os.stat(path)
            if (facts.st_dev, facts.st_ino) in seen:
                continue
            seen.add((facts.st_dev, facts.st_ino))
            entries = list(os.scandir(path))
        except OSError as problem:
            if not below:
                raise TacitError(f"cannot list {root}: {problem.strerror}") from problem
            continue
        folders[below] = facts.st_mtime_ns
        prefix, deeper = f"{below}/" if below else "", []
        for entry in entries:
            name = entry.name
            if name.startswith(".") or name == "__MACOSX":
                continue
            try:
                store = not entry.is_file() and is_store(Path(entry))
                if store and (several := pictures(Path(entry))):
                    folders[prefix + name] = entry.stat().st_mtime_ns
                    for each in several:
                        keep(f"{prefix}{name}/{each}", *(facts_there(Place(entry.path), each) or (None, None)))
                elif store or entry.is_file():
                    found = entry.stat()
                    keep(prefix + name, found.st_size, found.st_mtime_ns)
                elif entry.is_dir():
                    (links if entry.is_symlink() else deeper).append(prefix + name)
            except OSError:  # A link to nowhere or to itself.
                continue
        waiting += sorted(deeper)  # files are sorted at the end, all together
        links.sort(reverse=True)
    table = pa.table([paths, sizes, times], schema=LISTED)
    return table.take(pc.sort_indices(table, [("path", "ascending")])), folders


def facts_there(root: Place, path: str) -> tuple[int, int] | None:
    """Size and time of change of what lies there; None of what is not there, or not on this machine."""
    if root.fs is not None or "://" in path:
        return None
    try:
        return (root / path).facts()
    except (OSError, ValueError):
        return None


def _remember(name: str, table: pa.Table, folders: dict[str, int]) -> None:
    keep_table(f"{name}-folders", pa.table({"folder": [escaped(f) for f in folders], "time": list(folders.values())}))
    keep_table(name, table)


def _remembered(name: str, root: str) -> pa.Table | None:
    folders, table = kept_table(f"{name}-folders"), kept_table(name)
    if folders is None or table is None or table.schema != LISTED or folders.column_names != ["folder", "time"]:
        return None
    try:
        for folder, when in zip(folders["folder"].to_pylist(), folders["time"].to_pylist(), strict=True):
            if os.stat(os.path.join(root, unescaped(folder))).st_mtime_ns != when:
                return None
        # Writing into a file does not touch its folder: files are asked themselves, those beyond ASKED when they are read.
        asked = table.take(spread(len(table), ASKED))
        for path, size, when in zip(*(asked[name].to_pylist() for name in LISTED.names), strict=True):
            facts = os.stat(os.path.join(root, unescaped(path)))
            if (facts.st_size, facts.st_mtime_ns) != (size, when):
                return None
    except (OSError, ValueError):  # ValueError: a name with a null byte
        return None
    return table
