"""The evaluator against the definition, target by target."""

import logging
from dataclasses import dataclass, field
from functools import partial
from math import isnan, nan

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from negrec.evaluation.evaluator import Evaluator, batch_of
from negrec.evaluation.metrics import hit_rate, mrr, ndcg
from negrec.models.mf import MF
from negrec.models.sasrec import SASRec
from negrec.scoring import FixedScorer, ItemScorer
from negrec.types import Batch, HeldOut
from tests import toy

V = 12


@dataclass
class Fixed:
    """Scores that depend on the user and the newest item alone, whole numbers that tie often."""

    n_items: int = V
    asked: list[Batch] = field(default_factory=list)

    @property
    def scorer(self) -> FixedScorer:
        return FixedScorer(torch.eye(self.n_items))

    def scores(self, user: int, newest: int) -> list[float]:
        return [float((3 * user + newest * item) % 5) for item in range(1, self.n_items + 1)]

    def represent(self, batch: Batch) -> Tensor:
        self.asked.append(batch)
        newest = batch.items[batch.last]
        pairs = zip(batch.user.tolist(), newest.tolist(), strict=True)
        return torch.tensor([self.scores(*pair) for pair in pairs])


def held_out(sequences, ends, targets):
    """Targets of users with these whole sequences: (user, length of the history) and item."""
    rows = toy.jagged(sequences)
    user = torch.tensor([u for u, _ in ends], dtype=torch.int64)
    start = rows.offsets[user]
    return HeldOut(
        user=user,
        target=torch.tensor(targets, dtype=torch.int64),
        items=rows.values,
        start=start,
        end=start + torch.tensor([n for _, n in ends], dtype=torch.int64),
    )


