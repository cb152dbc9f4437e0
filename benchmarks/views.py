"""Views of a batch at once, beside torchvision's transforms image by image: images/s on one thread.

    python benchmarks/views.py --python PEERS/bin/python [--pairs 9]

The other side runs in an environment of its own, which is no part of the project:

    python3 -m venv PEERS
    PEERS/bin/pip install torch==2.13.0
    PEERS/bin/pip install --no-deps -r benchmarks/peers/requirements.txt

Both sides make the same views of the same random uint8 images with the same chances and amplitudes: at 32 pixels those that
`auto` takes, at 224 the published ones. Goal: 10 times the images/s at 32 pixels, 1.5 times at 224.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import Peer, alternate, asked, keep, row, show, summary, times

CASES = (("simclr", 32, 32, 256), ("dino", 32, 32, 256), ("simclr", 224, 256, 64), ("dino", 224, 256, 32))
"""Method, side of its (large) views, side of the images, how many."""

GOALS = {32: 10.0, 224: 1.5}


def options(method: str, size: int, samples: int) -> dict[str, Any]:
    """What decides a method's views, as `auto` would have it for small images; published values else."""
    from tacit.data.spec import Spec
    from tacit.methods.method import Facts
    from tacit.methods.registry import method as method_class

    if size > 64:
        return {}
    spec = Spec("image", 3, (size, size))
    facts = Facts(spec, samples, 0, 0, 0, None, 256, 2000, size, (size, size), "resnet-mini", 256, "cpu")
    return {name: chosen.value for name, chosen in method_class(method).auto(facts).items() if "." not in name}


def case(method: str, size: int, side: int, images: int, python: str, pairs: int) -> dict[str, Any]:
    """One method at one size."""
    from tacit.core.draws import Draws
    from tacit.data.spec import Batch, Spec
    from tacit.methods.registry import method as method_class
    from tacit.nn import build

    kind, spec = method_class(method), Spec("image", 3, (side, side))
    chosen = options(method, size, samples=50_000)
    if method == "dino":
        chosen["prototypes"] = 2  # they take long to make, and views do not depend on them
    views = kind(kind.Options(**chosen), build.encoder("resnet-mini", 3, size), spec, size).views()
    pixels = np.random.default_rng(0).integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    data, extents = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor([[side, side]] * images)
    batch, epochs = Batch(torch.arange(images), data, extents.int()), count()

    def batched() -> None:
        draws = Draws(0, next(epochs), batch.ids)
        for name, view in views.items():
            view(batch, draws.within(name), spec)

    described = json.dumps([asdict(view) for view in views.values()])  # pyright: ignore[reportArgumentType]
    words = (str(Path(__file__).parent / "peers/views.py"), str(images), str(side), described)
    with Peer(python, *words) as peer:
        seconds = alternate({"tacit": batched, "torchvision": peer}, pairs)
    show(seconds)
    pace = {name: images / spread["median"] for name, spread in summary(seconds).items()}
    print(", ".join(f"{name}: {value:,.0f} images/s" for name, value in pace.items()))
    what = f"{len(views)} views of an image for {method} at {size} pixels, on one thread"
    beside = f"torchvision {peer.versions['torchvision']} on Pillow {peer.versions['pillow']}, image by image"
    found = row(what, beside, times(seconds, "tacit", "torchvision"), most=1 / GOALS[size])
    return found | {"seconds": summary(seconds), "images_per_second": pace, "versions": peer.versions}


def main() -> None:
    """All cases."""
    from tacit.core.allocator import keep_freed_memory

    words = asked(pairs=9, python="python3")
    torch.set_num_threads(1)
    keep_freed_memory()  # as in a run
    keep("views", {"rows": [case(*settings, words.python, words.pairs) for settings in CASES]})


if __name__ == "__main__":
    main()
