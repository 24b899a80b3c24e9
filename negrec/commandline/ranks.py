"""``torchrun ... -m negrec train``: several processes, of which the first one writes and speaks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from negrec.errors import InputError

if TYPE_CHECKING:
    from negrec.commandline.typed import Typed
    from negrec.world import World

LOST = (
    "a process of this job has ended without a word: killed, perhaps for its memory, or its "
    "machine is gone"
)

# Rank 0 alone has a folder for its run.
_PLACE = ("hydra.run.dir=", "hydra.output_subdir=", "hydra/job_logging=")
_NOWHERE = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=negrec_rank")


def several() -> bool:
    """Whether ``torchrun``, or what does as it does, has started this process among others."""
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def silent() -> bool:
    """Whether what all ranks would say is left to another one."""
    return several() and os.environ["RANK"] != "0"


def gone(error: BaseException) -> bool:
    """Whether an error says no more than that another rank is gone."""
    if not several():
        return False
    from negrec.world import PeerError

    return isinstance(error, PeerError)


@contextmanager
def joined(typed: Typed) -> Iterator[World | None]:
    """The ranks of this command, once they have met; None for a process by itself.

    Raises:
        InputError: ranks cannot do what is asked for, or do not meet.
    """
    if not several():
        yield None
        return
    if typed.multirun and not typed.shows:
        raise InputError(
            "torchrun starts several processes for one run, and -m makes several runs: leave out "
            "torchrun, and let a launcher share the runs out (hydra/launcher=joblib)"
        )
    if silent():
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  for good
    from negrec import world  # imports torch

    here = world.join(world.announced())
    try:
        yield here
    finally:
        here.leave()


def same(expand: Callable[[Typed], Typed], typed: Typed, world: World | None) -> Typed:
    """The command as rank 0 writes it out; the other ranks run it without a folder of their own."""
    from negrec.commandline.typed import Typed  # it imports Hydra: not for `--help`

    if world is None or world.first:
        typed = expand(typed)
    if world is None:
        return typed
    flags, words = world.of_first((typed.flags, typed.words))
    if world.first:
        return typed
    return Typed(flags, (*(word for word in words if not word.startswith(_PLACE)), *_NOWHERE))
