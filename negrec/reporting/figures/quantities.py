"""What a metric or a setting is called on an axis, its unit, and which direction is good."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from negrec.evaluation.cohorts import COHORTS

Better = Literal["high", "low"]

# Name: (label, unit, better). "%": a fraction, shown times 100.
_METRICS: dict[str, tuple[str, str, Better]] = {
    "hr": ("HR", "%", "high"),
    "ndcg": ("NDCG", "%", "high"),
    "recall": ("Recall", "%", "high"),
    "mrr": ("MRR", "%", "high"),
    "balance": ("Balance", "1/3 to 1, 1 = equal", "high"),
    "coverage": ("Coverage", "% of the catalogue", "high"),
    "arp": ("Popularity of what is shown", "training count", "low"),
    "exposure_gini": ("Gini of exposure", "0 = equal", "low"),
    "novelty": ("Novelty", "bits", "high"),
    "loss": ("Loss", "", "low"),
    "seconds": ("Training time", "s", "low"),
    "seconds_to_best": ("Training time until the best epoch", "s", "low"),
    "seconds_per_epoch": ("Training time per epoch", "s", "low"),
    "epoch_seconds": ("Training time per epoch", "s", "low"),
    "sampler_share": ("Sampler's share of training time", "%", "low"),
    "peak_mb": ("Peak memory", "MB", "low"),
}
_DIAGNOSTICS: dict[str, tuple[str, str, Better]] = {
    "hardness": ("Hardness", "rank percentile", "high"),
    "false_negative_rate": ("False negatives", "% of negatives", "low"),
    "false_negative_lift": ("False negatives", "× uniform", "low"),
    "true_lift": ("True probability", "× uniform", "low"),
    "distinct": ("Distinct negatives", "% of the catalogue", "high"),
    "mean_count": ("Popularity of negatives", "training count", "low"),
    "popularity_percentile": ("Popularity of negatives", "percentile", "low"),
    "effective_sample_size": ("Effective sample size", "share of k", "high"),
    "mined": ("Mined as false negatives", "% of candidates", "high"),
    "vanishing": ("Vanishing gradients", "% of queries", "low"),
    "gradient_cosine": ("Gradient: cosine with full softmax", "1 = same", "high"),
    "gradient_bias": ("Gradient: bias", "0 = none", "low"),
    "gradient_variance": ("Gradient: variance", "0 = none", "low"),
    "gradient_scale": ("Gradient: scale", "factor", "high"),
    "false_negatives": ("False negatives seen", "count", "low"),
    "false_negatives_expected": ("False negatives, were they uniform", "count", "low"),
    "seconds": ("Time of these measurements", "s", "low"),
}
_SETTINGS: dict[str, str] = {
    "k": "Negatives k",
    "pool": "Candidates (pool)",
    "trainer.optimizer.lr": "Learning rate",
    "trainer.batch_size": "Batch size (sequences)",
    "sampler": "Sampler",
}
_WHERE = {"test": " on test", "valid": " on validation"}
_NAME = re.compile(
    r"(?:(?P<room>\w+)/)?(?P<metric>[a-z_]+?)(?:_(?P<cutoff>\d+))?"
    rf"(?:_(?P<part>{'|'.join(COHORTS)}|warm))?"
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """How a column of numbers is shown.

    Attributes:
        label: with the unit, such as "HR@10 on test (%)".
        percent: whether the numbers are fractions that the axis shows times 100.
        better: the good direction; "high" where nothing is known of the quantity.
        cost: whether it is a time or a size, that a log axis suits.
    """

    label: str
    percent: bool
    better: Better
    cost: bool


def quantity(name: str) -> Quantity:
    """Of a metric ("test/hr_10_head") or a setting ("trainer.optimizer.lr").

    Names that are not known are labels themselves.
    """
    if name in _SETTINGS:
        return Quantity(_SETTINGS[name], percent=False, better="high", cost=False)
    found = _NAME.fullmatch(name)
    room = found["room"] if found else None
    known = _DIAGNOSTICS if room == "diag" else _METRICS
    if found is None or found["metric"] not in known:
        return Quantity(name, percent=False, better="high", cost=False)
    label, unit, better = known[found["metric"]]
    if found["cutoff"]:
        label += f"@{found['cutoff']}"
    if found["part"]:
        label += f" of {found['part']} targets"
    label += _WHERE.get(room or "", "")
    return Quantity(
        f"{label} ({unit})" if unit else label,
        percent=unit.startswith("%"),
        better=better,
        cost=unit in ("s", "MB"),
    )
