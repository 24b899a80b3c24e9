"""What a sweep remembers of itself between two times that its command is typed."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from negrec.errors import InputError
from negrec.sweeping.forecast import Forecast

FILE_NAME = "sweep.json"


@dataclass(frozen=True)
class Record:
    """A sweep's ``sweep.json``.

    Attributes:
        name: of the sweep's folder.
        command: what was typed last.
        id: of the sweep's run in the tracking store.
        started: when it was typed first, seconds since 1970.
        forecasts: of cells, by the hash of what determines their results.
        seconds: foretold for all jobs together when it was typed first, with ``at_once`` jobs at
            once; None without a forecast.
        at_once: jobs that ran side by side by that forecast.
        seeds: that were left of each cell for the budget; None: all.
        max_epochs: that were left of each run for the budget; None: all.
    """

    name: str
    command: str
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    started: float = field(default_factory=time.time)
    forecasts: Mapping[str, Forecast] = field(default_factory=dict)
    seconds: float | None = None
    at_once: int = 1
    seeds: int | None = None
    max_epochs: int | None = None

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
            return cls(**{**found, "forecasts": cells})
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged: delete it, the runs stay") from error

    def write(self, folder: Path) -> None:
        """Atomically: a killed process leaves the old record or the new one."""
        temporary = folder / f"{FILE_NAME}.tmp"
        temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        temporary.replace(folder / FILE_NAME)
