"""Whole training steps, views included, beside lightly's examples and Hugging Face's ViTMAE.

    python benchmarks/peers.py --python PEERS/bin/python [--pairs 5]

The other side runs in an environment of its own, which is no part of the project; `views.py` says how it is made. Both sides
have the same architecture, heads, batch, optimiser, views and random images, and one process: the others read Pillow images
that lie in memory through a DataLoader with one worker, tacit reads its store. The others compute in float32, as their
examples do; tacit once in the quicker precision, as `auto` would choose, and once in float32. What is timed is a step of a
run: the next batch, its views, forward, backward, update, and teachers that follow. Goals, in steps per second: SimCLR and
MAE ViT-tiny twice (MAE 1.3 times in float32), MAE ViT-S/16 1.5 times (1.1), DINO 1.5 times; where no goal is given for
float32, it is not to be slower.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from built import CPU, pictures
from pairs import Peer, alternate, asked, keep, row, show, summary, times

from tacit.core.allocator import keep_freed_memory
from tacit.data import store as stores
from tacit.data.loader import Loader
from tacit.data.open import measure, open_data
from tacit.methods.method import Progress
from tacit.methods.registry import method as method_class
from tacit.nn import build
from tacit.train import ranks
from tacit.train.config import Training
from tacit.train.step import Step

STEPS = 1000
PRECISIONS = ("bfloat16", "float32")


@dataclass(frozen=True)
class Case:
    """A model that both sides train.

    Attributes:
        what: for the table.
        others: library -> its case in `peers/examples.py`.
        side: of the images, in pixels; the views are of `training["size"]`.
        at_once: steps in a turn.
        quicker, equal: how many times the steps per second are wanted, in the quicker precision and in float32.
    """

    what: str
    method: str
    others: dict[str, str]
    side: int
    at_once: int
    quicker: float
    equal: float
    training: dict[str, Any]
    options: dict[str, Any]
    encoder: dict[str, Any] = field(default_factory=dict)


MAE = {"mask_ratio": 0.75, "norm_pix": False}
ADAMW = {"optimiser": "adamw", "lr": 1.5e-4, "weight_decay": 0.01}

CASES = (
    Case(
        "SimCLR, ResNet-18 at 32 pixels, batch 256",
        "simclr",
        {"lightly": "simclr"},
        side=32,
        at_once=2,
        quicker=2.0,
        equal=1.0,
        training={"encoder": "resnet18", "size": 32, "batch": 256, "optimiser": "sgd", "lr": 0.06, "momentum": 0.0},
        options={"head_layers": 2, "temperature": 0.5, "normalise": "imagenet"},
        encoder={"stem": "imagenet"},  # lightly's example has it at 32 pixels, too
    ),
    Case(
        "MAE, ViT-tiny/4 at 32 pixels, decoder of 2 blocks of width 192, batch 256",
        "mae",
        {"lightly": "mae-tiny"},
        side=32,
        at_once=1,
        quicker=2.0,
        equal=1.3,
        training={"encoder": "vit-tiny/4", "size": 32, "batch": 256, **ADAMW},
        options={**MAE, "decoder_width": 192, "decoder_depth": 2, "decoder_heads": 3},
    ),
    Case(
        "MAE, ViT-S/16 at 224 pixels, published decoder, batch 16",
        "mae",
        {"lightly": "mae-small", "transformers": "vitmae-small"},
        side=256,
        at_once=1,
        quicker=1.5,
        equal=1.1,
        training={"encoder": "vit-small/16", "size": 224, "batch": 16, **ADAMW},
        options=MAE,
    ),
    Case(
        "DINO, ResNet-18, 2 crops of 224 and 6 of 96 pixels, batch 16",
        "dino",
        {"lightly": "dino"},
        side=256,
        at_once=1,
        quicker=1.5,
        equal=1.0,
        training={"encoder": "resnet18", "size": 224, "batch": 16, "optimiser": "adamw", "lr": 1e-3},
        options={"prototypes": 2048, "head_width": 512, "bottleneck": 64, "local_crops": 6, "drop_path": 0.0},
    ),
)


def ours(case: Case, precision: str, folder: Path) -> Callable[[], object]:
    """A turn of tacit: steps as a run makes them, halfway through it."""
    collection = open_data(pictures(folder, case.side, 2**20 // case.side**2))
    spec = measure(collection)
    training = Training(steps=STEPS, precision=precision, **case.training)  # pyright: ignore[reportArgumentType]
    kind = method_class(case.method)
    options = kind.Options(**case.options)
    own = kind.encoder_options(options, training.encoder) | case.encoder
    method = kind(options, build.encoder(training.encoder, 3, training.size, **own), spec, training.size)
    step = Step(method, training, spec, ranks.alone(CPU))
    store, _ = stores.prepare(collection, None, folder / "stores", None)
    loader = Loader(collection, store, None, training.batch, training.seed)
    batches = loader.ahead(0, sys.maxsize)
    progress = Progress(STEPS // 2, STEPS, STEPS // 10)
    return lambda: [step(next(batches), progress) for _ in range(case.at_once)]


def measured(case: Case, folder: Path, python: str, pairs: int) -> list[dict[str, Any]]:
    """Both precisions beside each library; a row of the table for each."""
    script = str(Path(__file__).parent / "peers/examples.py")
    words = ("--batch", str(case.training["batch"]), "--steps", str(case.at_once))
    with ExitStack() as at_the_end:
        sides: dict[str, Callable[[], object]] = {precision: ours(case, precision, folder) for precision in PRECISIONS}
        others = {
            library: at_the_end.enter_context(Peer(python, "-W", "ignore", script, name, *words))
            for library, name in case.others.items()
        }
        seconds = alternate(sides | others, pairs)
    show(seconds)
    spread = summary(seconds)
    quickest = min(PRECISIONS, key=lambda precision: spread[precision]["median"])
    return [
        row(
            f"step of {case.what}, in {precision}",
            f"{library} {peer.versions[library]}, in float32",
            times(seconds, precision, library),
            most=1 / wanted,
        )
        | {"seconds": {side: spread[side] for side in (precision, library)}, "steps": case.at_once, "versions": peer.versions}
        for library, peer in others.items()
        for precision, wanted in ((quickest, case.quicker), ("float32", case.equal))
    ]


def main() -> None:
    """All cases."""
    words = asked(pairs=5, python="python3")
    keep_freed_memory()  # as in a run
    with tempfile.TemporaryDirectory() as folder:
        found = [measured(case, Path(folder), words.python, words.pairs) for case in CASES]
    keep("peers", {"rows": [line for lines in found for line in lines]})


if __name__ == "__main__":
    main()
