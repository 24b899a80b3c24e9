"""Figures of settings that were swept: what to choose them by, so all of them show validation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import polars as pl

from negrec.reporting import significance, wording
from negrec.reporting.cells import Cell, Comparison
from negrec.reporting.drawings import Drawing
from negrec.reporting.runs import Run

# What tells the lines of a sensitivity curve apart, beside other knobs.
_SERIES = ("sampler", "sampler/false_negatives", "loss", "model", "objective", "experiment")
_OPTIONS = ("sampler", "loss", "model")
_MANY = 8  # so many values of a knob are a search, and shown run by run
_BEST = "best/value"  # of trainer.metric on validation, at the best epoch


def of_comparison(comparison: Comparison) -> Iterator[Drawing]:
    """Sensitivity to each knob that was swept, heat maps of each two, panels of gSASRec's kind.

    A best setting that is marked on test would be chosen on test: values are those of validation,
    by the metric that chose the epochs, at the best epoch.
    """
    from negrec.reporting.figures import heatmap, sensitivity, trials

    metric = f"valid/{comparison.metric}"
    shown = f"{wording.metric(comparison.metric)} on validation"
    knobs = swept(comparison.runs)
    short = _short(knobs)
    for knob in knobs:
        rows = runs_frame(comparison.runs, knob, knobs, metric)
        if rows[knob].n_unique() >= _MANY:
            yield Drawing(
                f"trials-{short[knob]}",
                f"Every run, by {short[knob]}: {shown}.",
                partial(trials.trials, rows, knob, metric, by="series"),
            )
        else:
            yield Drawing(
                f"sensitivity-{short[knob]}",
                f"{shown} by {short[knob]}; a flat curve needs no tuning.",
                partial(sensitivity.sensitivity, rows, knob, metric, by="series"),
            )
    for at, x in enumerate(knobs):
        for y in knobs[at + 1 :]:
            for series, cells in _crossed(comparison.cells, x, y):
                yield Drawing(
                    f"heatmap-{series.replace(' ', '-')}-{short[x]}-{short[y]}",
                    f"{series}: {shown} by {short[x]} and {short[y]}.",
                    partial(heatmap.heatmap, heatmap_frame(cells, x, y, metric), x, y, metric),
                )
    if "k" in knobs and _vary(comparison.runs, "loss") and _vary(comparison.runs, "model"):
        rows = runs_frame(comparison.runs, "k", ["k"], metric)
        yield Drawing(
            "panels",
            f"{shown} by negatives, loss and model.",
            partial(sensitivity.panels, rows, metric, "k", by="loss", panel="model"),
        )


def swept(runs: Sequence[Run]) -> list[str]:
    """Numeric keys that differ between runs with the same options of all groups.

    Of keys that always agree, such as ``alpha`` and ``sampler.alpha``, the shortest stands.
    """
    groups: dict[tuple[str | None, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(_options(run), []).append(run)
    found: dict[str, list[object]] = {}
    keys = sorted({key for run in runs for key in run.config}, key=lambda key: (len(key), key))
    for key in keys:
        if key == "seed" or key.startswith(("trainer.threads", "evaluation.batch_size")):
            continue
        values = [run.config.get(key) for run in runs]
        varies = any(
            len({json.dumps(run.config.get(key)) for run in group}) > 1 for group in groups.values()
        )
        numbers = all(
            value is None or (isinstance(value, int | float) and not isinstance(value, bool))
            for value in values
        )
        if varies and numbers and values not in found.values():
            found[key] = values
    return list(found)


def runs_frame(runs: Sequence[Run], knob: str, knobs: Sequence[str], metric: str) -> pl.DataFrame:
    """Per run in whose series the knob varies: seed, series, options, knob, best validation value.

    Args:
        runs: of a comparison.
        knob: that the figure shows.
        knobs: all that were swept; the values of the others are part of the series' name.
        metric: name of the column for the best validation value.
    """
    names = _series(runs, [other for other in knobs if other != knob])
    rows = [
        {
            "seed": run.seed,
            "series": name,
            **{group: run.choices.get(group, "") for group in _OPTIONS},
            knob: float(str(run.config[knob])),
            metric: run.metric(_BEST),
        }
        for run, name in zip(runs, names, strict=True)
        if run.config.get(knob) is not None
    ]
    return pl.DataFrame(rows).filter(pl.col(knob).n_unique().over("series") > 1)


def heatmap_frame(cells: Sequence[Cell], x: str, y: str, metric: str) -> pl.DataFrame:
    """Per pair of settings: mean validation value over seeds, n, and p against the best of them.

    Args:
        cells: one per pair of values; those without a number are left out.
        x: a knob.
        y: another.
        metric: name of the column for the best validation value.
    """
    cells = [cell for cell in cells if cell.values(_BEST)]
    best = max(cells, key=lambda cell: (cell.mean(_BEST), cell.label), default=None)
    rows = []
    for cell in cells:
        p = None
        if best is not None and cell is not best:
            p = significance.compare(best.values(_BEST), cell.values(_BEST)).p
        config = cell.runs[0].config
        rows.append((config[x], config[y], cell.mean(_BEST), len(cell.values(_BEST)), p))
    floats = dict.fromkeys((x, y, metric), pl.Float64)
    return pl.DataFrame(
        rows, schema={**floats, "n": pl.Int64, "p": pl.Float64}, orient="row", strict=False
    )


def _short(knobs: Sequence[str]) -> Mapping[str, str]:
    """The last part of each key, or all of it where two end alike."""
    last = [knob.rpartition(".")[2] for knob in knobs]
    return {
        knob: name if last.count(name) == 1 else knob
        for knob, name in zip(knobs, last, strict=True)
    }


def _vary(runs: Sequence[Run], group: str) -> bool:
    return len({run.choices.get(group) for run in runs}) > 1


def _options(run: Run) -> tuple[str | None, ...]:
    return tuple(run.choices.get(group) for group in _SERIES)


def _series(runs: Sequence[Run], knobs: Sequence[str]) -> list[str]:
    """Names: the options in which the runs differ, and the values of these knobs."""
    groups = [group for group in _SERIES if _vary(runs, group)] or ["sampler"]
    short = _short(knobs)
    names = []
    for run in runs:
        options = [run.choices.get(group, "") for group in groups]
        values = [
            f"{short[knob]}={run.config[knob]}"
            for knob in knobs
            if run.config.get(knob) is not None
        ]
        shown = [option for option in options if option not in ("", "none", "None")]
        names.append(" ".join([*shown, *values]))
    return names


def _crossed(cells: Sequence[Cell], x: str, y: str) -> Iterator[tuple[str, list[Cell]]]:
    """Cells of the same options in which both knobs vary, each pair of values once."""
    groups: dict[str, list[Cell]] = {}
    for cell, name in zip(cells, _series([cell.runs[0] for cell in cells], []), strict=True):
        groups.setdefault(name, []).append(cell)
    for name, group in groups.items():
        pairs = [(c.runs[0].config.get(x), c.runs[0].config.get(y)) for c in group]
        both = len({a for a, _ in pairs}) > 1 and len({b for _, b in pairs}) > 1
        if both and None not in [v for pair in pairs for v in pair] and len({*pairs}) == len(pairs):
            yield name, group
