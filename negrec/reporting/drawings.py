"""Which figures a comparison has, and the frames they are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

import polars as pl

from negrec.reporting import significance, wording
from negrec.reporting.cells import Comparison
from negrec.reporting.runs import Run
from negrec.reporting.verdict import Answer, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from negrec.reporting.figures.style import Look

_FEWEST_DATA_SETS = 5  # of a critical difference
_CALIBRATED = ("bce", "gbce")  # losses of theorem 5.1


@dataclass(frozen=True)
class Drawing:
    """A figure to be drawn.

    Attributes:
        name: of its files.
        caption: what it shows, and what to see in it.
        draw: makes it; raises ``NothingToDraw`` where no value is left.
    """

    name: str
    caption: str
    draw: Callable[[], Figure] = field(repr=False)


@dataclass(frozen=True)
class Frames:
    """A comparison as the tables that figures take.

    Attributes:
        comparison: the comparison.
        metric: of test ("hr_10").
        k: its cut-off.
    """

    comparison: Comparison
    metric: str
    k: int

    @cached_property
    def points(self) -> pl.DataFrame:
        """Per cell: mean and 95 % interval of accuracy, balance and cost."""
        rows = []
        for cell in self.comparison.cells:
            row: dict[str, object] = {"cell": cell.label, "n": cell.n}
            for name in (f"test/{self.metric}", f"test/balance_{self.k}", "cost/seconds"):
                of = significance.describe([*cell.values(name).values()])
                row |= {name: of.mean, f"{name}_low": of.low, f"{name}_high": of.high}
            rows.append(row)
        return pl.DataFrame(rows)

    @cached_property
    def history(self) -> pl.DataFrame:
        """Per cell, seed and epoch (from 1): seconds, and a column per metric."""
        long = pl.concat(
            cell.history.select(pl.lit(cell.label).alias("cell"), pl.all())
            for cell in self.comparison.cells
        )
        wide = long.pivot("metric", index=["cell", "seed", "epoch", "seconds"], values="value")
        return wide.with_columns(pl.col("epoch") + 1)

    @cached_property
    def chosen(self) -> pl.DataFrame:
        """Per run: its best epoch, the seconds until it, and its test value."""
        best = pl.DataFrame(
            [
                (cell.label, run.seed, run.best_epoch, run.metric(f"test/{self.comparison.metric}"))
                for cell in self.comparison.cells
                for run in cell.runs
            ],
            schema={"cell": str, "seed": pl.Int64, "epoch": pl.Int64, "value": float},
            orient="row",
        )
        passed = self.history.select(
            "cell", pl.col("seed").cast(pl.Int64), "epoch", pl.col("seconds")
        )
        return best.join(passed, on=["cell", "seed", "epoch"], how="inner")

    def calibration(self) -> pl.DataFrame:
        """Per cell, seed and K, of runs that saved it."""
        frames = []
        for cell in self.comparison.cells:
            for run in cell.runs:
                path = run.folder / "calibration.parquet"
                if path.exists():
                    rate, beta = theorem_5_1(run)
                    frames.append(
                        pl.read_parquet(path).select(
                            pl.lit(cell.label).alias("cell"),
                            pl.lit(run.seed).alias("seed"),
                            "k",
                            "probability",
                            "precision",
                            pl.lit(rate, dtype=pl.Float64).alias("sampling_rate"),
                            pl.lit(beta, dtype=pl.Float64).alias("beta"),
                        )
                    )
        return pl.concat(frames) if frames else pl.DataFrame()


def theorem_5_1(run: Run) -> tuple[float | None, float | None]:
    """Sampling rate and beta of gSASRec's theorem 5.1; None where it does not hold.

    It needs uniform negatives and a loss of its family.
    """
    loss, items = run.choices.get("loss"), run.folder / "items.parquet"
    k = run.config.get("k")
    uniform = run.choices.get("sampler") == "uniform"
    if not (uniform and loss in _CALIBRATED and isinstance(k, int) and items.exists()):
        return None, None
    n_items = pl.scan_parquet(items).select(pl.len()).collect().item()
    rate = k / max(n_items - 1, 1)
    t = run.config.get("loss.t", 0.0)
    return rate, 1 - float(str(t)) * (1 - rate) if loss == "gbce" else 1.0


def of_comparison(
    answer: Answer, metric: str, k: int, looks: Mapping[str, Look]
) -> Iterator[Drawing]:
    """The figures of one comparison, the most telling first."""
    from negrec.reporting.figures import calibration, curves, diagnostics, forest, tradeoff

    comparison = answer.comparison
    frames = Frames(comparison, metric, k)
    shown, watched = wording.metric(metric), wording.metric(comparison.metric)
    if len(comparison.cells) > 1:
        yield Drawing(
            "balance",
            f"{shown} against balance on test. Up and right is better. Dashed steps: the cells on "
            "them have no other that is as good in both and better in one.",
            lambda: tradeoff.tradeoff(
                frames.points, f"test/balance_{k}", f"test/{metric}", looks=looks
            ),
        )
        yield Drawing(
            "cost",
            f"{shown} on test against training time. Up and left is better.",
            lambda: tradeoff.tradeoff(frames.points, "cost/seconds", f"test/{metric}", looks=looks),
        )
    valid = f"valid/{comparison.metric}"
    if valid in frames.history.columns:
        yield Drawing(
            "seconds",
            f"{watched} on validation over seconds of training; test only at the chosen epoch.",
            lambda: curves.over_seconds(frames.history, valid, frames.chosen, looks=looks),
        )
        yield Drawing(
            "epochs",
            f"{watched} on validation over epochs; test only at the chosen epoch.",
            lambda: curves.over_epochs(frames.history, valid, frames.chosen, looks=looks),
        )
    for k_, verdict in answer.at_equal_k:
        if verdict.recommended is not None and len(verdict.ranked) > 1:
            best = verdict.recommended.label
            rows = differences(verdict, comparison.metric)
            suffix = "" if answer.one_k else f"-k{k_:g}"
            yield Drawing(
                f"differences{suffix}",
                f"{watched}: difference of each cell to {best} with its 95 % interval; left of "
                "zero is worse.",
                partial(forest.forest, rows, comparison.metric, best),
            )
    yield Drawing(
        "calibration",
        "Predicted probability against what came true, among the first K of the ranking. Above "
        "the diagonal the model promises more than it keeps.",
        lambda: calibration.calibration(_not_empty(frames.calibration()), looks=looks),
    )
    if any(name.startswith("diag/") for name in frames.history.columns):
        yield Drawing(
            "diagnostics",
            "What the samplers drew, epoch by epoch.",
            lambda: diagnostics.diagnostics(frames.history, looks=looks),
        )


def _not_empty(frame: pl.DataFrame) -> pl.DataFrame:
    from negrec.reporting.figures.style import NothingToDraw

    if frame.is_empty():
        raise NothingToDraw("no run saved its calibration")
    return frame


def differences(verdict: Verdict, metric: str) -> pl.DataFrame:
    """Per cell and split: cell minus leader, with interval and corrected p.

    Args:
        verdict: with a leader.
        metric: of validation, by which it was chosen; test is shown by the same.
    """
    best, *others = verdict.ranked
    name = f"test/{metric}"
    tests = [
        significance.compare(judged.cell.values(name), best.cell.values(name)) for judged in others
    ]
    corrected = significance.holm([test.p for test in tests])
    rows = []
    for judged, test, p in zip(others, tests, corrected, strict=True):
        label = judged.cell.label
        rows.append((label, "test", test.difference, test.low, test.high, test.n, p))
        if (of := judged.against) is not None:
            # The verdict has the leader minus the cell.
            rows.append((label, "valid", -of.difference, -of.high, -of.low, of.n, judged.p))
    return pl.DataFrame(
        rows,
        schema={
            "cell": pl.String,
            "split": pl.String,
            "difference": pl.Float64,
            "low": pl.Float64,
            "high": pl.Float64,
            "n": pl.Int64,
            "p": pl.Float64,
        },
        orient="row",
    )


def over_data_sets(comparisons: Sequence[Comparison], metric: str) -> Iterator[Drawing]:
    """A critical-difference diagram, where there are enough data sets with the same cells."""
    common = set.intersection(*({cell.label for cell in c.cells} for c in comparisons))
    if len(comparisons) < _FEWEST_DATA_SETS or len(common) < 3:
        return
    import numpy as np

    from negrec.reporting.figures import critical_difference

    names = sorted(common)
    scores = np.array(
        [[c.cell(name).mean(f"test/{metric}") for name in names] for c in comparisons]
    )
    if np.isnan(scores).any():
        return
    yield Drawing(
        "critical-difference",
        f"Mean rank of each cell over {len(comparisons)} data sets by {wording.metric(metric)} on "
        "test; a bar joins those that do not differ significantly.",
        lambda: critical_difference.critical_difference(
            significance.critical_difference(scores, names)
        ),
    )
