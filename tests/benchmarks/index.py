"""What GenNi's index costs, saves and gets wrong: ``python -m tests.benchmarks.index``.

* quality: validation metrics after some epochs with the exact draw and with the index, on Amazon
  Beauty from ``$NEGREC_DATA_DIR``.
* distance: total variation between the index's draw and the exact one at the model that the exact
  run has become, when the index is new and when it was made an epoch ago: with the centres
  looked at since, as every step does in so small a catalogue, and without. It is the mean of
  (1 - Q / q)+ over draws from q, whose density comes with them; beside it that of beta = 0.1, the
  share of Q outside the pre-selected items.
* cost: CPU seconds of 1,000 queries and peak memory by size of the catalogue, a process for each;
  the item vectors lie around one centre for every 200 of them.

    python -m tests.benchmarks.index --parts=distance,cost --epochs=20 --seeds=1
"""

import argparse
import math
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table
from torch import Tensor

from negrec.experiment import Parts, build
from negrec.samplers.clusters import Clusters, Grouping
from negrec.samplers.genni import GenNi, about_half_the_root, subset
from negrec.scoring import ItemScorer
from negrec.training.checkpoint import Checkpoints
from negrec.types import Batch, DatasetInfo, Queries, Step

CONF = Path(__file__).parents[2] / "conf"
ALPHA = 2.5
CLUSTERS = (16, 64, 256, 1024)
AT = (1, 5, 20)  # epochs at whose end distances are measured, where so many are trained
SIZES = (12_101, 100_000, 1_000_000)
QUERIES, DRAWS = 1_000, 256

State = Mapping[str, Tensor]


def train(epochs: int, seed: int, *words: str) -> tuple[Parts, dict[str, float], dict[int, State]]:
    """A run; its last validation, and its weights after some epochs, from 1."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = [f"trainer.max_epochs={epochs}", f"trainer.evaluate_every={epochs}"]
        settings += ["trainer.threads=1", "trainer.progress=false", f"seed={seed}", *words]
        cfg = compose("train", ["dataset=beauty", "sampler=genni", f"alpha={ALPHA}", *settings])
    parts = build(cfg)
    states: dict[int, State] = {}
    found: dict[str, float] = {}

    def log_metrics(metrics: Mapping[str, float], epoch: int) -> None:
        found.update(metrics)
        if {epoch + 1, epoch + 2} & {*AT}:
            states[epoch + 1] = {k: v.clone() for k, v in parts.model.state_dict().items()}

    with tempfile.TemporaryDirectory() as folder:
        parts.trainer.fit(
            parts.model,
            parts.objective,
            Checkpoints(Path(folder)),
            validate=lambda model: parts.validate(model).metrics,
            log_metrics=log_metrics,
        )
    return parts, found, states


def quality(epochs: int, seeds: int) -> tuple[Parts, dict[int, State], Table]:
    """Trains both; the first exact run is what distances are measured on."""
    table = Table(title=f"beauty, validation after {epochs} epochs")
    for column in ("seed", "draw", "HR@10", "NDCG@10", "train loss", "sampler's share"):
        table.add_column(column, justify="left" if column == "draw" else "right")
    kept = None
    for seed in range(seeds):
        for name, words in (("exact", ()), ("index", ("index=clusters",))):
            parts, found, states = train(epochs, seed, *words)
            kept = kept or (parts, states)
            numbers = [f"{100 * found[f'valid/{key}_10']:.2f}" for key in ("hr", "ndcg")]
            share = f"{found['train/sampler_share']:.0%}"
            table.add_row(str(seed), name, *numbers, f"{found['train/loss']:.4f}", share)
    assert kept is not None
    return *kept, table


@torch.no_grad()
def distances(parts: Parts, states: Mapping[int, State]) -> Table:
    """Of every number of clusters, by epoch and age."""
    table = Table(title=f"beauty, total variation from the exact draw, alpha={ALPHA}")
    for column in ("epochs", "draw", "what is an epoch old", "mean", "10 %", "50 %", "90 %"):
        table.add_column(column, justify="left" if column == "draw" else "right")
    batch = parts.trainer.loader.batch(
        torch.arange(0, len(parts.trainer.loader.sequences), 90), (0, 0)
    )
    for end in (epoch for epoch in AT if epoch in states):
        start = parts_scorer(parts, states.get(end - 1))
        of_start = {c: Grouping.of(start, c) for c in CLUSTERS if end - 1 in states}
        scorer = parts_scorer(parts, states[end])
        torch.manual_seed(0)  # dropout
        queries = parts.model.train()(batch)
        queries = queries.select(slice(0, QUERIES)).detach()
        for n_clusters in CLUSTERS:
            fresh = Grouping.of(scorer, n_clusters)
            ages = {"nothing": fresh}
            if (old := of_start.get(n_clusters)) is not None:
                every = slice(0, len(old.centre))
                ages |= {"the groups": old.refreshed(scorer, every), "groups and centres": old}
            for age, grouping in ages.items():
                found = distance(grouping, queries, scorer)
                table.add_row(str(end), f"index, C={n_clusters}", age, *shown(found))
        generator = torch.Generator().manual_seed(0)
        n = scorer.n_items
        outside = torch.ones(n, dtype=torch.bool)
        outside[subset(n, math.ceil(0.1 * n), generator, torch.device("cpu"))] = False
        share = (exact(queries, scorer).exp() * outside).sum(1)
        table.add_row(str(end), "beta=0.1, given its items", "", *shown(share))
        table.add_section()
    return table


def parts_scorer(parts: Parts, state: State | None) -> ItemScorer:
    """The model's scorer with given weights, or with those that it has."""
    if state is not None:
        parts.model.load_state_dict(state)
    return parts.model.scorer


