"""Draws the README's picture from finished runs: ``python .readme/figure.py RUN_FOLDER ...``."""

import json
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import polars as pl

mpl.use("svg")
# Legible without colour: marks differ in shape and line style.
STYLES = {"uniform": ("o", ":"), "popularity": ("s", "--"), "genni": ("^", "-")}
COHORTS = ("head", "mid", "tail")


def read(folder: Path) -> tuple[str, pl.DataFrame, dict[str, float]]:
    """The sampler's name, its epochs, and its final metrics."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    params = next(event["values"] for event in events if event["kind"] == "params")
    name = params["sampler._target_"].split(".")[-2]
    epochs = pl.DataFrame(
        [
            {
                "epoch": event["step"] + 1,
                "seconds": event["values"]["train/epoch_seconds"],
                "ndcg": 100 * event["values"]["valid/ndcg_10"],
            }
            for event in events
            if event["kind"] == "metrics" and event["step"] is not None
        ]
    )
    results = json.loads((folder / "results.json").read_text())["metrics"]
    return name, epochs, results


def main(folders: list[Path]) -> None:
    """Two panels: validation over training seconds, and test hits by popularity cohort."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    runs = sorted((read(folder) for folder in folders), key=lambda run: list(STYLES).index(run[0]))
    for i, (name, epochs, results) in enumerate(runs):
        marker, line = STYLES[name]
        seconds = epochs["seconds"].cum_sum()
        style = {"color": str(0.15 + 0.25 * i), "marker": marker, "markersize": 4}
        left.plot(seconds, epochs["ndcg"], linestyle=line, label=name, **style)
        rates = [100 * results[f"test/hr_10_{cohort}"] for cohort in COHORTS]
        places = [j + 0.26 * (i - 1) for j in range(3)]
        bars = right.bar(places, rates, 0.24, label=name, color=style["color"])
        right.bar_label(bars, fmt="%.1f", fontsize=7)
    left.set(xlabel="training time (s)", ylabel="validation NDCG@10 (%)")
    left.legend(frameon=False)
    right.set(ylabel="test HR@10 (%)")
    counts = [results[f"test/n_{cohort}"] for cohort in COHORTS]
    labels = [f"{c}\n{n:,.0f} targets" for c, n in zip(COHORTS, counts, strict=True)]
    right.set_xticks(range(3), labels)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    mpl.rcParams["svg.hashsalt"] = "negrec"  # the same picture, the same bytes
    figure.savefig(Path(__file__).with_name("beauty.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
