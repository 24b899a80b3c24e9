import pytest

from negrec.reporting.figures.quantities import quantity


@pytest.mark.parametrize(
    ("name", "label", "percent", "better", "cost"),
    [
        ("test/hr_10", "HR@10 on test (%)", True, "high", False),
        ("valid/ndcg_10_head", "NDCG@10 of head targets on validation (%)", True, "high", False),
        ("mrr", "MRR (%)", True, "high", False),
        ("test/balance_5", "Balance@5 on test (1/3 to 1, 1 = equal)", False, "high", False),
        ("cost/seconds", "Training time (s)", False, "low", True),
        ("cost/peak_mb", "Peak memory (MB)", False, "low", True),
        ("diag/seconds", "Time of these measurements (s)", False, "low", True),
        ("diag/distinct", "Distinct negatives (% of the catalogue)", True, "high", False),
        ("trainer.optimizer.lr", "Learning rate", False, "high", False),
        ("sampler.gamma", "sampler.gamma", False, "high", False),  # a name is its own label
        ("diag/of_tomorrow", "diag/of_tomorrow", False, "high", False),
    ],
)
def test_labels_units_and_directions(name: str, label: str, percent: bool, better: str, cost: bool):
    found = quantity(name)
    assert (found.label, found.percent, found.better, found.cost) == (label, percent, better, cost)
