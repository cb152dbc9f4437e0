"""Images and texts that belong together: contrast of pairs (CLIP, SigLIP), and keeping what an older model knew (Mod-X).

Every function takes cosines, so that they are computed once. On several ranks this rank's N rows meet the M columns of all
ranks, the partner of row i being column `offset + i`; the mean over ranks is the loss of the whole batch on one device.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.objectives.contrast import similarities
from tacit.objectives.precision import wide

CEILING = math.log(100)
"""The largest t: cosines are multiplied by 100 at most."""

MOD_X_CEILING = 4.6052
"""The same as the code of Mod-X has it."""


class Compared(NamedTuple):
    """Pairs beside all others.

    Attributes:
        f, g: of pictures and of captions, unit rows `[N, D]`.
        of_image, of_text: cosines with all captions, and with all pictures, `[N, M]`.
        offset: where this rank's rows begin among all.
    """

    f: Tensor
    g: Tensor
    of_image: Tensor
    of_text: Tensor
    offset: int


def unit(features: Tensor) -> Tensor:
    """`x / max(|x|, 1e-12)` row by row, float32 at least: `[N, D]` -> the same."""
    return F.normalize(wide(features), dim=-1, eps=1e-12)


def cosines(
    image: Tensor, text: Tensor, all_image: Tensor | None = None, all_text: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """How alike images and texts are, both ways round.

    Args:
        image, text: unit rows `[N, D]`, row i of one belonging to row i of the other.
        all_image, all_text: `[M, D]`, those of all ranks, with gradients; the local ones if None.

    Returns:
        images against all texts `[N, M]`, texts against all images `[N, M]`.
    """
    of_image = similarities(image, text if all_text is None else all_text, 1.0, floor=None)
    if all_image is None:
        return of_image, of_image.T
    return of_image, similarities(text, all_image, 1.0, floor=None)


def own_columns(cosine: Tensor, offset: int = 0) -> Tensor:
    """The column of each row's partner, int64 `[N]`."""
    return offset + torch.arange(cosine.shape[0], device=cosine.device)


def repeats(tokens: Tensor, all_tokens: Tensor | None = None, offset: int = 0) -> Tensor:
    """Where another pair of the batch has the same caption.

    Args:
        tokens: int64 `[N, C]`.
        all_tokens: `[M, C]`, those of all ranks; the local ones if None.
        offset: where this rank's rows begin among all.

    Returns:
        bool `[N, M]`, false where row and column are one pair.
    """
    same = (tokens[:, None] == (tokens if all_tokens is None else all_tokens)).all(dim=-1)
    return same.scatter(1, own_columns(same, offset)[:, None], value=False)


# Contrast -------------------------------------------------------------------------------------------------------------


def contrast(of_image: Tensor, of_text: Tensor, scale: Tensor | float, offset: int = 0, ignore: Tensor | None = None) -> Tensor:
    """CLIP's loss: the mean of `-log softmax_j(s cos_ij)` at the partner, over rows, then over both directions.

    Args:
        of_image, of_text: `[N, M]`, see `cosines`.
        scale: s, the exponential of the trained scalar t.
        offset: where this rank's rows begin among all: `rank * N`.
        ignore: bool `[N, M]`, pairs that are no negatives of each other, either way round (`repeats`).
    """
    target = own_columns(of_image, offset)
    logits = [scale * each for each in (of_image, of_text)]
    if ignore is not None:
        logits = [each.masked_fill(ignore, -torch.inf) for each in logits]
    first, second = (F.cross_entropy(each, target) for each in logits)
    return (first + second) / 2


def contrast_chance(samples: int) -> float:
    """The loss when all rows of all ranks are alike: `log M`."""
    return math.log(samples)


def sigmoid_contrast(
    of_image: Tensor, scale: Tensor | float, bias: Tensor | float, offset: int = 0, ignore: Tensor | None = None
) -> Tensor:
    """SigLIP's loss: `-sum_ij log sigmoid(y_ij (s cos_ij + b)) / N` with y = 1 for partners, else -1 (divided by N, not N^2).

    Args:
        of_image: `[N, M]`, images against all texts.
        scale: s, 10 at first.
        bias: b, -10 as published; `-log(M - 1)` is the best constant when nothing is alike.
        offset: where this rank's rows begin among all.
        ignore: bool `[N, M]`, what is left out of the sum.
    """
    logits = scale * of_image + bias
    own = torch.zeros_like(logits, dtype=torch.bool).scatter(1, own_columns(logits, offset)[:, None], value=True)
    losses = -F.logsigmoid(torch.where(own, logits, -logits))
    if ignore is not None:
        losses = losses.masked_fill(ignore, 0.0)
    return losses.sum() / len(logits)


