"""What each host reaches with `--recipe auto` in a few minutes, beside the untrained encoder and raw pixels.

    python benchmarks/hosts.py --minutes 2 --seeds 0 1 2

Writes `benchmarks/results/hosts.json`, which holds every record with the machine it was made on; `--table` prints the table
of the documents from that file. One run at a time: two that compute side by side slow each other down many times over.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import tacit
from tacit.core import files
from tacit.train.machine import describe

RESULTS = Path(__file__).parent / "results" / "hosts.json"
SETS = ("sample:omniglot_small", "sample:clothing96", "sample:fashion_mnist_sprite")
HOSTS = ("simclr", "moco-v3", "dino", "mae")


def measure(host: str, data: str, minutes: float, seed: int) -> dict[str, Any]:
    """One run and its evaluation."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        try:
            run = tacit.pretrain(host, data, out=out, minutes=minutes, options={"seed": seed})
        except tacit.Stopped as stop:
            return {"host": host, "data": data, "seed": seed, "minutes": minutes, "stopped": str(stop)}
        trained = time.monotonic() - start
        records = run.evaluate(data, protocols=["knn", "linear"], seed=seed)
        figures = {f"{r.protocol} {r.encoder}": r.value for r in records if r.metric == "top1"}
        train = run.config["train"]
        return {
            "host": host,
            "data": data,
            "seed": seed,
            "minutes": minutes,
            "seconds": round(trained, 1),
            "samples_seen": train["steps"] * train["batch"],
            "encoder": train["encoder"],
            "precision": train["precision"],
            "verdict": run.verdict["verdict"],
            "effective_rank": run.verdict["figures"].get("effective_rank"),
            **figures,
        }


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: k-NN / linear probe on test in per cent, mean (and deviation over seeds where there are several)."""
    lines = ["| data | host | run | untrained | raw pixels | verdict |", "|---|---|---|---|---|---|"]
    for data in dict.fromkeys(row["data"] for row in found):
        for host in dict.fromkeys(row["host"] for row in found):
            rows = [row for row in found if (row["data"], row["host"]) == (data, host)]
            done = [row for row in rows if "stopped" not in row]
            cells = [
                " / ".join(_mean([row[f"{protocol} {encoder}"] for row in done]) for protocol in ("knn", "linear"))
                for encoder in ("run", "untrained", "input")
            ]
            verdicts = ", ".join(sorted({row.get("verdict", "stopped") for row in rows}))
            lines.append(f"| {data.removeprefix('sample:')} | {host} | {' | '.join(cells)} | {verdicts} |")
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{spread}"


def main() -> None:
    """Run what was asked for; a file that exists is added to, so that a cut-off benchmark goes on."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--minutes", type=float, default=2)
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--hosts", nargs="+", default=HOSTS)
    words.add_argument("--data", nargs="+", default=SETS)
    words.add_argument("--table", action="store_true", help="only print the table of what was measured")
    asked = words.parse_args()
    content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"machine": describe(), "runs": []}
    if not asked.table:
        for seed in asked.seeds:
            for data in asked.data:
                for host in asked.hosts:
                    key = (host, data, seed, asked.minutes)
                    if any((row["host"], row["data"], row["seed"], row["minutes"]) == key for row in content["runs"]):
                        continue
                    content["runs"].append(measure(host, data, asked.minutes, seed))
                    files.write_json(RESULTS, content)
                    print(json.dumps(content["runs"][-1]), flush=True)
    print(table(content["runs"]))


if __name__ == "__main__":
    main()
