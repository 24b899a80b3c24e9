"""Draws the README's picture from finished runs: ``python .readme/figure.py LABEL=FOLDER ...``."""

import json
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import polars as pl

mpl.use("svg")
# Legible without colour: marks differ in shape and line style.
STYLES = [("o", ":"), ("s", "--"), ("D", "-."), ("^", "-"), ("v", (0, (5, 1)))]
COHORTS = ("head", "mid", "tail")


def read(folder: Path) -> tuple[pl.DataFrame, dict[str, float]]:
    """A run's epochs and its final metrics."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    epochs = pl.DataFrame(
        [
            {
                "epoch": event["step"] + 1,
                "ndcg": 100 * event["values"]["valid/ndcg_10"],
            }
            for event in events
            if event["kind"] == "metrics" and event["step"] is not None
        ]
    )
    results = json.loads((folder / "results.json").read_text())["metrics"]
    return epochs, results


def main(arguments: list[str]) -> None:
    """Two panels: validation over epochs, and test hits by popularity cohort."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    width = 0.84 / len(arguments)
    for i, argument in enumerate(arguments):
        name, _, folder = argument.partition("=")
        epochs, results = read(Path(folder))
        marker, line = STYLES[i]
        style = {"color": str(0.05 + 0.16 * i), "marker": marker, "markersize": 4}
        left.plot(epochs["epoch"], epochs["ndcg"], linestyle=line, label=name, **style)
        rates = [100 * results[f"test/hr_10_{cohort}"] for cohort in COHORTS]
        places = [j + width * (i - (len(arguments) - 1) / 2) for j in range(3)]
        bars = right.bar(places, rates, 0.92 * width, label=name, color=style["color"])
        right.bar_label(bars, fmt="%.1f", fontsize=6)
    left.set(xlabel="epoch", ylabel="validation NDCG@10 (%)")
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
    main(sys.argv[1:])
