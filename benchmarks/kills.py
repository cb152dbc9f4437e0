"""`kill -9` at moments drawn at random, in everything that tacit does: what goes on ends, bit for bit, as if nothing had been.

    python benchmarks/kills.py --kills 10 --hosts simclr clip

Every life is the command line in a process of its own, forked from one that has imported everything. Of the commands of a
host (pretrain, evaluate, embed), one after the other is started, killed, and started again, up to four times; every life
decodes with another number of threads, and some have no place for a store. A kill is aimed at a byte that is being written, at
a call (before or after it), or at any time at all; which, is drawn from what an uninterrupted run was seen to do. What is
finished in the end is compared with that run. Writes `benchmarks/results/kills.json`, where kills add up
until somebody says `--again`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from moments import Watchman
from PIL import Image

import tacit
from tacit import cli
from tacit.core import files
from tacit.data import chunks, workers
from tacit.methods.registry import method
from tacit.train.machine import describe
from tacit.use import embed

RESULTS = Path(__file__).parent / "results" / "kills.json"
HOSTS = {
    "simclr": "resnet-mini", "moco-v3": "resnet-mini", "mae": "vit-micro/4", "dino": "vit-micro/4",
    "child-video": "video-vit-micro/2x4", "rspnet": "r3d-mini", "chada-vit": "channel-vit-micro/8", "alice": "swin3d-micro",
    "polar-mae": "point-vit-micro", "clip": "clip-vit-micro/4", "mod-x": "clip-vit-micro/4",
}  # fmt: skip
"""Methods of every kind of data, and what they are killed with."""

SAME = (
    "config.toml", "metrics.csv", "figures.csv", "skipped.tsv", "verdict.json", "encoder.safetensors", "encoder.json",
    "reader.safetensors", "reader.json", "tokenizer.json",
)  # fmt: skip
LONGEST = 900
"""Seconds after which a life counts as hung."""

AT_ANY_TIME = "any time"
COMMANDS = {
    "pretrain": (AT_ANY_TIME, AT_ANY_TIME, AT_ANY_TIME, "configuration", "store", "row", "log", "events", "checkpoint",
                 "pictures", "result", "replacing", "step", "half a step", "epoch", "check", "saving",
                 "decoding for the store", "drawing"),
    "evaluate": ("evaluation", "evaluating", AT_ANY_TIME),
    "embed": ("embedding", "arranging", "replacing", AT_ANY_TIME),
}  # fmt: skip
NASTY = ("store", "row", "checkpoint", "replacing", "pictures", "result")


@dataclass
class Place:
    """Where one sequence of lives happens: a folder with run, embeddings and cache of its own, beside the shared data."""

    root: Path
    host: Host

    def words(self, command: str) -> list[str]:
        """The command, which is the same in every life."""
        run, data = str(self.root / "run"), str(self.host.data)
        if command == "evaluate":
            return [command, run, data, "--protocol", "knn", "--protocol", "retrieval", "--device", "cpu"]
        if command == "embed":
            return [command, run, data, "--out", str(self.root / "embeddings.parquet"), "--device", "cpu"]
        sets = [word for name, value in self.host.options.items() for word in ("--set", f"{name}={value}")]
        ending = ["--steps", "26", "--checkpoint-every", "4", "--device", "cpu", "--out", run, "--resume"]
        return [command, self.host.name, data, *sets, *ending]

    def live(self, command: str, watch: Watchman, seconds: float, threads: int, store_kept: bool) -> int:
        """One life, killed after `seconds` if it still lasts; its exit code, or -9."""
        child = os.fork()
        if child == 0:
            self._be(command, watch, threads, store_kept)
        start = time.monotonic()
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() - start > seconds:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return -9
            time.sleep(0.002)
        told = self.root / "told.json"
        return json.loads(told.read_text())["code"] if told.exists() else -9

    def _be(self, command: str, watch: Watchman, threads: int, store_kept: bool) -> None:
        """What happens in the child; it does not return."""
        (self.root / "told.json").unlink(missing_ok=True)
        with open(self.root / "said.txt", "ab", buffering=0) as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        # Where a file lies in the way of the cache, there is no store.
        os.environ["TACIT_CACHE"] = str(self.root / ("cache" if store_kept else "said.txt/cache"))
        workers.processors = lambda: threads
        chunks.CHUNK_ROWS, embed.GROUP_BATCHES = 64, 1
        sys.argv = ["tacit", *self.words(command)]
        code = 0
        try:
            watch.stand()
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 1
        (self.root / "told.json").write_text(json.dumps({"code": code, "seen": watch.seen}))
        os._exit(0)

    def state(self, command: str) -> dict[str, Any]:
        """What a finished command leaves, by name, in a form that can be compared."""
        run = self.root / "run"
        if command == "embed":
            return {path.name: path.read_bytes() for path in self.root.glob("embeddings*")}
        if command == "evaluate":
            records = [json.loads(path.read_text()) for path in sorted((run / "evaluations").iterdir())]
            return {"records": [[{**record, "seconds": 0} for record in found] for found in records]}
        kept: dict[str, Any] = {name: (run / name).read_bytes() for name in SAME if (run / name).exists()}
        kept |= {f"pictures/{path.name}": path.read_bytes() for path in (run / "pictures").iterdir()}
        kept["files"] = sorted(str(path.relative_to(run)) for path in run.rglob("*") if "events" not in str(path))
        for name in ("last.pt", "best.pt"):
            content = torch.load(run / "checkpoints" / name, weights_only=True)
            content["state"].pop("lengths")  # speed.csv is a little longer or shorter each time
            content.pop("skipped")  # a store knows all that is broken, workers what they met: in the end, `skipped.tsv`
            kept[name] = _flat(content)
        return kept


def _flat(content: Any) -> Any:
    """Tensors as their bytes, so that `==` compares all there is."""
    if isinstance(content, torch.Tensor):
        return str(content.dtype), tuple(content.shape), content.contiguous().view(-1).numpy().tobytes()
    if isinstance(content, dict):
        return {key: _flat(value) for key, value in content.items()}
    return [_flat(value) for value in content] if isinstance(content, list | tuple) else repr(content)


def pictures(root: Path, many: int = 420) -> None:
    """A folder of small pictures in four class folders, three of them broken."""
    draw = np.random.default_rng(0)
    for number in range(many):
        folder_ = root / f"class{number % 4}"
        folder_.mkdir(parents=True, exist_ok=True)
        coarse = draw.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        coarse[..., number % 3] //= 1 + number % 4
        width, height = (int(side) for side in draw.integers(18, 26, 2))
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(folder_ / f"{number}.png")
    for number in (7, 130, 301):
        path = root / f"class{number % 4}" / f"{number}.png"
        path.write_bytes(path.read_bytes()[:60])


@dataclass
class Host:
    """A host's uninterrupted run, and what was seen in it."""

    name: str
    data: Path
    root: Path
    options: dict[str, Any]
    seen: dict[str, Counter[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, root: Path) -> Host:
        """With samples of its kind, some of which are broken where each is a file of its own."""
        sys.path.append(str(Path(__file__).parents[1]))
        from tests.contract.grounds import ground

        stand, data = ground(name), root / f"{name}-data"
        chosen = {"precision": "float32", "size": stand.size, "encoder": HOSTS[name]}
        if method(name).kinds[0] == "image":
            pictures(data)
            return cls(name, data, root / name, {**chosen, "batch": 32, "held_back": 64})
        data.mkdir()
        listed = stand.several(data, stand.plenty, [f"class{number % 4}" for number in range(stand.plenty)])
        for path in sorted(path for path in data.iterdir() if path.suffix in (".nii", ".webp"))[7::50]:
            path.write_bytes(path.read_bytes()[:60])
        return cls(name, listed, root / name, {**chosen, "batch": 16, "held_back": 16, "stop_on": "none", **stand.small})

    def rehearse(self, commands: Iterable[str]) -> None:
        self.root.mkdir()
        place = Place(self.root, self)
        for command in commands:
            start = time.monotonic()
            code = place.live(command, Watchman(), LONGEST, 2, True)
            self.seconds[command] = time.monotonic() - start
            if code:
                raise SystemExit(f"{self.name}: {command} ended with {code}:\n{(self.root / 'said.txt').read_text()[-2000:]}")
            self.seen[command] = Counter(json.loads((self.root / "told.json").read_text())["seen"])
            self.states[command] = place.state(command)

    def attack(self, command: str, moments: list[str], root: Path, draw: random.Random) -> tuple[list[str], str]:
        """Kill a command at these moments, let it finish, compare. The kills that struck, and what was wrong in the end."""
        root.mkdir()
        place = Place(root, self)
        if command != "pretrain":
            shutil.copytree(self.root / "run", root / "run")
            shutil.rmtree(root / "run" / "evaluations", ignore_errors=True)
        struck: list[str] = []
        for moment in moments:
            watch, seconds = Watchman(), float(LONGEST)
            if moment == AT_ANY_TIME:
                seconds = draw.uniform(0, self.seconds[command])
            else:
                # There is less left to do for a life that goes on.
                watch = Watchman(moment, draw.randrange(max(1, self.seen[command][moment] >> len(struck))))
            code = place.live(command, watch, seconds, draw.randrange(1, 7), draw.random() < 0.8)
            if code == -9:
                struck.append(moment)
            elif code:
                return struck, f"ended with {code} where {moment} was aimed at"
        code = place.live(command, Watchman(), LONGEST, draw.randrange(1, 7), draw.random() < 0.8)
        if code:
            return struck, f"ended with {code} after {', '.join(struck)}"
        now, then = place.state(command), self.states[command]
        different = [name for name in now.keys() | then.keys() if now.get(name) != then.get(name)]
        return struck, f"{', '.join(sorted(different))} differ after {', '.join(struck)}" if different else ""


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--kills", type=int, default=10, help="of each host")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--hosts", nargs="+", default=list(HOSTS), choices=HOSTS)
    words.add_argument("--again", action="store_true", help="forget the kills before")
    words.add_argument("--nasty", action="store_true", help="aim only where something is half-written")
    words.add_argument("--out", type=Path, default=RESULTS)
    asked = words.parse_args()
    torch.set_num_threads(1)  # and no pool of threads before a fork
    for module in pkgutil.walk_packages(tacit.__path__, "tacit."):
        importlib.import_module(module.name)
    draw = random.Random(asked.seed)
    found: dict[str, dict[str, Any]] = {}
    if asked.out.exists() and not asked.again:
        found = files.read_json(asked.out)["hosts"]
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        for name in asked.hosts:
            host = Host.of(name, Path(scratch))
            aims = {"pretrain": NASTY} if asked.nasty else COMMANDS
            host.rehearse(aims)
            print(f"{host.name}: {sum(host.seconds.values()):.1f} s uninterrupted", flush=True)
            row = found.setdefault(name, {"seeds": [], "kills": 0, "survived": 0, "failures": [], "moments": {}})
            row["seeds"].append(asked.seed)
            goal, failures = row["kills"] + asked.kills, len(row["failures"])
            plan = _plan(aims, draw)
            for number in count():
                if row["kills"] >= goal or len(row["failures"]) - failures >= 10:
                    break
                command, moments = plan[number % len(plan)]
                place = Path(scratch) / f"{name}-{number}"
                struck, wrong = host.attack(command, moments[: goal - row["kills"]], place, draw)
                _note(row, command, struck, wrong)
                if wrong:
                    print(f"{name}: {wrong}", (place / "said.txt").read_text()[-600:], sep="\n", flush=True)
                shutil.rmtree(place)
                total = {key: sum(each[key] for each in found.values()) for key in ("kills", "survived")}
                files.write_json(asked.out, {"machine": describe(), **total, "hosts": found})
            print(f"{name}: {row['survived']} of {row['kills']} kills survived", flush=True)
    sys.exit(any(found[name]["failures"] for name in asked.hosts))


def _note(row: dict[str, Any], command: str, struck: list[str], wrong: str) -> None:
    """Add the kills of one sequence of lives to what is known of a host."""
    for moment in struck:
        cell = row["moments"].setdefault(f"{command}: {moment}", {"kills": 0, "survived": 0})
        for each in (row, cell):
            each["kills"] += 1
            each["survived"] += not wrong
    if wrong:
        row["failures"].append(f"{command}: {wrong}")


def _plan(aims: Mapping[str, tuple[str, ...]], draw: random.Random) -> list[tuple[str, list[str]]]:
    """Which command is killed at which moments: every moment comes up, up to four of them in a row."""
    found = []
    for command, moments in aims.items():
        chosen = draw.sample(moments, len(moments))
        # In the order in which they come up, so that what happens once is not over when it is aimed at.
        parts = (sorted(chosen[at : at + 4], key=moments.index) for at in range(0, len(chosen), 4))
        found += [(command, part) for part in parts]
    draw.shuffle(found)
    return found


if __name__ == "__main__":
    main()
