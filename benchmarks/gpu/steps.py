"""What a GPU makes of tacit's steps: `python benchmarks/gpu/steps.py [--device cuda:0] [--pairs 5]`.

- The peak: a product of two square matrices in bfloat16, in floating-point operations a second.
- Whole steps in bfloat16 on a batch that lies ready, views and all, as they are and with `--compile`: MAE with ViT-L/16, and
  DINO with ViT-S/16, two large and eight small crops. Operations are counted as the step runs (views have none that count),
  and their share of the peak is the goal: half of it for MAE.
- SimCLR, two views of 224 pixels, ViT-S/16, batch 256: a whole run from its store, beside the step on a batch that lies ready
  and beside its input alone (batches from the store, on the device, turned into views). Elsewhere 871 images a second were
  published for one such GPU, end to end; the goal is twice that.

Writes `benchmarks/results/gpu-NAME.json` with the device's name. `--tiny` is for trying the script where there is no GPU: small
encoders and few pictures; nothing is written.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from pairs import alternate, keep, summary
from torch.utils.flop_counter import FlopCounterMode

import tacit
from tacit.data import store as stores
from tacit.data.loader import Loader
from tacit.data.open import measure, open_data
from tacit.data.spec import Batch
from tacit.data.survey import survey
from tacit.methods.method import Progress
from tacit.methods.registry import method as method_class
from tacit.train import ranks
from tacit.train.folder import RunFolder, read_table
from tacit.train.machine import pick_device
from tacit.train.plan import Found, Request, decide
from tacit.train.session import build_method
from tacit.train.situation import Budget
from tacit.train.step import Step

PUBLISHED = 871.0
"""Images a second of two such views, end to end, by another library."""

STEPS = 1000


@dataclass(frozen=True)
class Case:
    """A step to be measured; `pictures` are `side` pixels large."""

    method: str
    encoder: str
    batch: int
    size: int
    side: int
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        return f"{self.method}, {self.encoder} at {self.size} pixels, batch {self.batch}"

    @property
    def given(self) -> dict[str, Any]:
        fixed = {"encoder": self.encoder, "batch": self.batch, "size": self.size, "precision": "bfloat16", "warmup": 1}
        return fixed | dict(self.options)


CASES = {
    "mae": Case("mae", "vit-large/16", 128, 224, 256),
    "dino": Case("dino", "vit-small/16", 64, 224, 256),
    "simclr": Case("simclr", "vit-small/16", 256, 224, 256),
}
TINY = {
    "mae": Case("mae", "vit-micro/8", 32, 32, 40),
    "dino": Case("dino", "vit-micro/8", 32, 32, 40, (("local_size", 16), ("prototypes", 64))),
    "simclr": Case("simclr", "vit-micro/8", 32, 32, 40),
}


class Measured:
    """A case's pictures on the disk, and steps on them.

    Args:
        case: what is measured.
        folder: where pictures and stores may lie.
        pictures: how many there are.
    """

    def __init__(self, case: Case, folder: Path, pictures: int, device: torch.device) -> None:
        self.case, self.device = case, device
        self.data = folder / f"{case.side}-{pictures}.npy"
        if not self.data.exists():
            shape = (pictures, case.side, case.side, 3)
            np.save(self.data, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        self.collection = open_data(self.data)
        self.spec = measure(self.collection)

    def step(self, **given: Any) -> Step:
        """With the published values where nothing else is said."""
        found = Found(self.collection, self.spec, survey(self.collection, self.spec, sample=64))
        request = Request(
            self.case.method, self.data, recipe="paper", budget=Budget(steps=STEPS), given=self.case.given | given
        )
        recipe = decide(found, request, self.device, time.monotonic(), {})
        kind = method_class(self.case.method)
        made = build_method(kind, recipe.options, recipe.training, self.spec)
        return Step(made, recipe.training, self.spec, ranks.alone(self.device))

    def ready(self) -> Batch:
        """A batch on the device."""
        return self.loader(None).batch(0).to(self.device)

    def loader(self, store: stores.Store | None) -> Loader:
        return Loader(self.collection, store, None, self.case.batch, seed=0)

    def settled(self, call: Callable[[], object]) -> None:
        """A call, until the device is through with it."""
        call()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def peak(device: torch.device, side: int, pairs: int) -> float:
    """Floating-point operations a second of a product of two square matrices in bfloat16."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))

    def ten() -> None:
        for _ in range(10):
            torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    seconds = statistics.median(alternate({"product": ten}, pairs)["product"])
    found = 10 * 2 * side**3 / seconds
    print(f"peak: {found / 1e12:.1f} x 10^12 operations a second")
    return found


