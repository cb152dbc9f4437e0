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
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from built import HALFWAY, Built, built, pictures, settled
from pairs import alternate, keep, summary
from torch.utils.flop_counter import FlopCounterMode

import tacit
from tacit.data import store as stores
from tacit.train.folder import RunFolder, read_table
from tacit.train.machine import pick_device

PUBLISHED = 871.0
"""Images a second of two such views, end to end, by another library."""


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

    def built(self, data: Path, device: torch.device, **given: Any) -> Built:
        """With the published values where nothing else is said."""
        return built(self.method, data, device, "paper", **self.given, **given)


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


def peak(device: torch.device, side: int, pairs: int) -> float:
    """Floating-point operations a second of a product of two square matrices in bfloat16."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))

    def ten() -> None:
        for _ in range(10):
            torch.mm(left, right)

    seconds = statistics.median(alternate({"product": lambda: settled(ten, device)}, pairs)["product"])
    found = 10 * 2 * side**3 / seconds
    print(f"peak: {found / 1e12:.1f} x 10^12 operations a second")
    return found


def shares(case: Case, data: Path, device: torch.device, most: float, pairs: int) -> list[dict[str, Any]]:
    """A step as it is and compiled: what share of the peak each reaches, and images a second."""
    made = case.built(data, device)
    plain, compiled = made.step(), case.built(data, device, compile=True).step()
    batch = made.batch(plain)
    with FlopCounterMode(display=False) as counter:
        plain(batch, HALFWAY)
    operations = counter.get_total_flops()
    sides = {"as it is": plain, "compiled": compiled}
    seconds = alternate({name: lambda s=s: settled(lambda: s(batch, HALFWAY), device) for name, s in sides.items()}, pairs)
    rows = []
    for side, values in seconds.items():
        reached = summary({side: [operations / each / most for each in values]})[side]
        pace = len(batch) / statistics.median(values)
        what = f"{case.name}, {side}"
        between = f"{reached['least']:.1%} to {reached['greatest']:.1%}"
        print(f"{what}: {reached['median']:.1%} of the peak ({between}), {pace:,.0f} images/s")
        rows.append({"what": what, "share_of_peak": reached, "operations": operations, "images_per_second": pace})
    return rows


def end_to_end(case: Case, data: Path, device: torch.device, folder: Path, steps: int, pairs: int) -> dict[str, Any]:
    """Images a second of a whole run from its store, of the step on a batch that lies ready, and of the input alone."""
    options = case.given | {"store": "always", "held_back": 64, "stop_on": "none"}
    run = tacit.pretrain(
        case.method, data, out=folder / "run", recipe="paper", options=options, steps=steps, device=str(device)
    )
    laps = [lap for lap in read_table(RunFolder(run.path).speed)["samples_per_second"] if lap is not None]
    made = case.built(data, device)
    step = made.step()
    batch, turn = made.batch(step), count()
    loader = made.loader(step, stores.build(made.collection, case.side, folder / "stores", budget_bytes=2**40))
    sides = {
        "step": lambda: settled(lambda: step(batch, HALFWAY), device),
        "input": lambda: settled(lambda: step.see(loader.batch(next(turn)), 0), device),
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
    cases, many, steps, side = (TINY, 256, 12, 512) if asked.tiny else (CASES, asked.pictures, asked.steps, 8192)
    most = peak(device, side, asked.pairs)
    rows, runs = [], []
    with tempfile.TemporaryDirectory() as place:
        for name in asked.cases:
            case, data = cases[name], pictures(Path(place), cases[name].side, many)
            rows += shares(case, data, device, most, asked.pairs)
            if name == "simclr":
                runs.append(end_to_end(case, data, device, Path(place), steps, asked.pairs))
    if not asked.tiny:
        device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        keep(f"gpu-{re.sub('[^a-z0-9]+', '-', device_name.lower())}", {"peak": most, "rows": rows, "runs": runs})


if __name__ == "__main__":
    main()