def random_held_out(n_users=40, seed=0):
    """Histories with repeats, unknown items (0), cold targets and several targets per user."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n, low=0):
        return torch.randint(low, V + 1, (n,), generator=generator).tolist()

    sequences = [[*draw(1, low=1), *draw(1 + user % 9)] for user in range(n_users)]
    ends = [(user, len(sequences[user]) - 1) for user in range(n_users)]
    ends += [(user, 1) for user in range(0, n_users, 3)]
    ends += [(user, len(sequences[user]) - 1) for user in range(0, n_users, 4)]  # twice the same
    return sequences, held_out(sequences, ends, draw(len(ends))), ends


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize("seen", ["filter", "keep", "zero"])
def test_against_the_definition(seen, batch_size):
    sequences, targets, ends = random_held_out()
    model = Fixed()
    result = Evaluator(targets, toy.info(V, 4), seen=seen, batch_size=batch_size)(model)
    for i, (user, n) in enumerate(ends):
        target = int(targets.target[i])
        history = [item for item in sequences[user][:n] if item]
        scores = dict(enumerate(model.scores(user, history[-1]), 1))
        if seen == "zero":
            scores |= dict.fromkeys(history, 0.0)
        if seen == "filter":
            scores = {j: s for j, s in scores.items() if j not in history or j == target}
        expected = (V, 0)
        if target:
            above = sum(s > scores[target] for s in scores.values())
            expected = (above, sum(s == scores[target] for s in scores.values()) - 1)
        assert (result.greater[i], result.ties[i]) == expected
    assert result.user.tolist() == [user for user, _ in ends]
    assert result.target.tolist() == targets.target.tolist()


def test_a_history_is_asked_for_once_and_the_short_ones_first():
    _, targets, ends = random_held_out()
    model = Fixed()
    Evaluator(targets, toy.info(V, 4), batch_size=8)(model)
    lengths = torch.cat([batch.offsets.diff() for batch in model.asked])
    assert len(lengths) == len(set(ends)) < len(ends)
    assert lengths.tolist() == sorted(lengths.tolist())
    assert int(lengths.max()) == 4  # max_length


def test_metrics_are_those_of_the_ranks():
    _, targets, _ = random_held_out()
    result = Evaluator(targets, toy.info(V), cutoffs=(2, 5))(Fixed())
    cold = result.target == 0
    assert cold.any()
    counts = np.arange(1, V + 1)  # toy.info: total 78; 12, 11 | 10, 9, 8 | the rest
    cohort = np.select([cold, counts[result.target - 1] > 10, result.target > 7], [3, 0, 1], 2)
    assert result.cohort.tolist() == cohort.tolist()
    rank, ties = result.greater + 1, result.ties
    for suffix, chosen in [
        ("_warm", ~cold),
        ("_head", cohort == 0),
        ("_mid", cohort == 1),
        ("_tail", cohort == 2),
    ]:
        of = rank[chosen], ties[chosen]
        assert result.metrics[f"hr_5{suffix}"] == pytest.approx(hit_rate(of[0], 5, of[1]))
        assert result.metrics[f"ndcg_2{suffix}"] == pytest.approx(ndcg(of[0], 2, of[1]))
        assert result.metrics[f"mrr{suffix}"] == pytest.approx(mrr(*of))
        assert result.metrics[f"n{suffix}"] == chosen.sum()
    for name in ("hr_5", "ndcg_5", "mrr"):  # a cold target counts, and gains nothing
        expected = result.metrics[f"{name}_warm"] * (~cold).mean()
        assert result.metrics[name] == pytest.approx(expected)
    assert result.metrics["n"] == len(targets)
    assert result.metrics["n_cold"] == cold.sum()
    rates = [result.metrics[f"hr_5_{name}"] for name in ("head", "mid", "tail")]
    gap = 2 * (max(rates) - min(rates))  # all pairs of three
    assert result.metrics["balance_5"] == pytest.approx(1 - 2 * gap / (6 * sum(rates)))


def test_a_cold_target_is_a_miss_however_deep_the_list():
    result = Evaluator(held_out([[1, 2]], [(0, 2)], [0]), toy.info(V), cutoffs=(5 * V,))(Fixed())
    assert result.metrics[f"hr_{5 * V}"] == 0
    assert result.metrics["mrr"] == 0
    assert isnan(result.metrics["mrr_warm"])


def test_recall_only_where_users_have_several_targets():
    # A frozen history (item 5) and targets 1, 2, 3 of user 0, target 4 of user 1. Scores:
    # user 0: item -> 5 item mod 5 = 0: all tie over the 11 unseen; user 1: 3 + 5 item mod 5 = 3.
    several = held_out([[5], [5]], [(0, 1), (0, 1), (0, 1), (1, 1)], [1, 2, 3, 4])
    metrics = Evaluator(several, toy.info(V), cutoffs=(11, 1))(Fixed()).metrics
    assert metrics["recall_11"] == 1
    assert metrics["recall_1"] == pytest.approx(1 / 11)
    single = held_out([[5], [5]], [(0, 1), (1, 1)], [1, 2])
    assert "recall_11" not in Evaluator(single, toy.info(V), cutoffs=(11,))(Fixed()).metrics


def test_the_frame_holds_what_metrics_need():
    _, targets, _ = random_held_out()
    result = Evaluator(targets, toy.info(V))(Fixed())
    frame = result.frame()
    assert frame.columns == ["user", "target", "greater", "ties", "cohort"]
    assert frame.height == len(targets)
    warm = frame.filter(pl.col("cohort") < 3)
    again = ndcg((warm["greater"] + 1).to_numpy(), 10, warm["ties"].to_numpy())
    assert again == pytest.approx(result.metrics["ndcg_10_warm"])


def test_lists_and_calibration():
    # Two users, scores by a scorer of one dimension: items 1..4 score 2, 1, 0, -1 for both.
    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scorer = ItemScorer(4, 1)
            with torch.no_grad():
                self.scorer.weight.copy_(torch.tensor([[2.0], [1.0], [0.0], [-1.0]]))

        def represent(self, batch: Batch) -> Tensor:
            return torch.ones(batch.n_sequences, 1)

    targets = held_out([[1], [3]], [(0, 1), (1, 1)], [2, 4])
    info = toy.info(4, counts=[4, 2, 1, 1])
    result = Evaluator(targets, info, cutoffs=(1, 2), lists=True)(Line())
    # Lists without what is seen: user 0 gets 2, 3; user 1 gets 1, 2.
    assert result.metrics["coverage_1"] == 2 / 4
    assert result.metrics["coverage_2"] == 3 / 4
    assert result.metrics["arp_2"] == pytest.approx((3 / 2 + 6 / 2) / 2)
    assert result.metrics["novelty_1"] == pytest.approx((2 + 1) / 2)  # 2 of 8, 4 of 8
    assert result.metrics["exposure_gini_2"] == pytest.approx(12 / (2 * 16))  # 1, 2, 1, 0 times
    sigmoid = torch.tensor([2.0, 1.0, 0.0, -1.0]).double().sigmoid().tolist()
    assert result.metrics["probability_sum"] == pytest.approx(sum(sigmoid))
    table = result.calibration
    assert table is not None
    assert table["k"].to_list() == [1, 2, 3, 4]  # no deeper than the catalogue
    assert table["probability"][0] == pytest.approx((sigmoid[1] + sigmoid[0]) / 2)
    # Targets at ranks 1 and 3 of the two lists.
    assert table["precision"].to_list() == pytest.approx([1 / 2, 1 / 4, 2 / 6, 2 / 8])


def test_lists_only_where_asked_for_and_calibration_only_of_what_was_trained():
    _, targets, _ = random_held_out()
    plain = Evaluator(targets, toy.info(V))(Fixed())
    assert "coverage_10" not in plain.metrics
    listed = Evaluator(targets, toy.info(V), lists=True)(Fixed())
    assert "coverage_10" in listed.metrics
    assert listed.calibration is None
    assert "probability_sum" not in listed.metrics
    assert {key: listed.metrics[key] for key in plain.metrics} == pytest.approx(
        dict(plain.metrics), nan_ok=True
    )


def test_a_model_that_trains_is_measured_without_dropout():
    _, targets, _ = random_held_out()
    torch.manual_seed(0)
    model = SASRec(toy.info(V), dim=8, dropout=0.5)
    evaluator = Evaluator(targets, toy.info(V))
    one, other = evaluator(model), evaluator(model)
    assert one.frame().equals(other.frame())
    assert all(module.training for module in model.modules())
    model.eval()
    assert evaluator(model).frame().equals(one.frame())
    assert not model.training


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_batches_do_not_change_a_real_model(batch_size):
    _, targets, _ = random_held_out()
    torch.manual_seed(0)
    model = SASRec(toy.info(V), dim=8)
    expected = Evaluator(targets, toy.info(V))(model)
    found = Evaluator(targets, toy.info(V), batch_size=batch_size)(model)
    assert found.frame().equals(expected.frame())


def test_a_history_without_known_items_makes_everything_tie():
    targets = held_out([[0, 0, 0], [3, 0, 0]], [(0, 2), (1, 2)], [5, 5])
    model = Fixed()
    result = Evaluator(targets, toy.info(V))(model)
    assert (result.greater[0], result.ties[0]) == (0, V - 1)
    (batch,) = model.asked
    assert batch.user.tolist() == [1]
    nobody = held_out([[0, 0], [3]], [(0, 1)], [5])
    assert Evaluator(nobody, toy.info(V))(Fixed()).ties.tolist() == [V - 1]


def test_without_a_history_biases_rank():
    targets = held_out([[0, 0], [3, 4]], [(0, 1), (1, 1)], [5, 5])
    scorer = partial(ItemScorer, bias=True)
    for model in (SASRec(toy.info(V), dim=4, scorer=scorer), MF(toy.info(V), 4, scorer=scorer)):
        with torch.no_grad():
            model.scorer.bias[:, 0] = torch.arange(V)  # 7 items are above item 5 of 12
        result = Evaluator(targets, toy.info(V))(model)
        assert (result.greater[0], result.ties[0]) == (7, 0)


def test_no_targets():
    nothing = held_out([[1]], [], [])
    result = Evaluator(nothing, toy.info(V), lists=True)(Fixed())
    assert isnan(result.metrics["hr_10"])
    assert "coverage_10" not in result.metrics  # there are no lists
    assert result.frame().height == 0


def test_why_there_is_no_balance(caplog):
    # The only target is item 12, head; nobody asks for mid and tail.
    lonely = held_out([[1]], [(0, 1)], [12])
    with caplog.at_level(logging.WARNING):
        result = Evaluator(lonely, toy.info(V), cutoffs=(10,), lists=True)(Fixed())
    assert isnan(result.metrics["balance_10"])
    assert result.why_no_balance(10) == "no target in mid and tail"
    assert "balance@10 of Fixed is not a number: no target in mid and tail" in caplog.text


def test_no_hit_is_no_balance():
    # Users 0 and newest item 1: item j scores j mod 5, so 5 and 10 come last; of the others
    # 4 and 9 come first. Targets 12 (head), 10 (mid), 5 (tail) miss @2.
    misses = held_out([[1], [1], [1]], [(0, 1)] * 3, [12, 10, 5])
    result = Evaluator(misses, toy.info(V), cutoffs=(2, 12))(Fixed())
    assert result.why_no_balance(2) == "no hit in any cohort"
    assert isnan(result.metrics["balance_2"])
    assert result.why_no_balance(12) is None
    assert result.metrics["balance_12"] == 1


def test_sampled_ranking(caplog):
    # The share of many samples that stand above is the share of all unseen items that do.
    sequences, targets, ends = random_held_out()
    with caplog.at_level(logging.WARNING):
        evaluator = Evaluator(targets, toy.info(V), sampled=4000, lists=True)
    assert "evaluation.sampled=4000 ranks targets among random items" in caplog.text
    result, again = evaluator(Fixed()), evaluator(Fixed())
    assert result.frame().equals(again.frame())  # every model meets the same candidates
    assert result.sampled == 4000
    assert result.calibration is None
    full = Evaluator(targets, toy.info(V))(Fixed())
    warm = full.cohort < 3
    known = [
        {*sequences[user][:n], int(target)} - {0}
        for (user, n), target in zip(ends, targets.target, strict=True)
    ]
    unseen = np.array([V - len(items) for items in known])[warm]
    np.testing.assert_allclose(result.greater[warm] / 4000, full.greater[warm] / unseen, atol=0.05)
    np.testing.assert_allclose(result.ties[warm] / 4000, full.ties[warm] / unseen, atol=0.05)
    assert (result.greater[~warm] == V).all()


def test_batch_of_the_newest_items():
    part = held_out([[4, 5, 6, 7], [8, 9]], [(0, 3), (1, 2)], [7, 1])
    batch = batch_of(part, 2)
    assert batch.items.tolist() == [5, 6, 8, 9]
    assert batch.position.tolist() == [1, 2, 0, 1]  # in the whole history
    assert batch.offsets.tolist() == [0, 2, 4]
    assert batch.user.tolist() == [0, 1]
    assert len(batch.query) == len(batch.target) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seen": "drop"}, "evaluation.seen must be one of filter, keep, zero, got 'drop'"),
        ({"cutoffs": (10, 0)}, "evaluation.cutoffs"),
        ({"cutoffs": ()}, "evaluation.cutoffs"),
        ({"cutoffs": (2.5,)}, "evaluation.cutoffs"),
        ({"batch_size": 0}, "evaluation.batch_size must be at least 1, got 0"),
        ({"sampled": 0}, "evaluation.sampled must be at least 1, got 0"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Evaluator(held_out([[1]], [(0, 1)], [2]), toy.info(V), **settings)


def test_nothing_of_the_model_is_a_number():
    class Lost(Fixed):
        def represent(self, batch: Batch) -> Tensor:
            return super().represent(batch) * nan

    with pytest.raises(ValueError, match=r"user 0 \(target 2\) are not finite"):
        Evaluator(held_out([[1]], [(0, 1)], [2]), toy.info(V))(Lost())
