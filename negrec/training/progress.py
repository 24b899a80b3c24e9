"""What a person sees while a model trains."""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Literal, Self

from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

log = logging.getLogger(__name__)


class TrainingProgress:
    """A bar over the steps of all epochs on a terminal, one log line per epoch elsewhere.

    Args:
        show: True, False, or "auto" for a bar when the error stream is a terminal.
        epochs: of the whole training, at the most.
        steps: of an epoch.
        metric: name of the validation metric that is shown, where there is one.
    """

    def __init__(
        self, show: bool | Literal["auto"], epochs: int, steps: int, metric: str | None
    ) -> None:
        self._bar = sys.stderr.isatty() if show == "auto" else show
        self._epochs, self._steps, self._metric = epochs, steps, metric
        self._text = "loss ..."
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        if self._bar:
            from rich.console import Console

            self._progress = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(compact=True),
                TextColumn("left"),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._progress.add_task(
                "", total=self._epochs * self._steps, epoch=0, text=self._text
            )
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self, epoch: int, step: int) -> None:
        """Steps done of an epoch."""
        if self._progress is not None:
            done = epoch * self._steps + step
            self._progress.update(self._task, completed=done, epoch=epoch + 1, text=self._text)

    def epoch(
        self, epoch: int, loss: float, value: float | None, best: bool, seconds: float
    ) -> None:
        """An epoch is over."""
        shown = "" if value is None else f", valid/{self._metric} {value:.4f}"
        self._text = f"loss {loss:.4f}{shown}, {seconds:.1f} s/epoch"
        level = logging.DEBUG if self._progress is not None else logging.INFO
        mark = " (best)" if best and value is not None else ""
        log.log(level, "epoch %d: %s%s", epoch + 1, self._text, mark)