def shares(measured: Measured, most: float, pairs: int) -> list[dict[str, Any]]:
    """A step as it is and compiled: what share of the peak each reaches, and images a second."""
    batch, halfway = measured.ready(), Progress(STEPS // 2, STEPS, 1)
    plain, compiled = measured.step(), measured.step(compile=True)
    with FlopCounterMode(display=False) as counter:
        plain(batch, halfway)
    operations = counter.get_total_flops()
    sides = {"as it is": plain, "compiled": compiled}
    seconds = alternate({name: lambda s=s: measured.settled(lambda: s(batch, halfway)) for name, s in sides.items()}, pairs)
    rows = []
    for side, values in seconds.items():
        reached = summary({side: [operations / each / most for each in values]})[side]
        pace = len(batch) / statistics.median(values)
        what = f"{measured.case.name}, {side}"
        between = f"{reached['least']:.1%} to {reached['greatest']:.1%}"
        print(f"{what}: {reached['median']:.1%} of the peak ({between}), {pace:,.0f} images/s")
        rows.append({"what": what, "share_of_peak": reached, "operations": operations, "images_per_second": pace})
    return rows


def end_to_end(measured: Measured, folder: Path, steps: int, pairs: int) -> dict[str, Any]:
    """Images a second of a whole run from its store, of the step on a batch that lies ready, and of the input alone."""
    case, halfway = measured.case, Progress(STEPS // 2, STEPS, 1)
    options = case.given | {"store": "always", "held_back": 64, "stop_on": "none"}
    run = tacit.pretrain(
        case.method,
        measured.data,
        out=folder / "run",
        recipe="paper",
        options=options,
        steps=steps,
        device=str(measured.device),
    )
    laps = [lap for lap in read_table(RunFolder(run.path).speed)["samples_per_second"] if lap is not None]
    step, batch = measured.step(), measured.ready()
    store = stores.build(measured.collection, case.side, folder / "stores", budget_bytes=2**40)
    loader, turn = measured.loader(store), count()
    sides = {
        "step": lambda: measured.settled(lambda: step(batch, halfway)),
        "input": lambda: measured.settled(lambda: step.see(loader.batch(next(turn)), 0)),
    }
    seconds = alternate(sides, pairs)
    pace = {side: case.batch / spread["median"] for side, spread in summary(seconds).items()}
    pace["whole run"] = statistics.median(laps[1:-1] or laps)
    print(f"{case.name}: " + ", ".join(f"{side} {value:,.0f} images/s" for side, value in pace.items()))
    return {"what": case.name, "images_per_second": pace, "published": PUBLISHED, "goal": 2 * PUBLISHED}


def main() -> None:
    """All cases, one after the other."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--device", default="cuda")
    words.add_argument("--pairs", type=int, default=5)
    words.add_argument("--pictures", type=int, default=4096)
    words.add_argument("--steps", type=int, default=200, help="of the whole run")
    words.add_argument("--tiny", action="store_true", help="try the script on a processor")
    words.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    asked = words.parse_args()
    device = pick_device("cpu" if asked.tiny else asked.device)
    cases, pictures, steps, side = (TINY, 256, 12, 512) if asked.tiny else (CASES, asked.pictures, asked.steps, 8192)
    most = peak(device, side, asked.pairs)
    rows, runs = [], []
    with tempfile.TemporaryDirectory() as place:
        for name in asked.cases:
            measured = Measured(cases[name], Path(place), pictures, device)
            rows += shares(measured, most, asked.pairs)
            if name == "simclr":
                runs.append(end_to_end(measured, Path(place), steps, asked.pairs))
    if not asked.tiny:
        device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        keep(f"gpu-{re.sub('[^a-z0-9]+', '-', device_name.lower())}", {"peak": most, "rows": rows, "runs": runs})


if __name__ == "__main__":
    main()
