"""WebDataset shards: plain tar files, listed once and then read by offset."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa

from tacit.core.errors import TacitError, said
from tacit.data.cache import keep_table, kept_table
from tacit.data.kinds.kind import Kind, kind_named, recognised
from tacit.data.payload import Limits, Unreadable
from tacit.data.sources.folder import SPLITS, escaped
from tacit.data.sources.place import Place
from tacit.data.sources.source import Source

SIDE_BYTES = 1 << 20
"""A label or a caption longer than this is neither."""

MEMBERS_OF_A_SHARD = 1_000_000
"""What lies behind so many members of one shard is not listed."""

SIDE_FILES = (".cls", ".txt", ".json")

MEMBERS = pa.schema(
    [
        ("shard", pa.int32()),
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("text", pa.string()),
    ]
)
"""Every regular member; `text` is the content of a `.cls`, `.txt` or `.json`."""


def expanded(text: str) -> list[str]:
    """Brace notation: `a-{000..002}.tar` and `{a,b}.tar`; without braces the text itself."""
    if not (found := re.search(r"\{([^{}]*)\}", text)):
        return [text]
    if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", found[1]):
        first, last = int(numbers[1]), int(numbers[2])
        if not 0 <= last - first < 1_000_000:
            raise TacitError(f"{{{found[1]}}} in {text} is no range of shards: write {{000..099}}")
        inner = [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]
    else:
        inner = found[1].split(",")
    return [rest for part in inner for rest in expanded(text[: found.start()] + part + text[found.end() :])]


def open_shards(places: Sequence[Place], kind: str | None) -> Source:
    """Samples are the members of one key (the name up to its first dot) with an extension of the kind."""
    facts = []
    for place in places:
        if not place.is_file():
            raise TacitError(f"no such shard: {place}")
        facts.append(place.facts())
    members = _members(places, facts)
    chosen, why = _kind(members, places, kind)
    table, damage = _samples(members, places, facts, chosen)
    shards, offsets, sizes = (table[name].to_numpy() for name in ("shard", "offset", "size"))

    def read(row: int, limits: Limits) -> bytes:
        if sizes[row] < 0:
            raise Unreadable(damage[row])
        return places[shards[row]].read(limits.file_bytes, int(offsets[row]), int(sizes[row]))

    what = f"{len(places)} WebDataset shards" if len(places) > 1 else f"the WebDataset shard {places[0].name}"
    if damage:
        what += f" ({len(damage)} damaged)"
    return Source(table, read, str(places[0].parent), what, chosen, why)


def _members(places: Sequence[Place], facts: Sequence[tuple[int, int]]) -> pa.Table:
    """All members of all shards, from the cache where no shard has changed."""
    shards = json.dumps([[str(p), *f] for p, f in zip(places, facts, strict=True)])
    name = f"shards/{hashlib.blake2b(shards.encode('utf-8', 'surrogateescape'), digest_size=12).hexdigest()}"
    table = kept_table(name)
    if table is None or table.schema != MEMBERS:
        rows = [(number, *member) for number, place in enumerate(places) for member in _scan(place, facts[number][0])]
        table = pa.Table.from_arrays(
            [pa.array(c, f.type) for c, f in zip(_columns(rows), MEMBERS, strict=True)], schema=MEMBERS
        )
        keep_table(name, table)
    return table


def _columns(rows: list[tuple]) -> Sequence[Sequence]:
    return list(zip(*rows, strict=True)) or [()] * len(MEMBERS)


def _scan(place: Place, length: int) -> Iterator[tuple[str, int, int, str | None]]:
    """Name, offset, size and text of the regular members of a tar; where it is damaged, one more of size -1 that says why."""
    end = 0
    try:
        with place.open() as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for number, member in enumerate(archive, 1):
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue] - it would keep all of them for nothing
                if member.size < 0:
                    raise tarfile.ReadError("a member with a size below 0")
                if number > MEMBERS_OF_A_SHARD:
                    raise tarfile.ReadError(f"more than {MEMBERS_OF_A_SHARD:,} members")
                if not member.isreg() or member.sparse is not None:
                    continue
                end = member.offset_data + member.size
                text = None
                if posixpath.splitext(member.name)[1].lower() in SIDE_FILES and member.size <= SIDE_BYTES:
                    file.seek(member.offset_data)
                    text = file.read(member.size).decode("utf-8", "replace")
                yield escaped(member.name), member.offset_data, member.size, text
                if end > length:
                    raise tarfile.ReadError("it ends in the middle of a member")
            # Tarfile takes a damaged header for the end of the archive.
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("a damaged header")
    except (Unreadable, tarfile.TarError, OSError, ValueError, EOFError, OverflowError, RecursionError) as problem:
        packed = "; unpack it first: shards are read by offset" if place.suffix in (".gz", ".tgz", ".xz", ".bz2") else ""
        yield f"(damaged after byte {end})", end, -1, f"the shard is damaged after byte {end}: {said(problem)}{packed}"


def _kind(members: pa.Table, places: Sequence[Place], kind: str | None) -> tuple[Kind, str]:
    if kind is not None:
        return kind_named(kind), "this kind was given"
    looked_at = members.slice(0, 1000)
    shards, offsets, sizes = (looked_at[name].to_pylist() for name in ("shard", "offset", "size"))

    def read(row: int, limits: Limits) -> bytes:
        return places[shards[row]].read(limits.file_bytes, offsets[row], sizes[row])

    chosen, why = recognised(looked_at["path"].to_pylist(), read)
    if chosen is None:
        why = next(
            (text for size, text in zip(members["size"].to_pylist(), members["text"].to_pylist(), strict=True) if size < 0), why
        )
        raise TacitError(f"no kind of data recognises the {len(members)} members of {places[0]}: {why}; name it with --kind")
    return chosen, why


def _samples(
    members: pa.Table, places: Sequence[Place], facts: Sequence[tuple[int, int]], kind: Kind
) -> tuple[pa.Table, dict[int, str]]:
    """One row per key that has a member of the kind, with label and caption from the members beside it.

    Also the rows that stand for damaged ends of shards, and what is wrong with them.
    """
    rows = members.to_pylist()
    # `1.jpg` beside `1.mask.png`: the ending that most keys have is the sample's.
    endings = Counter(
        ending for row in rows if (ending := _ending(row["path"])) and f".{ending.split('.')[-1]}" in kind.extensions()
    )
    rank = {ending: place for place, (ending, _) in enumerate(endings.most_common())}
    best: dict[tuple[int, str], dict] = {}
    texts: dict[tuple[int, str], dict[str, str]] = {}
    for row in rows:
        ending = _ending(row["path"])
        key = (row["shard"], row["path"][: len(row["path"]) - len(ending)])
        if row["size"] < 0 or (ending in rank and (key not in best or rank[ending] < rank[_ending(best[key]["path"])])):
            best[key] = row
        elif row["text"] is not None:
            texts.setdefault(key, {})[ending] = row["text"]
    words = [_said(texts.get(key, {})) for key in best]
    table = {
        "path": pa.array([f"{places[row['shard']].name}/{row['path']}" for row in best.values()], pa.string()),
        "size": pa.array([row["size"] for row in best.values()], pa.int64()),
        "mtime": pa.array([facts[row["shard"]][1] for row in best.values()], pa.int64()),
        "shard": pa.array([row["shard"] for row in best.values()], pa.int32()),
        "offset": pa.array([row["offset"] for row in best.values()], pa.int64()),
    }
    # A split is in the name of a shard: train-000.tar.
    splits = [SPLITS.get(re.split(r"[^A-Za-z]", place.name)[0].lower()) for place in places]
    if all(splits):
        table["split"] = pa.array([splits[row["shard"]] for row in best.values()], pa.string())
    for column, values in (("label", [w[0] for w in words]), ("caption", [w[1] for w in words])):
        if any(value is not None for value in values):
            table[column] = pa.array(values, pa.string())
    return pa.table(table), {number: row["text"] for number, row in enumerate(best.values()) if row["size"] < 0}


def _ending(path: str) -> str:
    """Everything after the first dot of the last part of a name, lower case: what WebDataset tells the parts of a key by."""
    return posixpath.basename(path).partition(".")[2].lower()


def _said(texts: dict[str, str]) -> tuple[str | None, str | None]:
    """Label and caption: from `.cls` and `.txt`, else from the usual names in `.json`."""
    try:
        described = json.loads(texts.get("json", "{}"))
    except (ValueError, RecursionError):
        described = {}
    described = described if isinstance(described, dict) else {}
    label = (
        texts["cls"].strip()
        if "cls" in texts
        else next((described[k] for k in ("label", "class", "cls") if k in described), None)
    )
    caption = (
        texts["txt"].strip() if "txt" in texts else next((described[k] for k in ("caption", "text") if k in described), None)
    )
    return (None if label is None else str(label)), (None if caption is None else str(caption))
