"""What two volumes that show the same place are aligned by, beyond `distil.cross_view` of their vectors. Pure functions."""

from __future__ import annotations

from torch import Tensor

from tacit.objectives.precision import wide


def same_view(student: Tensor, target: Tensor, temperature: float) -> Tensor:
    """The mean over views, samples and tokens of `-sum_k p_k log q_k`, each token with its own target (iBOT, Alice).

    Args:
        student: logits `[V * B, L, K]`.
        target: the teacher's probabilities of the same views and tokens, `[V * B, L, K]`; see `distil.sharpen`.
        temperature: the student's.
    """
    return -(target * (wide(student) / temperature).log_softmax(dim=-1)).sum(dim=-1).mean()


def half_square(prediction: Tensor, volumes: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Half the mean of `(prediction - volumes)^2` over all voxels, or over the hidden ones of the whole batch.

    Args:
        prediction, volumes: `[B, C, X, Y, Z]`; the volumes as they were before anything was hidden.
        hidden: `[B, 1, X, Y, Z]`, 1 for voxels that count; None for all, as in Alice's published code.
    """
    error = (wide(prediction) - wide(volumes)).square()
    if hidden is None:
        return error.mean() / 2
    scored = hidden.to(error.dtype).expand_as(error)
    return (error * scored).sum() / scored.sum() / 2
