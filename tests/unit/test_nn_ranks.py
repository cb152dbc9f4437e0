"""Two ranks compute what one device computes."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.nn.centre import Centre
from tacit.nn.norms import BatchNorm, synchronise
from tacit.objectives.contrast import moco, nt_xent

RANKS, ROWS = 2, 3


def data(name: str, *shape: int) -> torch.Tensor:
    return Draws(0, 0, torch.arange(RANKS * ROWS)).normal(name, *shape).double()


def step(rank: int, ranks: int) -> dict[str, torch.Tensor]:
    """Losses, gradients and statistics of one rank's share of the samples."""
    mine = slice(rank * RANKS * ROWS // ranks, (rank + 1) * RANKS * ROWS // ranks)
    a, b, maps = (data("a", 4)[mine], data("b", 4)[mine], data("m", 4, 2, 2)[mine])
    norm, linear = BatchNorm(4).double(), torch.nn.Linear(4, 4, bias=False).double()
    linear.weight.data.copy_(torch.linspace(-1, 1, 16).reshape(4, 4))
    foreign = torch.nn.Sequential(torch.nn.BatchNorm2d(4)).double()
    synchronise(foreign)
    z1, z2, y = norm(linear(a)), norm(linear(b)), norm(maps) + foreign(maps)
    contrast = nt_xent(z1, z2, 0.3, distributed.gather(z1), distributed.gather(z2), offset=rank * len(a))
    keyed = moco(z1, distributed.gather(z2.detach()), 0.3, offset=rank * len(a))
    loss = contrast + keyed + (y * data("w", 4, 2, 2)[mine]).mean()
    grads = torch.autograd.grad(loss, [linear.weight, norm.weight, norm.bias, foreign[0].weight])
    centre = Centre(4, 0.9, groups=2).double()
    centre.hear(z2, torch.arange(RANKS * ROWS)[mine] % 3 % 2)  # of one group all ranks have rows, not as many of each
    centre.move()
    results = {"loss": loss, "weight": grads[0], "gain": grads[1], "shift": grads[2], "foreign": grads[3]}
    same = {"centre": centre.mean, "mean": norm.running_mean, "variance": norm.running_var, **foreign.state_dict()}
    return {name: distributed.mean(value) for name, value in results.items()} | {k: v.detach() for k, v in same.items()}


def run(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    torch.save(step(rank, RANKS), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_statistics_losses_and_gradients_are_those_of_one_device(tmp_path):
    """The mean over ranks of losses and gradients, and every rank's own running statistics and centre."""
    mp.spawn(run, args=(str(tmp_path),), nprocs=RANKS)
    alone = step(0, 1)
    for rank in range(RANKS):
        together = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in alone.items():
            torch.testing.assert_close(
                together[name], value, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
            )
