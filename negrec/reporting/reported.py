"""Published numbers, beside the runs that they speak of.

``reported.csv`` holds what four papers and one repository print, as printed. A run stands beside a
row where the tables below say so: its data set, model, sampler and loss are the row's, and it was
split and ranked in the row's way. Everything else in which the two differ is told, not judged.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Literal, TypeAlias

from negrec.reporting import significance
from negrec.reporting.runs import Run

# Values by option of a group ("sampler") or by dotted key ("trainer.patience") of a run. Of a
# tuple any value will do; None also stands for a key that the run does not have.
Settings: TypeAlias = Mapping[str, object]

Unit: TypeAlias = Literal["fraction", "seconds"]
_UNITS: Mapping[str, tuple[Unit, float]] = {  # a value as printed, made a fraction or seconds
    "percent": ("fraction", 0.01),
    "fraction": ("fraction", 1.0),
    "seconds": ("seconds", 1.0),
    "minutes": ("seconds", 60.0),
}


@dataclass(frozen=True)
class Reported:
    """One published value.

    Attributes:
        paper: a key of ``PAPERS``.
        table: where it stands.
        dataset: as the paper calls it.
        model: likewise.
        setting: of the model; "" where the model's name says it all.
        metric: as printed ("HR@10 head").
        value: a fraction, or seconds.
        std: standard deviation over runs, likewise; None where none is printed.
        unit: of ``value`` and ``std``.
        protocol: how it was measured.
    """

    paper: str
    table: str
    dataset: str
    model: str
    setting: str
    metric: str
    value: float
    std: float | None
    unit: Unit
    protocol: str

    @property
    def measured_as(self) -> str | None:
        """The run's own name of the metric ("test/hr_10_head"); None where runs have none.

        With one target per user recall is the hit rate. Times of other hardware are not compared.
        """
        found = re.fullmatch(r"(HR|Recall|NDCG)@(\d+)(?: (head|mid|tail))?", self.metric)
        if found is None:
            return "test/balance_10" if self.metric == "balance" else None
        name = "ndcg" if found[1] == "NDCG" else "hr"
        return f"test/{name}_{found[2]}" + (f"_{found[3]}" if found[3] else "")


@dataclass(frozen=True)
class Match:
    """A published value and what runs measured in its place.

    Attributes:
        reported: the published one.
        citation: of its paper.
        metric: the runs' name of it ("test/hr_10").
        measured: mean over the runs, in the unit of ``reported``.
        sd: over the runs; NaN for one.
        n: runs.
        deviations: in what the runs' protocol differs from the published one, as sentences.
    """

    reported: Reported
    citation: str
    metric: str
    measured: float
    sd: float
    n: int
    deviations: tuple[str, ...]

    @property
    def difference(self) -> float:
        """Measured minus reported."""
        return self.measured - self.reported.value


@dataclass(frozen=True)
class Paper:
    """How the values of a paper came about.

    Attributes:
        name: for people.
        citation: where it can be read.
        needs: a run without these is not comparable.
        settings: a run with others is, and the difference is told.
        known: in what negrec always differs.
        seeds: runs behind a value; None where it is not said.
    """

    name: str
    citation: str
    needs: Settings
    settings: Settings
    known: tuple[str, ...]
    seeds: int | None = None


@dataclass(frozen=True)
class Setup:
    """Which runs a row of a table speaks of, whatever the data set.

    Attributes:
        paper: key of ``PAPERS``.
        tables: where the row stands.
        model: of the row.
        setting: of the row.
        needs: what makes a run this one.
        settings: what the paper had, and a run may have otherwise.
        known: in what negrec always differs.
    """

    paper: str
    tables: tuple[str, ...]
    model: str
    setting: str = ""
    needs: Settings = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)
    known: tuple[str, ...] = ()


@dataclass(frozen=True)
class Data:
    """A paper's data set in negrec.

    Attributes:
        option: of ``dataset``.
        other: why the two are not the same; None where they are.
        known: what may differ all the same.
    """

    option: str
    other: str | None = None
    known: tuple[str, ...] = ()


_FULL: Settings = {"split": "leave_one_out", "evaluation.sampled": None, "split.catalogue": "all"}
_SAMPLED: Settings = {**_FULL, "evaluation.sampled": 100}
_TEMPORAL: Settings = {
    "split": "global_temporal",
    "split.cuts": None,
    "evaluation.sampled": None,
}
_USUAL: Settings = {  # what no paper names, because it has nothing of the kind
    "model.feed_forward": None,
    "scorer.bias": (False, None),
    "scorer.temperature": (1.0, None),
    "trainer.clip_norm": None,
    "trainer.optimizer.weight_decay": (0.0, None),
    "trainer.osf": None,
    "trainer.schedule": ("constant", None),
    "window": ("last", None),
}
_ADAM: Settings = {"trainer.optimizer.lr": 1e-3, "trainer.optimizer.betas": [0.9, 0.999]}
_S3REC: Settings = {
    **_USUAL,
    **_ADAM,
    "evaluation.seen": "zero",
    "max_length": 50,
    "model.dim": 64,
    "model.blocks": 2,
    "model.heads": 2,
    "model.dropout": 0.5,
    "model.layout": "s3rec",
    "model.tied": True,
    "split.validation_users": None,
    "trainer.batch_size": 256,
    "trainer.metric": "ndcg_20",
}
_DRAWN_ONCE = "users come once an epoch here, in the published code they are drawn with replacement"

PAPERS: Mapping[str, Paper] = {
    "genni": Paper(
        name="GenNi",
        citation="Chen et al. 2022, Generating Negative Samples for Sequential Recommendation, "
        "arXiv:2208.03645",
        needs=_FULL,
        settings={**_S3REC, "trainer.patience": 40},
        known=("heads and blocks were tuned in the paper, which does not say to what",),
        seeds=4,
    ),
    "s3rec": Paper(
        name="S3-Rec",
        citation="Zhou et al. 2020, S3-Rec, arXiv:2008.07873; full ranking as in its repository",
        needs=_FULL,
        settings={**_S3REC, "trainer.patience": 10},
        known=("negatives of the published code avoid the user's held-out items too",),
    ),
    "gsasrec": Paper(
        name="gSASRec",
        citation="Petrov and Macdonald 2023, gSASRec, doi:10.1145/3604915.3608783",
        needs=_FULL,
        settings={
            **_USUAL,
            **_ADAM,
            "evaluation.seen": "filter",
            "max_length": 200,
            "model.dim": 128,
            "model.blocks": 2,
            "model.heads": 1,
            "model.dropout": 0.5,
            "model.layout": "sasrec",
            "model.tied": False,
            "split.validation_users": 512,
            "trainer.batch_size": 128,
            "trainer.patience": 200,
            "trainer.metric": "ndcg_10",
        },
        known=(
            "an epoch is one pass over the users here, 100 batches in the published code",
            "embeddings start from a narrower distribution here than in the published code",
        ),
    ),
    "ufnrec": Paper(
        name="UFNRec",
        citation="Liu et al. 2022, UFNRec, arXiv:2208.04116",
        needs=_SAMPLED,
        settings={
            **_USUAL,
            "evaluation.seen": "filter",
            "max_length": 50,
            "model.dim": 50,
            "model.blocks": 2,
            "model.heads": 1,
            "model.dropout": 0.5,
            "model.layout": "sasrec",
            "model.init": "xavier",
            "model.tied": True,
            "sampler.exclude": "history",
            "split.validation_users": None,
            "trainer.batch_size": 128,
            "trainer.evaluate_every": 4,
            "trainer.max_epochs": 200,
            "trainer.optimizer.lr": 1e-3,
            "trainer.optimizer.betas": [0.9, 0.98],
        },
        known=(
            "targets are ranked among 100 random items only: not comparable with full ranking",
            "everybody is evaluated here, at most 10,000 random users in the published code",
            "the best epoch is chosen on validation here; the paper does not say how",
            _DRAWN_ONCE,
        ),
    ),
    "apple": Paper(
        name="Apple",
        citation="Prakash et al. 2024, Evaluating Performance and Bias of Negative Sampling in "
        "Large-Scale Sequential Recommendation Models, arXiv:2410.17276",
        needs=_TEMPORAL,
        # Of the published driver, which does not read the tuned values of the paper's text.
        settings={
            **_USUAL,
            "evaluation.seen": "keep",
            "loss.negatives": "mean",
            "max_length": 50,
            "model.dim": 50,
            "model.blocks": 2,
            "model.heads": 1,
            "model.dropout": 0.5,
            "model.layout": "sasrec",
            "model.init": "xavier",
            "split.fractions": [0.90, 0.05, 0.05],
            "split.catalogue": "all",
            "split.count": "users",
            "split.target": "all",
            "trainer.batch_size": 128,
            "trainer.evaluate_every": 25,
            "trainer.max_epochs": 200,
            "trainer.osf": 2,
            "trainer.metric": "hr_10",
            "trainer.patience": None,
            "trainer.optimizer.lr": 1e-3,
            "trainer.optimizer.betas": [0.9, 0.98],
        },
        known=(
            "padding is not trained on here, in the published code it is",
            "validation is whole here, near 10,000 targets in the published code",
            _DRAWN_ONCE,
        ),
        seeds=20,
    ),
}

# What a row says of itself. Of a setting that the row leaves open nothing is asked.
_PLAIN: Settings = {
    "model": "sasrec",
    "objective": "ranking",
    "sampler/false_negatives": "none",
    "scorer.similarity": ("dot", None),
    "targets": ("next_item", None),
}
_BCE: Settings = {"loss": "bce", "loss.log_q": "none"}
_SUM: Settings = {**_BCE, "loss.negatives": "sum"}
_ONE: Settings = {**_PLAIN, **_BCE, "sampler": "uniform", "k": 1}
_GENNI: Settings = {
    **_PLAIN,
    "sampler": "genni",
    "curriculum": False,
    "sampler.grow": None,
    "k": 1,
}
_POPREC: Settings = {"model": "popularity"}
_SOFTMAX: Settings = {**_PLAIN, "loss": "softmax"}
_ALPHA = "alpha was tuned for each data set; the paper says to what for Beauty (2.5) and Yelp (4.4)"
_APART = "negatives of the published code avoid the user's held-out items too"
_DISCARDED = (
    "candidates that are not chosen are left out here, in the published code they stay as scores "
    "of 0 and thin out the gradient of the others"
)
_TEXT = "text of section 6 and repository readme"


def _gsasrec(setting: str, **needs: object) -> Setup:
    # "k=16 gbce t=1": the numbers and the loss, over uniform negatives.
    asked: Settings = {**_PLAIN, "sampler": "uniform", **needs}
    return Setup("gsasrec", (_TEXT,), "sasrec", setting, asked, {"sampler.exclude": "none"})


def _apple(setting: str, settings: Settings, *samplers: str, known: Sequence[str] = ()) -> Setup:
    needs: Settings = {**_PLAIN, **_BCE, "sampler": samplers or (setting,)}
    return Setup("apple", ("table 3",), "sasrec", setting, needs, settings, tuple(known))


SETUPS: tuple[Setup, ...] = (
    Setup(
        "genni",
        ("table 1", "table 5"),
        "sasrec",
        "",
        _ONE,
        {"sampler.exclude": "history"},
        (_APART,),
    ),
    Setup(
        "genni",
        ("table 1", "table 5"),
        "sasrec_pop",
        "",
        {**_PLAIN, **_BCE, "sampler": "popularity", "k": 1},
        {"sampler.exclude": "history"},
        ("the power of the popularity was tuned from 0 to 1.5, the paper does not say to what",),
    ),
    Setup("genni", ("table 1",), "genni_sa", "", {**_GENNI, **_BCE, "beta": 1.0}, {}, (_ALPHA,)),
    *(
        Setup("genni", (table,), model, setting, {**_GENNI, **_BCE, "beta": beta}, {}, (_ALPHA,))
        for beta in (0.1, 1.0)
        for table, model, setting in (
            ("table 2", "genni_sa", f"beta={beta}"),
            ("table 5", f"genni_sa beta={beta}", ""),
        )
    ),
    *(
        Setup(
            "genni",
            ("table 2",),
            "genni_sa",
            f"m={m}",
            {**_GENNI, **_BCE, "sampler.grow": m},
            {},
            (_ALPHA, "the paper does not say from which beta it grew"),
        )
        for m in (20, 40)
    ),
    Setup(
        "s3rec",
        ("repository, full ranking",),
        "sasrec",
        "",
        _ONE,
        {"sampler.exclude": "history"},
    ),
    Setup("s3rec", ("repository, full ranking",), "poprec", "", _POPREC),
    Setup("gsasrec", ("table 3",), "poprec", "", _POPREC),
    Setup("gsasrec", ("table 3",), "sasrec_softmax", "", _SOFTMAX),
    Setup("gsasrec", ("table 2",), "sasrec", "softmax", _SOFTMAX),
    Setup("gsasrec", ("table 3",), "sasrec", "", _ONE, {"sampler.exclude": "none"}),
    Setup("gsasrec", ("table 2",), "sasrec", "bce 1 negative", _ONE, {"sampler.exclude": "none"}),
    Setup(
        "gsasrec",
        ("table 3",),
        "gsasrec",
        "",
        {**_PLAIN, "sampler": "uniform", "loss": "gbce", "k": 256, "t": 0.75},
        {"sampler.exclude": "none"},
    ),
    _gsasrec("published checkpoint gbce k=256 t=0.75", loss="gbce", k=256, t=0.75),
    _gsasrec("published checkpoint bce k=1", **_BCE, k=1),
    _gsasrec("k=1 t=0", loss="gbce", k=1, t=0.0),
    _gsasrec("k=1 t=1", loss="gbce", k=1, t=1.0),
    *(_gsasrec(f"k={k} gbce t=1", loss="gbce", k=k, t=1.0) for k in (16, 256)),
    *(_gsasrec(f"k={k} bce", **_SUM, k=k) for k in (16, 256)),
    *(
        _gsasrec(
            f"k={k} sampled softmax",
            loss="sampled_softmax",
            k=k,
            **{"loss.log_q": "none", "loss.temperature": 1.0},
        )
        for k in (16, 256)
    ),
    Setup("ufnrec", ("table 2",), "sasrec", "", {**_PLAIN, **_SUM, "sampler": "uniform", "k": 100}),
    Setup(
        "ufnrec",
        ("table 2",),
        "sasrec+ufn",
        "",
        {
            **_PLAIN,
            **_SUM,
            "sampler": "uniform",
            "k": 100,
            "sampler/false_negatives": "reverse",
            "objective": "ranking_with_teacher",
        },
        {"objective.decay": 0.999, "objective.weight": 0.15, "false_negatives.m": 5},
    ),
    Setup("apple", ("table 3",), "poprec", "popularity ranker", _POPREC),
    _apple("uniform", {"k": 200, "sampler.share": "sequence", "sampler.exclude": "history"}),
    _apple(
        "popularity",
        {"k": 200, "gamma": 1.0, "sampler.share": "sequence", "sampler.exclude": "history"},
    ),
    _apple("in_batch", {"k": 200, "sampler.share": "sequence", "sampler.exclude": "window"}),
    _apple("mixed", {"sampler.parts.in_batch.k": 200, "sampler.parts.uniform.k": 50}),
    _apple(
        "adaptive",
        {"sampler": "adaptive_in_batch", "k": 50, "pool": 200},
        "adaptive",
        "adaptive_in_batch",
        known=(_DISCARDED,),
    ),
    _apple(
        "adaptive_mixed",
        {"k": 50, "sampler.base.parts.in_batch.k": 200, "sampler.base.parts.uniform.k": 50},
        known=(_DISCARDED,),
    ),
)

_YOURS = (
    "negrec ships no such data set: whether yours was prepared like the paper's is not checked",
)
_S3REC_SETS = {name: (Data(name),) for name in ("beauty", "sports", "toys", "yelp")}
_ML_1M = (
    Data("ml-1m-sasrec"),
    Data("ml-1m", "the paper's MovieLens 1M has 3,416 items, dataset=ml-1m 3,706"),
)
DATA: Mapping[str, Mapping[str, tuple[Data, ...]]] = {
    "genni": _S3REC_SETS,
    "s3rec": _S3REC_SETS,
    "gsasrec": {"ml-1m (SASRec version)": _ML_1M, "ml-1m": _ML_1M},
    "ufnrec": {
        "sports": (Data("sports"),),
        "yelp": (Data("yelp"),),
        "beauty": (
            Data(
                "beauty",
                "the paper's Beauty has 52,024 users and 57,289 items, dataset=beauty (5-core) "
                "22,363 and 12,101",
            ),
        ),
    },
    "apple": {
        "beauty (full, timestamps)": (
            Data(
                "beauty",
                "the paper's Beauty is all ratings, dataset=beauty those of the 5-core",
            ),
        ),
        "ml-10m": (
            Data("ml-10m", known=_YOURS),
            Data("ml-1m", "the paper's MovieLens has 10 million ratings, dataset=ml-1m 1 million"),
        ),
        "retailrocket": (Data("retailrocket", known=_YOURS),),
    },
}
# A data set that was changed on its way in is not the published one.
_UNCHANGED: Settings = {
    "dataset.min_rating": None,
    "dataset.min_interactions": None,
    "dataset.duplicates": ("keep", None),
}
_BY_ROW = {
    (setup.paper, table, setup.model, setup.setting): setup
    for setup in SETUPS
    for table in setup.tables
}


@cache
def rows() -> tuple[Reported, ...]:
    """All published values, in the order of the tables."""
    text = resources.files(__package__).joinpath("reported.csv").read_text(encoding="utf-8")
    return tuple(map(_row, csv.DictReader(text.splitlines())))


def _row(cells: Mapping[str, str]) -> Reported:
    unit, factor = _UNITS[cells["unit"]]
    return Reported(
        paper=cells["paper"],
        table=cells["table"],
        dataset=cells["dataset"],
        model=cells["model"],
        setting=cells["setting"],
        metric=cells["metric"],
        value=factor * float(cells["value"]),
        std=factor * float(cells["std"]) if cells["std"] else None,
        unit=unit,
        protocol=cells["protocol"],
    )


def matches(runs: Sequence[Run]) -> list[Match]:
    """The published values that speak of a cell.

    A value that an earlier table of the same paper gave already is not repeated.

    Args:
        runs: finished ones that differ in the seed only.

    Returns:
        By the order of the tables; empty where nothing was published.
    """
    found: list[Match] = []
    told: set[tuple[str, str, float]] = set()
    for row in rows():
        setup, data = _setup(row, runs), _data(row, runs, same=True)
        if setup is None or data is None or row.measured_as is None:
            continue
        if (row.paper, row.metric, row.value) in told:
            continue
        measured = significance.describe([run.metric(row.measured_as) for run in runs])
        if measured.n:
            told.add((row.paper, row.metric, row.value))
            found.append(
                Match(
                    row,
                    PAPERS[row.paper].citation,
                    row.measured_as,
                    measured.mean,
                    measured.sd,
                    measured.n,
                    (*_deviations(setup, runs), *data.known),
                )
            )
    return found


def near_misses(runs: Sequence[Run]) -> list[str]:
    """Published tables that seem to speak of a cell and do not, as sentences."""
    found: dict[str, None] = {}
    for row in rows():
        data = _data(row, runs, same=False)
        if data is not None and _setup(row, runs) is not None:
            paper = PAPERS[row.paper].name
            found[f"{paper}'s {row.table} is not comparable: {data.other}"] = None
    return list(found)


def _setup(row: Reported, runs: Sequence[Run]) -> Setup | None:
    """What the row's table says of runs like these; None where it speaks of others."""
    setup = _BY_ROW.get((row.paper, row.table, row.model, row.setting))
    if setup is None:
        return None
    needs = {**PAPERS[row.paper].needs, **setup.needs}
    return None if any(_unlike(run, needs) for run in runs) else setup


