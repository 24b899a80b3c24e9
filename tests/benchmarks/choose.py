"""What ``negrec choose`` finds in a third of the time: ``python -m tests.benchmarks.choose``.

Trains every default candidate for the same number of epochs with one seed (the full grid), unless
--grid names a folder where that was done, then lets ``negrec choose`` find one within a third of
the seconds that the grid took. Asked: what it chooses has in the grid a validation value within 3%
of the grid's best. The grid goes on where it was cut off.

    python -m tests.benchmarks.choose --epochs=20 --runs=FOLDER dataset=beauty trainer.threads=2
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from negrec.commandline import choose
from negrec.sweeping import duration
from negrec.sweeping.halving import CandidateError, Memory

SHARE = 1 / 3  # of the grid's time
WITHIN = 0.03  # of the grid's best value
RESERVE = 0.95  # of its share is what choose is given: the last trial may take longer than foretold


@dataclass(frozen=True)
class Trained:
    """One cell of the grid: its best validation value, and the seconds that it took."""

    value: float
    seconds: float


def grid(plan: choose.Plan, epochs: int) -> dict[str, Trained]:
    """All candidates, trained where they are not; refused ones are left out."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    runner, found = choose.Runner(plan, Memory()), {}
    for cell in plan.candidates:
        folder = runner.folder(cell, plan.seeds[0])
        done = folder / "grid.json"
        if not done.exists():
            started = time.monotonic()
            try:
                trial = runner.train(cell, plan.seeds[0], epochs)
            except CandidateError as error:
                print(f"{cell}: {error}")
                continue
            seconds = max(time.monotonic() - started, trial.seconds)  # it may have gone on
            done.write_text(json.dumps({"value": trial.value, "seconds": seconds}))
        found[cell] = Trained(**json.loads(done.read_bytes()))
        print(f"{cell}: {found[cell].value:.4f}, {duration.words(found[cell].seconds)}")
    return found


def table(found: dict[str, Trained], chosen: str) -> Table:
    """The grid, the best cell first."""
    best = max(cell.value for cell in found.values())
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("candidate", "validation", "of the best", "seconds", ""):
        table.add_column(header, justify="left" if header in ("candidate", "") else "right")
    for cell, at in sorted(found.items(), key=lambda item: -item[1].value):
        row = (f"{at.value:.4f}", f"{at.value / best:.1%}", f"{at.seconds:.0f}")
        table.add_row(cell, *row, "chosen" if cell == chosen else "")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="of every cell of the grid")
    parser.add_argument("--runs", type=Path, default=Path("multirun"), help="folder of all runs")
    parser.add_argument("--grid", type=Path, help="folder of a grid that was trained before")
    parser.add_argument("words", nargs="*", help="as of negrec choose; dataset=beauty unless given")
    args = parser.parse_args()
    words = [f"trainer.max_epochs={args.epochs}", f"paths.runs_dir={args.runs}", *args.words]
    if not any(word.startswith("dataset=") for word in words):
        words.append("dataset=beauty")
    plan = choose.planned(choose.understood(words))
    folder = args.grid or args.runs / f"grid-{plan.data.name}-{plan.key[:8]}"
    found = grid(replace(plan, folder=folder), args.epochs)
    total = sum(cell.seconds for cell in found.values())
    code = choose.main([*words, f"budget={SHARE * RESERVE * total:.1f}s"])
    if code:
        return code
    diary = json.loads((plan.folder / "choose.json").read_bytes())
    chosen, spent = diary["chosen"], diary["spent"]
    Console().print(table(found, chosen))
    value = found[chosen].value / max(cell.value for cell in found.values())
    print(f"{chosen}: {value:.1%} of the grid's best, in {spent / total:.1%} of its time")
    print(f"(grid {duration.words(total)}, choose with its tests {duration.words(spent)})")
    if value < 1 - WITHIN or spent > SHARE * total:
        print(f"asked: {1 - WITHIN:.0%} or more, in {SHARE:.1%} or less")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