def exact(queries: Queries, scorer: ItemScorer) -> Tensor:
    """Log of equation 5, (N, V)."""
    score = ALPHA * scorer.every(queries.hidden)
    score[torch.arange(len(score)), queries.target - 1] = -torch.inf
    return score.log_softmax(1)


def distance(grouping: Grouping, queries: Queries, scorer: ItemScorer) -> Tensor:
    """Total variation of each query, (N,), over its draws."""
    index = Clusters(scorer.n_items, len(grouping.members))
    generator = torch.Generator().manual_seed(0)
    items, log_q = index.draw(
        grouping, queries, scorer, torch.tensor(ALPHA), "target", DRAWS, generator
    )
    log_p = exact(queries, scorer).gather(1, items - 1)
    return (1 - (log_p - log_q).exp()).clamp(min=0).mean(1)


def shown(values: Tensor) -> Iterator[str]:
    """Mean and quantiles."""
    quantiles = values.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    return (f"{x:.3f}" for x in (values.mean().item(), *quantiles))


def cost(n_items: int, indexed: bool, repeats: int) -> tuple[float, float, float]:
    """CPU seconds of 1,000 queries and of making the index, peak MB of this process."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    dim, n_centres = 64, max(8, n_items // 200)
    scorer = ItemScorer(n_items, dim)
    centre = 0.1 * torch.randn(n_centres, dim, generator=generator)
    with torch.no_grad():
        scorer.weight.normal_(std=0.05, generator=generator)
        for part in scorer.weight.split(1 << 16):
            part += centre[torch.randint(n_centres, (len(part),), generator=generator)]
    histories = torch.randint(1, n_items + 1, (QUERIES // 5, 6), generator=generator)
    batch = Batch.of(histories.tolist())
    queries = Queries.of(batch, 0.7 * torch.randn(len(batch.items), dim, generator=generator))
    info = DatasetInfo(len(histories), n_items, 5, torch.ones(n_items, dtype=torch.int64))
    sampler = GenNi(info, ALPHA, index="clusters" if indexed else None)
    building, seconds = 0.0, []
    with torch.no_grad():
        if sampler.clusters is not None:
            started = time.process_time()
            sampler.clusters.keep(sampler.clusters.grouping(scorer, 0))
            building = time.process_time() - started
        for index in range(1, repeats + 2):  # the first one is for the caches
            started = time.process_time()
            sampler.sample(queries, scorer, Step(0, index, generator))
            seconds.append(time.process_time() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return median(seconds[1:]) * 1000 / len(queries.target), building, peak


def costs(repeats: int) -> Table:
    """By size of the catalogue."""
    table = Table(title=f"{QUERIES:,} queries, D=64, one thread", caption="peak: of the process")
    columns = ("items", "draw", "CPU s / 1,000", "x less", "index made, CPU s", "peak MB")
    for column in columns:
        table.add_column(column, justify="left" if column == "draw" else "right")
    for n_items in SIZES:
        exact_seconds = math.nan
        for indexed in (False, True):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found = pool.submit(cost, n_items, indexed, repeats).result()
            seconds, building, peak = found
            exact_seconds = exact_seconds if indexed else seconds
            name = f"index, C={about_half_the_root(n_items):,}" if indexed else "exact"
            cells = [f"{seconds:.4f}", f"{exact_seconds / seconds:.1f}", f"{building:.2f}"]
            table.add_row(f"{n_items:,}", name, *cells, f"{peak:,.0f}")
    return table


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.index",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ("quality", "distance", "cost")
    parser.add_argument("--parts", default=",".join(known), help="some of them")
    parser.add_argument("--epochs", type=int, default=20, help="of a run")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each draw")
    parser.add_argument("--repeats", type=int, default=5, help="of a draw whose cost is measured")
    arguments = parser.parse_args()
    chosen = arguments.parts.split(",")
    if unknown := {*chosen} - {*known}:
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose from {known}")
    console, before = Console(), os.getloadavg()[0]
    torch.set_num_threads(1)
    if "cost" in chosen:
        console.print(costs(arguments.repeats))
    if "quality" in chosen:
        parts, states, table = quality(arguments.epochs, arguments.seeds)
        console.print(table)
    elif "distance" in chosen:
        parts, _, states = train(arguments.epochs, 0)
    if "distance" in chosen:
        console.print(distances(parts, states))
    console.print(f"load average before and after: {before:.2f}, {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
