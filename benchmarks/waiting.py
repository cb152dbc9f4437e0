"""How much of a run's time its steps wait for data that lies in a store: `python benchmarks/waiting.py [--minutes 1.5]`.

SimCLR on a small residual network, whose steps are the shortest that there are, on JPEGs. The values are those of `speed.csv`,
one for each interval of ten seconds. Goal: under 3 %.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pairs import asked, keep, row
from store import make

SIDES = (16, 32, 96)
FILES, BATCH = 2000, 128


def main() -> None:
    """A run for each side of the views; the last interval, which the end cuts short, is left out."""
    import tacit
    from tacit.train.folder import RunFolder, read_table

    minutes = float(asked(minutes="1.5").minutes)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        os.environ["TACIT_CACHE"] = f"{place}/cache"
        make(data := Path(place) / "data", FILES)
        for side in SIDES:
            options = {"encoder": "resnet-mini", "size": side, "batch": BATCH, "held_back": 64, "store": "always"}
            run = tacit.pretrain("simclr", data, out=Path(place) / f"run-{side}", minutes=minutes, options=options)
            *whole, _ = read_table(RunFolder(run.path).speed)["share_waiting"]
            what = f"waiting for data: simclr, resnet-mini at {side} pixels, batch {BATCH}, from a store"
            rows.append(
                row(what, "the steps of a run, whole", [100 * share for share in whole if share is not None], most=3, unit="%")
            )
    keep("waiting", {"rows": rows})


if __name__ == "__main__":
    main()