def sigmoid_chance(samples: int) -> float:
    """SigLIP's loss with the best constant and nothing alike: `log M + (M - 1) log(M / (M - 1))`."""
    others = max(1, samples - 1)
    return math.log(samples) + others * math.log(samples / others)


def imitate(
    of_image: Tensor,
    of_text: Tensor,
    scale: Tensor | float,
    teacher_of_image: Tensor,
    teacher_of_text: Tensor,
    teacher_scale: Tensor | float,
) -> Tensor:
    """Distillation: the mean over rows of `H(softmax(s' O), softmax(s Z))`, averaged over both directions.

    Args:
        of_image, of_text: cosines of the student, `[N, M]`.
        teacher_of_image, teacher_of_text: those of a frozen model, which get no gradient.
        scale, teacher_scale: the factors of either.
    """
    pairs = ((of_image, teacher_of_image), (of_text, teacher_of_text))
    both = [F.cross_entropy(scale * student, (teacher_scale * teacher.detach()).softmax(1)) for student, teacher in pairs]
    return (both[0] + both[1]) / 2


@torch.no_grad()
def clamp_scale(log_scale: Tensor, ceiling: float = CEILING) -> None:
    """Put t back into `[0, ceiling]` after an optimiser step, in place and without gradient."""
    log_scale.clamp_(0.0, ceiling)


def within(rows: Tensor) -> Tensor:
    """The mean cosine of different unit rows `[N, D]`: 1 when all are alike."""
    count, total = len(rows), rows.float().sum(0)
    return (total.square().sum() - count) / max(1, count * (count - 1))


@torch.no_grad()
def watched(compared: Compared, ignore: Tensor | None = None) -> dict[str, Tensor]:
    """The mean cosine of partners and within either modality, and the share of rows in which the partner comes first.

    Args:
        compared: pairs beside those of all ranks.
        ignore: bool `[N, M]`, pairs that are no negatives of each other (`repeats`).
    """
    f, g, of_image, of_text, offset = compared
    own = own_columns(of_image, offset)
    first = {
        f"{name}_found": (each if ignore is None else each.masked_fill(ignore, -torch.inf)).argmax(1) == own
        for name, each in (("caption", of_image), ("picture", of_text))
    }
    return {
        "partners": of_image.gather(1, own[:, None]).float().mean(),
        "among_pictures": within(f),
        "among_captions": within(g),
    } | {name: found.float().mean() for name, found in first.items()}


# Mod-X (Ni et al. 2023): rows of an older model's matrix, where it was right, are kept ---------------------------------


@torch.no_grad()
def screen(old: Tensor, offset: int = 0, same: Tensor | None = None) -> Tensor:
    """The rows in which the older model was right: whose largest cosine, the first of equal ones, is the partner's.

    Args:
        old: its cosines in one direction, `[N, M]`.
        offset: where this rank's rows begin among all.
        same: bool `[N, M]`, columns that are as good as the partner (`repeats`); none if None, as published.

    Returns:
        bool `[N]`.
    """
    columns = torch.arange(old.shape[1], device=old.device)
    # Written out, since an argmax need not promise which of equal values it finds.
    best = torch.where(old == old.amax(dim=1, keepdim=True), columns, old.shape[1] - 1).amin(dim=1)
    right = best == own_columns(old, offset)
    return right if same is None else right | same.gather(1, best[:, None])[:, 0]


def align(old: Tensor, new: Tensor, kept: Tensor, temperature: float = 1.0, diagonal: bool = True, offset: int = 0) -> Tensor:
    """`sum_(i kept) KL(softmax(O_i / T) || softmax(S_i / T))` over this rank's rows, times the number of ranks M / N.

    A sum grows with the batch: the published weight of 20 belongs to 280 pairs, 5600 / M is its equal for M.

    Args:
        old: O, cosines of the older model in one direction, `[N, M]`; no gradient.
        new: S, those of the current model.
        kept: bool `[N]`, see `screen`. A row that is not kept has the current model as its own target: nothing to learn.
        temperature: T, 1 on plain cosines as published.
        diagonal: whether the partner's column belongs to the rows (as published) or only what lies off it.
        offset: where this rank's rows begin among all.
    """
    old, new = wide(old.detach()), wide(new)
    ranks = new.shape[1] / new.shape[0]
    if not diagonal:
        others = torch.ones_like(old, dtype=torch.bool).scatter(1, own_columns(old, offset)[:, None], value=False)
        old, new = (each[others].unflatten(0, (len(kept), -1)) for each in (old, new))
    log_p, log_q = ((each / temperature).log_softmax(dim=1) for each in (old, new))
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    return ranks * (divergence * kept).sum()
