"""What a sweep remembers of itself between two times that its command is typed."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

from negrec.errors import InputError
from negrec.sweeping.forecast import Cut, Forecast
from negrec.writing import replacing

FILE_NAME = "sweep.json"


@dataclass(frozen=True)
class Order:
    """A command that the sweep was made by.

    Attributes:
        command: what was typed.
        when: first, seconds since 1970.
        jobs: that were to run then.
        seconds: foretold for them; None without a forecast.
        at_once: jobs side by side.
        seeds: of each cell, where a budget left so many.
        max_epochs: of each run, where a budget left so many.
    """

    command: str
    when: float = field(default_factory=time.time)
    jobs: int | None = None
    seconds: float | None = None
    at_once: int = 1
    seeds: int | None = None
    max_epochs: int | None = None


@dataclass(frozen=True)
class Record:
    """A sweep's ``sweep.json``.

    Attributes:
        name: of the sweep's folder.
        orders: the commands, in the order in which they were typed first.
        id: of the sweep's run in the tracking store.
        forecasts: of cells, by the hash of what determines their results.
        cuts: what was left for a budget, by the hash of the budget and of what was to be cut.
    """

    name: str
    orders: tuple[Order, ...] = ()
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    forecasts: Mapping[str, Forecast] = field(default_factory=dict)
    cuts: Mapping[str, Cut] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """What a sweep's folder says; None where there is none yet.

        Raises:
            InputError: the folder is something else's, or its record is damaged.
        """
        path = folder / FILE_NAME
        if not path.exists():
            if folder.is_dir() and any(folder.iterdir()):
                raise InputError(f"{folder} is there and no sweep's: choose another sweep.name")
            return None
        try:
            found = json.loads(path.read_bytes())
            cells = {key: Forecast(**value) for key, value in found["forecasts"].items()}
            cuts = {key: Cut(**value) for key, value in found["cuts"].items()}
            orders = tuple(Order(**order) for order in found["orders"])
            return cls(**{**found, "orders": orders, "forecasts": cells, "cuts": cuts})
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged: delete it, the runs stay") from error

    def plus(self, order: Order) -> Self:
        """With one command more, unless it was typed before."""
        if any(known.command == order.command for known in self.orders):
            return self
        return replace(self, orders=(*self.orders, order))

    def write(self, folder: Path) -> None:
        """Atomically: a killed process leaves the old record or the new one."""
        with replacing(folder / FILE_NAME) as file:
            file.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
