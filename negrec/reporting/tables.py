"""Results as tables that a person reads."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from negrec.evaluation.cohorts import COHORTS
from negrec.evaluation.evaluator import Evaluation
from negrec.reporting import wording

_ACCURACY = (("hr", "HR"), ("ndcg", "NDCG"), ("recall", "recall"))
_WHOLE = (("balance", "balance"), ("coverage", "coverage"))
_BY_COHORT = ("", *(f"_{name}" for name in COHORTS))


def final_table(
    model: Evaluation,
    popularity: Evaluation,
    oracle: Evaluation | None,
    cutoffs: Sequence[int],
) -> Table:
    """The end of a run: metrics by cohort, beside the popularity ranker and the oracle.

    Args:
        model: the trained model's results on the test targets.
        popularity: the popularity ranker's, on the same targets.
        oracle: of the true distribution, where it is known.
        cutoffs: the k of the metrics.
    """
    others = [popularity] if oracle is None else [popularity, oracle]
    table = Table(
        title="Test results, in percent",
        title_style="bold",
        title_justify="left",
        caption="\n".join(_notes(model, cutoffs)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("")
    for name in ("total", *COHORTS, "popularity", "oracle")[: 4 + len(others)]:
        table.add_column(name, justify="right")
    table.add_row(
        "targets",
        *(f"{model.metrics[f'n{suffix}']:,.0f}" for suffix in _BY_COHORT),
        end_section=True,
    )
    shown = [(name, label) for name, label in _ACCURACY if f"{name}_{cutoffs[0]}" in model.metrics]
    for name, label in shown:
        for k in cutoffs:
            key = f"{name}_{k}"
            table.add_row(f"{label}@{k}", *_cohorts(model, key), *_totals(others, key))
        table.add_section()
    table.add_row("MRR", *_cohorts(model, "mrr"), *_totals(others, "mrr"), end_section=True)
    for name, label in _WHOLE:
        for k in cutoffs:
            if f"{name}_{k}" in model.metrics:
                table.add_row(
                    f"{label}@{k}",
                    *_totals([model], f"{name}_{k}"),
                    "",
                    "",
                    "",
                    *_totals(others, f"{name}_{k}"),
                )
        table.add_section()
    return table


def _cohorts(evaluation: Evaluation, key: str) -> list[str]:
    """A metric in total and by cohort."""
    return [wording.percent(evaluation.metrics[f"{key}{suffix}"]) for suffix in _BY_COHORT]


def _totals(evaluations: Sequence[Evaluation], key: str) -> list[str]:
    return [wording.percent(evaluation.metrics[key]) for evaluation in evaluations]


def _notes(model: Evaluation, cutoffs: Sequence[int]) -> list[str]:
    """What a reader must know to read the numbers right."""
    found = model.metrics
    notes = ["balance: 100 = the cohorts' hit rates are equal, 33.33 = one group gets everything"]
    if model.sampled is not None:
        notes.insert(0, wording.sampled(model.sampled))
    reasons: dict[str, list[str]] = {}
    for k in cutoffs:
        reason = model.why_no_balance(k)
        if reason is not None:
            reasons.setdefault(reason, []).append(f"@{k}")
    notes += [f"no balance {', '.join(at)}: {reason}" for reason, at in reasons.items()]
    if n_cold := found["n_cold"]:
        k = 10 if 10 in cutoffs else cutoffs[0]
        hr, ndcg = (wording.percent(found[f"{name}_{k}_warm"]) for name in ("hr", "ndcg"))
        notes.append(
            f"{n_cold:,.0f} of {found['n']:,.0f} targets are cold (outside the catalogue): misses "
            f"in the total; without them HR@{k} {hr}, NDCG@{k} {ndcg}"
        )
    return notes
