"""The final table as a person sees it."""

from dataclasses import replace
from io import StringIO

import pytest
import torch
from rich.console import Console

from negrec.evaluation.evaluator import Evaluation, Evaluator
from negrec.models.popularity import Popularity
from negrec.reporting.tables import final_table
from negrec.types import HeldOut
from tests import toy

INFO = toy.info(4, counts=[8, 3, 3, 1])  # item 1 is head, the others are tail


def evaluation(targets, cutoffs=(1, 2), **settings) -> Evaluation:
    """The popularity ranker's results for users without known history."""
    n = len(targets)
    held_out = HeldOut(
        user=torch.arange(n),
        target=torch.tensor(targets),
        items=torch.tensor([4] * n),
        start=torch.arange(n),
        end=torch.arange(n) + 1,
    )
    return Evaluator(held_out, INFO, cutoffs, **settings)(Popularity(INFO))


def printed(table) -> str:
    console = Console(width=100, file=StringIO(), record=True)
    console.print(table)
    return console.export_text()


def row(text: str, name: str) -> list[str]:
    """The cells of a row."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{name} ")]
    return line.split()[1:]


@pytest.fixture
def model() -> Evaluation:
    # Rates by hand: ranks are 1 for item 1, 2 or 3 for items 2 and 3.
    found = evaluation([1, 1, 2, 3], lists=True)
    assert found.metrics["hr_2"] == pytest.approx(0.75)
    return found


def test_rows_and_columns(model):
    other = evaluation([1, 1, 1, 1], lists=True)
    text = printed(final_table(model, other, other, (1, 2)))
    head = next(line for line in text.splitlines() if "total" in line)
    assert head.split() == ["total", "head", "mid", "tail", "popularity", "oracle"]
    assert row(text, "targets") == ["4", "2", "0", "2"]
    assert row(text, "HR@1") == ["50.00", "100.00", "–", "0.00", "100.00", "100.00"]
    assert row(text, "HR@2") == ["75.00", "100.00", "–", "50.00", "100.00", "100.00"]
    # Half a chance of rank 2, 1 / log2(3) = 0.6309, for items 2 and 3.
    assert row(text, "NDCG@2")[3] == "31.55"
    assert row(text, "MRR")[:2] == ["70.83", "100.00"]  # (1 + 1 + 2 (1/2 + 1/3) / 2) / 4
    assert row(text, "coverage@2") == ["50.00", "50.00", "50.00"]
    assert "percent" in text


def test_without_an_oracle(model):
    text = printed(final_table(model, model, None, (1, 2)))
    assert "oracle" not in text
    assert len(row(text, "HR@1")) == 5


def test_recall_only_where_it_was_measured(model):
    assert "recall" not in printed(final_table(model, model, None, (1, 2)))
    recalls = {f"recall_{k}{s}": 0.125 for k in (1, 2) for s in ("", "_head", "_mid", "_tail")}
    several = replace(model, metrics={**model.metrics, **recalls})
    assert row(printed(final_table(several, several, None, (1, 2))), "recall@2")[0] == "12.50"


def test_says_why_there_is_no_balance(model):
    text = printed(final_table(model, model, None, (1, 2)))
    assert row(text, "balance@1") == ["–", "–"]
    assert "no balance @1, @2: no target in mid" in text


def test_says_what_balance_means(model):
    assert "33.33 = one group gets everything" in " ".join(
        printed(final_table(model, model, None, (1, 2))).split()
    )


def test_says_what_cold_targets_cost(model):
    assert "cold" not in printed(final_table(model, model, None, (1, 2)))
    cold = evaluation([1, 0], lists=True)
    text = " ".join(printed(final_table(cold, cold, None, (1, 2))).split())
    assert "1 of 2 targets are cold" in text
    assert "without them HR@1 100.00" in text
    assert "HR@1 50.00" in text


def test_says_that_ranking_was_sampled():
    sampled = evaluation([1, 2], sampled=2, lists=True)
    text = " ".join(printed(final_table(sampled, sampled, None, (1, 2))).split())
    assert "WARNING: ranked among 2 random items, not the catalogue" in text
    assert "coverage" not in text


def test_fits_into_100_columns(model):
    text = printed(final_table(model, model, model, (1, 2)))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "…" not in text
