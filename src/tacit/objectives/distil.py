"""Distillation: a student repeats what a centred, sharpened teacher says about another view. Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.objectives.precision import wide


@torch.no_grad()
def sharpen(teacher: Tensor, center: Tensor, temperature: float) -> Tensor:
    """`softmax((t - c) / T)` in float32 at least, without gradient: `[..., K]`, centre `[1, K]` -> `[..., K]`."""
    return ((wide(teacher) - center) / temperature).softmax(dim=-1)


def cross_view(student: Tensor, target: Tensor, temperature: float, views: int) -> Tensor:
    """The mean of `-sum_k p_i log q_v` over all pairs of a teacher's view i and another view v of the same image (DINO).

    Args:
        student: logits `[V * B, K]`, view by view; the teacher's views first.
        target: the teacher's probabilities `[G * B, K]`, view by view.
        temperature: the student's.
        views: V, at least 2.
    """
    log_q = (wide(student) / temperature).log_softmax(dim=-1).unflatten(0, (views, -1))  # [V, B, K]
    p = target.unflatten(0, (-1, log_q.shape[1]))  # [G, B, K]
    others = log_q.sum(dim=0) - log_q[: len(p)]  # what all views but i say, for each i
    return -(p * others).sum(dim=-1).mean() / (views - 1)


def entropy(probabilities: Tensor) -> Tensor:
    """The mean over rows of `-sum_k p log p`, in nats: log K if all is uniform, 0 if each row is sure.

    The cross-view loss minus the teacher's entropy is the mean divergence of student from teacher, KL(p || q).
    """
    return torch.special.entr(probabilities).sum(dim=-1).mean()


def teacher_temperature(epoch: int, start: float, end: float, warmup: int) -> float:
    """Linear from `start` in epoch 0 to `end` in epoch `warmup - 1`, then constant (DINO).

    A warm-up of one epoch has `start` in it, as `linspace` says.
    """
    return end if epoch >= warmup else start + (end - start) * epoch / max(warmup - 1, 1)