def _data(row: Reported, runs: Sequence[Run], same: bool) -> Data | None:
    """The row's data set, if it is the runs'; or the one that it is taken for."""
    for data in DATA[row.paper].get(row.dataset, ()):
        path = (f"{data.option}.parquet", None)
        needs = {**_UNCHANGED, "dataset": data.option, "dataset.path": path}
        if same == (data.other is None) and all(not _unlike(run, needs) for run in runs):
            return data
    return None


def _unlike(run: Run, settings: Settings) -> list[str]:
    """The keys in which a run differs."""
    return [key for key, wanted in settings.items() if not _is(_value(run, key), wanted)]


def _value(run: Run, key: str) -> object:
    return run.choices[key] if key in run.choices else run.config.get(key)


def _is(value: object, wanted: object) -> bool:
    return value in wanted if isinstance(wanted, tuple) else value == wanted


def _deviations(setup: Setup, runs: Sequence[Run]) -> tuple[str, ...]:
    paper = PAPERS[setup.paper]
    trained = setup.needs != _POPREC
    found: dict[str, None] = {}
    for run in runs:
        for key, published in {**paper.settings, **setup.settings}.items():
            told = trained or key.startswith(("split.", "evaluation."))
            if told and not _is(_value(run, key), published):
                ours, theirs = _shown(_value(run, key)), _shown(published)
                found[f"{key} is {ours} here, {theirs} in what was published"] = None
    if not trained:
        return (*found, *setup.known)
    if paper.seeds is not None and len(runs) != paper.seeds:
        found[f"{_runs(len(runs))} here, {paper.seeds} in the paper"] = None
    patience = paper.settings.get("trainer.patience")
    if isinstance(patience, int):
        cut = [run.epochs for run in runs if run.epochs - run.best_epoch < patience]
        if cut:
            found[
                f"{_runs(len(cut))} ended by epoch {max(cut)}, before {patience} epochs "
                "without a better one"
            ] = None
    return (*found, *setup.known, *paper.known)


def _runs(n: int) -> str:
    return f"{n} run" if n == 1 else f"{n} runs"


def _shown(value: object) -> str:
    value = value[0] if isinstance(value, tuple) else value
    return value if isinstance(value, str) else json.dumps(value)
