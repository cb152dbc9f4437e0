"""`make fuzz SECONDS=600`: look for inputs that break tacit's own parsers, for so many seconds in all.

What is found is written to `build/fuzz/found`. Once it is mended, the input belongs into `tests/fuzz/corpus/TARGET/`, where
`tests/reliability/test_artefacts_hostile.py` reads it ever after. What was run is written to `benchmarks/results/fuzz.json`,
where targets that were not run this time stay as they were.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tacit.core import files
from tacit.train.machine import describe
from tests.fuzz.targets import targets

CORPUS = Path(__file__).parent / "corpus"
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "fuzz.json"

PARSED_BY_US = (
    "source/", "huggingface/", "cache/", "store/journal.jsonl", "run/encoder.json", "report/", "resume/config.toml", "search/",
    "init/", "features/f.npy.ids.tsv", "image/pages.tif", "image/big.tif", "image/deep", "points/mesh", "points/text.ply",
)  # fmt: skip
"""Targets in which tacit itself takes bytes apart; the others are decoders of other people, who fuzz them."""


def main() -> None:
    """A share of the time for each target."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--seconds", type=int, default=600)
    words.add_argument("--only", default="", help="only targets whose name begins so")
    words.add_argument("--work", type=Path, default=Path("build/fuzz"))
    asked = words.parse_args()
    names = [name for name in targets() if name.startswith(PARSED_BY_US) and name.startswith(asked.only)]
    ran: dict[str, Any] = files.read_json(RESULTS)["targets"] if RESULTS.exists() else {}
    for name in names:
        ran[name] = fuzz(name, max(1, asked.seconds // len(names)), asked.work)
        print(name, ran[name], flush=True)
        files.write_json(RESULTS, {"machine": describe(), "targets": ran})
    broken = [name for name in names if ran[name]["found"]]
    print(f"{len(names)} targets, {sum(ran[name]['inputs'] for name in names):,} inputs; broken: {', '.join(broken) or 'none'}")
    sys.exit(bool(broken))


def fuzz(name: str, seconds: int, work: Path) -> dict[str, Any]:
    """Inputs tried, how many edges of the code they reached, and what was found."""
    corpus, found = work / "corpus" / name, work / "found" / name
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    for kept in (CORPUS / name).glob("*"):
        shutil.copy(kept, corpus)
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(seconds), str(corpus), str(found)]
    said = subprocess.run(command, capture_output=True, text=True, errors="replace").stderr
    for scratch in found.glob("tacit-fuzz-*"):
        shutil.rmtree(scratch, ignore_errors=True)
    inputs = re.search(r"number_of_executed_units:\s*(\d+)", said)
    edges = re.findall(r"cov: (\d+)", said)
    broken = [path.name for path in found.iterdir()]
    if inputs is None and not broken:
        raise SystemExit(f"{name} could not be fuzzed:\n{said[-2000:]}")
    what = [line for line in said.splitlines() if re.match(r"\w*(Error|Exception)\b|ERROR: libFuzzer", line)]
    return {
        "seconds": seconds,
        "inputs": int(inputs[1]) if inputs else 0,
        "edges": int(edges[-1]) if edges else 0,
        "found": [{"input": path, "what": what[-1][:300] if what else ""} for path in broken],
    }


if __name__ == "__main__":
    main()
