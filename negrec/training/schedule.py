"""Learning-rate schedules, as factors of the base rate; they have no state to resume."""

import math
from collections.abc import Callable


def constant(_: float) -> float:
    """1 throughout."""
    return 1.0


def linear(progress: float) -> float:
    """From 1 to 0 along a line."""
    return 1.0 - progress


def cosine(progress: float) -> float:
    """From 1 to 0 along half a cosine (Loshchilov & Hutter, 2017, arXiv:1608.03983)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
}


def factor(schedule: str, step: int, warmup: int, total: int) -> float:
    """The factor at a step: a line up to 1 over the warm-up, then the schedule.

    Args:
        schedule: a name of ``SCHEDULES``.
        step: from 0.
        warmup: steps of the warm-up.
        total: steps of the whole training.
    """
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[schedule](min((step - warmup) / max(total - warmup, 1), 1.0))
