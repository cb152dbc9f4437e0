"""What methods that distil a moving teacher with one head have in common: options of the head, the teacher and the centre."""

from __future__ import annotations

from tacit.methods.method import Options, option


class DistilOptions(Options):
    """Those of the head, the teacher and the centre, whatever the views are."""

    prototypes: int = option(
        65536, "K, what teacher and student spread their opinion over", auto="about a quarter of the samples", ge=2
    )
    head_width: int = option(2048, "hidden width of the head", auto="512", ge=1)
    bottleneck: int = option(256, "dimensions in which crops are compared to prototypes", ge=1)
    fixed_gain: bool = option(True, "prototypes have unit length (norm_last_layer)")
    head_norm: bool = option(False, "batch-norm inside the head", auto="true, false in runs of over 10,000 steps")
    student_temperature: float = option(0.1, "sharpness of the student", gt=0)
    teacher_temperature: float = option(0.04, "sharpness of the teacher", auto="0.07 in runs of over 10,000 steps", gt=0)
    teacher_temperature_start: float = option(0.04, "the same in the first epoch", gt=0)
    temperature_epochs: int = option(0, "epochs from one to the other", auto="30 % of them in such runs", ge=0)
    centre: bool = option(True, "subtract the running mean of the teacher's logits")
    centre_momentum: float = option(
        0.9, "how much of the running mean stays at each step", auto="0.9, more for small batches", ge=0, le=1
    )
    momentum: float = option(0.996, "how much of the teacher stays at the first step", auto="1 - 20 / steps", ge=0, le=1)
    momentum_rises: bool = option(True, "whether that grows to 1 along half a cosine; else it stays")
    freeze_last: float = option(
        1.0, "epochs during which the prototypes stay as they are", auto="3 % of the run, 1 epoch at most", ge=0
    )
