"""The verdict against the truth: runs with trouble made on purpose beside healthy ones, judged without labels and with them.

    python benchmarks/verdict.py FOLDER_OF_DATA_SETS

Every run is what `auto` makes of pictures of 32 pixels in about two minutes of a processor, in batches of 64 and counted in
steps: results depend on nothing but the seed. Adds to `benchmarks/results/verdict.json` run by run, and repeats none that is
there; what each check saw is kept too, so that `--table` judges it all anew by the rules of today, without training.

Truth is k-NN with each labelled sample left out in turn: of the run's encoder, of the untrained one (as it was made or with
its batch statistics settled, whichever is better) and of raw pixels. A difference counts from two standard errors on, paired.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import layout
import numpy as np
import torch
from torch import Tensor
from trouble import TROUBLES, tampered

import tacit
from tacit.core import files
from tacit.core.draws import Draws
from tacit.data.loader import Loader
from tacit.data.open import measure, open_data
from tacit.data.spec import Batch, Spec
from tacit.evaluation import figures
from tacit.evaluation.neighbours import nearest
from tacit.methods.registry import method
from tacit.nn.norms import settled
from tacit.train import loop
from tacit.train.advice import Setting
from tacit.train.config import Training
from tacit.train.evidence import Evidence
from tacit.train.machine import describe
from tacit.train.verdict import Verdict, judge
from tacit.views.image import CentreView

RESULTS = Path(__file__).parent / "results" / "verdict.json"
SIDE, MOST = 32, 2500
STEPS = {"simclr": 400, "moco-v3": 400, "dino": 400, "mae": 400}
HEALTHY = 2
"""Healthy runs are so many times as long, so that labels can show what they learned."""

SMALL = {"size": 16, "feature_size": 24}
VIEWS = {"simclr": SMALL, "moco-v3": SMALL, "dino": SMALL, "mae": {"size": SIDE}}
"""As `auto` takes them in so short a run."""

CLEAR = 2.0

SETS = {
    "omniglot": "sample:omniglot_small", "garments": "sample:fashion_mnist_sprite", "clothing": "sample:clothing96",
    "blood cells": "wbc_types/images.npz", "faces": "faces_orl/images.npz",
    "objects": "cifar10_subset/images.npz", "flowers": "flowers96", "persons": "person_tracks/images.npz",
}  # fmt: skip
UNSEEN = ("objects", "flowers", "persons")
"""No rule was chosen by what happened on these."""

COLOURED = ("clothing", "blood cells", *UNSEEN)


@dataclass(frozen=True)
class Case:
    """One run."""

    host: str
    trouble: str
    data: str
    seed: int = 0


FATAL = (
    Case("mae", "rate far too high", "blood cells"),
    Case("dino", "rate far too high", "objects"),
    Case("simclr", "sign turned", "garments"),
    Case("mae", "sign turned", "omniglot"),
    Case("moco-v3", "rate far too high", "clothing"),
)
"""More of what makes a run collapse or diverge."""


def cases() -> Iterator[Case]:
    """Healthy runs of simclr on every set, of the others on half of them; every trouble of two hosts, a third unseen."""

    def two(number: int, hosts: list[str]) -> list[str]:
        return [hosts[(number + i) % len(hosts)] for i in range(min(2, len(hosts)))]

    troubles = [(name, list(trouble.hosts)) for name, trouble in TROUBLES.items() if name != "none"]
    made = [(host, name) for number, (name, hosts) in enumerate(troubles) for host in two(number, hosts)]

    def place(number: int, name: str) -> str:
        seen = [data for data in SETS if data not in UNSEEN and (data in COLOURED or "colour" not in name)]
        return UNSEEN[number // 3 % 3] if number % 3 == 2 else seen[number % len(seen)]

    troubled = (Case(host, name, place(number, name)) for number, (host, name) in enumerate(made))
    halves = {"simclr": (0, 1), "moco-v3": (0,), "dino": (1,), "mae": (0,)}
    healthy = (Case(host, "none", data) for i, data in enumerate(SETS) for host in STEPS if i % 2 in halves[host])
    yield from (case for pair in zip_longest(troubled, healthy) for case in pair if case is not None)
    yield from FATAL


# Data and truth -------------------------------------------------------------------------------------------------------


def pictures(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """A set as uint8 `[N, 32, 32]` or `[N, 32, 32, 3]`, and its classes int64 `[N]`; whole classes where it is large."""
    path = SETS[name] if SETS[name].startswith("sample:") else folder / SETS[name]
    collection = open_data(path)
    spec, labels = measure(collection), np.array([str(label) for label in collection.index.table["label"].to_pylist()])
    y = np.unique(labels, return_inverse=True)[1]
    last = np.searchsorted(np.cumsum(np.bincount(y)), MOST, side="right")
    rows = np.flatnonzero(y < last) if last > 20 else np.linspace(0, len(y) - 1, min(MOST, len(y))).astype(int)
    loader = Loader(collection, None, rows, len(rows), 0, shuffle=False, side=2 * SIDE)
    batch = loader.batch(0)
    seen = CentreView(SIDE, normalise="none")(batch, Draws(0, 0, batch.ids), spec)
    return (255 * seen).round().byte().permute(0, 2, 3, 1).squeeze(-1).numpy(), y[batch.ids.numpy()]


def hits(features: Tensor, classes: np.ndarray, k: int = 10) -> Tensor:
    """Whose class its k nearest others say: float64 `[N]` of 0 and 1."""
    y = torch.as_tensor(classes)
    cosine, places = nearest(features, features, k, itself=True)
    said = torch.zeros(len(y), int(y.max()) + 1, dtype=torch.float64)
    said.scatter_add_(1, y[places], (cosine.double() / 0.07).exp())
    return (said.argmax(dim=1) == y).double()


def truth(run: tacit.Run, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Accuracies of run, untrained encoder and raw pixels, the run's lead over both in standard errors, its features' rank."""
    spec: Spec = run._open.spec
    pixels = torch.as_tensor(x).reshape(len(x), SIDE, SIDE, -1).permute(0, 3, 1, 2).contiguous()
    batch = Batch(torch.arange(len(x)), pixels, torch.tensor([[SIDE, SIDE]], dtype=torch.int32).expand(len(x), -1))
    parts = [
        CentreView(run._open.extent[0])(part, Draws(0, 0, part.ids), spec)
        for part in (batch.rows(i, i + 250) for i in range(0, len(x), 250))
    ]
    made = run._open.untrained
    with torch.no_grad():
        trained, untrained, other = (
            torch.cat([encoder(part).pooled for part in parts]) for encoder in (run.encoder, made, settled(made, parts))
        )
    untrained = max(untrained, other, key=lambda features: float(hits(features, y).mean()))
    raw = pixels.float().flatten(1)
    found = {"run": trained, "untrained": untrained, "input": raw - raw.mean(dim=0)}
    right = {name: hits(features, y) for name, features in found.items()}
    return {
        **{f"knn_{name}": float(each.mean()) for name, each in right.items()},
        **{f"ahead_of_{name}": figures.lead(right["run"], right[name]) for name in ("untrained", "input")},
        "chance": float(np.bincount(y).max() / len(y)),
        "rank": figures.effective_rank(trained),
    }


