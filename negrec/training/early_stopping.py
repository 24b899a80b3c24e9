"""When training has seen its best epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class EarlyStopping:
    """Remembers the best validation value, higher being better, and loses patience.

    Attributes:
        patience: evaluations without a better value that end the training; None: never.
        best_value: -inf before the first evaluation.
        best_epoch: of the best value, from 0; -1 before the first evaluation.
        waited: evaluations since the best one.
    """

    patience: int | None
    best_value: float = -math.inf
    best_epoch: int = -1
    waited: int = 0

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1 or null, got {self.patience}")

    def better(self, epoch: int, value: float) -> bool:
        """Takes an evaluation; whether it is the best so far (a tie is not)."""
        if value > self.best_value:
            self.best_value, self.best_epoch, self.waited = value, epoch, 0
            return True
        self.waited += 1
        return False

    @property
    def exhausted(self) -> bool:
        return self.patience is not None and self.waited >= self.patience