def true_class(found: dict[str, Any]) -> str:
    """What labels say; `learned` is clearly above both baselines, `collapsed` lost half of what there was or lies on a line."""
    if not found:
        return "diverged"
    left = (found["knn_run"] - found["chance"]) / max(found["knn_untrained"] - found["chance"], 0.01)
    if found["rank"] < 1.5 or (found["ahead_of_untrained"] < -CLEAR and left < 0.5):
        return "collapsed"
    if found["ahead_of_untrained"] < -CLEAR:
        return "worse"
    if found["ahead_of_untrained"] < CLEAR:
        return "no clear gain"
    return "learned" if found["ahead_of_input"] > CLEAR else "more than untrained"


# Runs -----------------------------------------------------------------------------------------------------------------


def measure_case(case: Case, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """One run with what every check saw, and the truth about it."""
    trouble = TROUBLES[case.trouble]
    given = {
        "batch": 64, "precision": "bfloat16", "stop_on": "none", "seed": case.seed, "checkpoint_every": "100000",
    } | VIEWS[case.host] | trouble.hosts[case.host]  # fmt: skip
    checks: list[tuple[Evidence, Setting]] = []

    def remembering(e: Evidence, setting: Setting, stopped: str = "") -> Verdict:
        if e.step and e.now and (not checks or checks[-1][0].now is not e.now):
            checks.append((e, setting))
        return judge(e, setting, stopped)

    steps = STEPS[case.host] * (HEALTHY if case.trouble == "none" else 1)
    row: dict[str, Any] = asdict(case) | {"steps": steps, "unseen": case.data in UNSEEN}
    with tempfile.TemporaryDirectory() as folder, tampered(case.host, trouble):
        data, out = Path(folder) / "pictures.npz", Path(folder) / "run"
        np.savez(data, images=trouble.data(x))
        loop.judge, stopped, run = remembering, "", None
        try:
            run = tacit.pretrain(case.host, data, out=out, steps=steps, options=given, device="cpu")
        except tacit.Stopped as stop:
            stopped = str(stop)
        except tacit.TacitError as refused:
            if (out / "config.toml").exists():  # it had begun
                raise
            return row | {"refused": str(refused)}
        finally:
            loop.judge = judge
        row["stopped"] = stopped.replace(folder, "")
        row["truth"] = {} if run is None else truth(run, x, y)
    first, setting = checks[-1]
    row["duplicates"] = setting.duplicates
    row["departures"] = setting.departures
    row["evidence"] = {name: getattr(first, name) for name in ("untrained", "raw", "first_loss", "chance", "samples")}
    row["checks"] = [{"now": e.now, "loss": e.loss, "step": e.step} for e, _ in checks]
    return rounded(row)


def rounded(value: Any) -> Any:
    """With numbers of five digits, which is what a table needs of them."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return (
        float(f"{value:.5g}")
        if isinstance(value, float) and math.isfinite(value)
        else None
        if isinstance(value, float)
        else value
    )


def judged(row: dict[str, Any]) -> tuple[str, float]:
    """The verdict by the rules of today, and at which share of the steps it fell: the first that would have stopped the run."""
    if "refused" in row:
        return "refused", 0.0
    kept, steps = row["evidence"], row["steps"]
    setting = Setting(Training(steps=steps), {}, row["duplicates"], rebuilds=method(row["host"]).rebuilds)
    verdict = None
    for check in row["checks"]:
        now = {name: math.nan if value is None else value for name, value in check["now"].items()}
        loss = math.nan if check["loss"] is None else check["loss"]
        verdict = judge(Evidence(now, **{**kept, "loss": loss, "step": check["step"]}), setting)
        if verdict.verdict in ("collapsed", "diverged"):
            return verdict.verdict, check["step"] / steps
    if row["stopped"]:
        return "diverged", int(row["stopped"].split("step ")[1].split()[0].strip(":")) / steps
    assert verdict is not None
    return verdict.verdict, 1.0


# The table ------------------------------------------------------------------------------------------------------------


def fault(row: dict[str, Any]) -> str:
    """What is wrong with a verdict, if anything is."""
    said, (made, real) = judged(row)[0], (row["trouble"] != "none", true_class(row.get("truth", {})))
    if said == "refused":
        return ""
    if said == "learned" and real in ("no clear gain", "worse", "collapsed"):
        return "too generous"
    if said in ("collapsed", "diverged") and not made:
        return "healthy, but stopped"
    if said in ("collapsed", "diverged") and real == "learned":
        return "stopped, but it learned"
    if said == "undecided" and real in ("learned", "collapsed", "diverged"):
        return "missed"
    return ""


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: verdict against truth for every run, the misses marked."""
    lines = []
    for row in rows:
        said, at = judged(row)
        found = row.get("truth") or {}
        knn = ", ".join(f"{100 * found[f'knn_{name}']:.1f}" for name in ("run", "untrained", "input")) if found else "-"
        real = "-" if said == "refused" else true_class(found)
        data = row["data"] + (" *" if row["unseen"] else "")
        lines.append([row["trouble"], row["host"], data, said, f"{at:.0%}", real, knn, fault(row)])
    head = ["trouble", "method", "set", "verdict", "at", "truth", "k-NN of run, untrained, pixels", "fault"]
    return layout.table(head, lines)


def summary(rows: list[dict[str, Any]]) -> str:
    """Markdown: how many runs of each truth got which verdict, on the sets that rules were chosen by and on the others."""
    words = ("learned", "undecided", "collapsed", "diverged")
    lines = []
    judged_rows = [row for row in rows if "refused" not in row]
    for real in ("learned", "more than untrained", "no clear gain", "worse", "collapsed", "diverged"):
        for unseen in (False, True):
            of = [row for row in judged_rows if true_class(row["truth"]) == real and row["unseen"] == unseen]
            counts = [sum(judged(row)[0] == word for row in of) for word in words]
            if of:
                lines.append([real, "unseen" if unseen else "seen", str(len(of)), *map(str, counts)])
    faults = [f for row in judged_rows if (f := fault(row))]
    named = [judged(row)[1] for row in judged_rows if true_class(row["truth"]) in ("collapsed", "diverged")]
    soon = sum(at <= 0.1 for at in named)
    counted = ", ".join(f"{faults.count(name)} {name}" for name in dict.fromkeys(faults)) or "none"
    said = f"{len(judged_rows)} runs; faults: {counted}. Of {len(named)} collapses {soon} were named within 10 % of the steps."
    return f"{layout.table(['truth', 'sets', 'runs', *words], lines)}\n\n{said}"


def main() -> None:
    """Run what is not in the results yet, and print the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", nargs="?", type=Path, help="holds the data sets that are not bundled, unpacked or packed")
    words.add_argument("--table", action="store_true", help="only judge what was measured")
    words.add_argument("--hosts", nargs="+", default=list(STEPS))
    words.add_argument("--file", type=Path, default=RESULTS)
    asked = words.parse_args()
    content = json.loads(asked.file.read_text()) if asked.file.exists() else {"machine": describe(), "runs": []}
    torch.set_num_threads(1)
    known = {tuple(row[name] for name in ("host", "trouble", "data", "seed")) for row in content["runs"]}
    sets: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for case in () if asked.table or asked.folder is None else cases():
        if case.host not in asked.hosts or (case.host, case.trouble, case.data, case.seed) in known:
            continue
        if case.data not in sets:
            sets[case.data] = pictures(case.data, asked.folder)
        row = measure_case(case, *sets[case.data])
        content["runs"].append(row)
        files.write_json(asked.file, content)
        print(*asdict(case).values(), *judged(row), true_class(row.get("truth", {})), fault(row), flush=True)
    print(table(content["runs"]), summary(content["runs"]), sep="\n\n")


if __name__ == "__main__":
    main()
