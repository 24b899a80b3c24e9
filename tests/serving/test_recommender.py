"""Lists in own ids against sums made by hand, and a loop over everything."""

import random
from dataclasses import replace
from datetime import date
from functools import partial

import polars as pl
import pytest
import torch

from negrec.errors import InputError
from negrec.evaluation.evaluator import batch_of
from negrec.evaluation.ranks import top
from negrec.models.mf import MF
from negrec.models.sasrec import SASRec
from negrec.scoring import FixedScorer, ItemScorer
from negrec.serving import recommender as module
from negrec.serving.recommender import Recommender, Taken, found
from negrec.types import HeldOut
from tests import toy


class Additive:
    """The score of an item is the sum of its relations to the items that are read.

    Args:
        relation: of each item (row) to each item of a history, (V, V).
    """

    reads = True

    def __init__(self, relation):
        self.scorer = FixedScorer(torch.as_tensor(relation, dtype=torch.float32))
        self.longest = 0

    def represent(self, batch):
        self.longest = max(self.longest, int(batch.offsets.diff().max()))
        state = torch.zeros(batch.n_sequences, self.scorer.n_items)
        return state.index_put(
            (batch.sequence, batch.items - 1), torch.ones(len(batch.items)), accumulate=True
        )


RELATION = [[0, 1, 0, 2], [4, 0, 1, 0], [3, 2, 0, 0], [1, 2, 5, 0]]  # of items a, b, c, d
ABCD = pl.Series(["a", "b", "c", "d"])


def additive(max_length=2, names=None):
    info = toy.info(4, max_length, counts=[5, 8, 3, 5])
    return Recommender(Additive(RELATION), info, ABCD, pl.Series([7, 8]), names)


def listed(recommender, histories, k=4, seen="filter", people=None):
    """Of each history the list as (own id, score)."""
    read = recommender.read(people, pl.Series(histories, dtype=pl.List(pl.String)))
    items, scores = recommender.top(read, k, seen)
    own = recommender.own(items).to_list()
    pairs = list(zip(own, scores.flatten().tolist(), strict=True))
    rows = [pairs[row * k : (row + 1) * k] for row in range(len(histories))]
    return [[pair for pair in row if pair[0] is not None] for row in rows]


def test_hand_computed():
    # After a, b: a 0 + 1, b 4 + 0, c 3 + 2, d 1 + 2; a and b are seen.
    assert listed(additive(), [["a", "b"]]) == [[("c", 5), ("d", 3)]]
    assert listed(additive(), [["a", "b"]], seen="keep") == [
        [("c", 5), ("b", 4), ("d", 3), ("a", 1)]
    ]


def test_old_items_are_not_read_and_never_recommended():
    # Read are b, c: a 1 + 0, b 0 + 1, c 2 + 0, d 2 + 5; a is too old to be read, and still seen.
    assert listed(additive(), [["a", "b", "c"]]) == [[("d", 7)]]


def test_of_equal_scores_the_item_that_comes_first_in_the_catalogue():
    # After d: a 2, and 0 for the others.
    assert listed(additive(), [["d"]], k=2) == [[("a", 2), ("b", 0)]]


def test_unknown_items_are_skipped_and_counted_and_without_any_known_one_the_popular_ones_come():
    recommender = additive()
    histories = [["x", "d", "y"], ["x"], [], None]
    read = recommender.read(None, pl.Series(histories, dtype=pl.List(pl.String)))
    assert (read.skipped, len(read)) == (3, 4)
    assert recommender.knows(read).tolist() == [True, False, False, False]
    after_d, *others = listed(recommender, histories)
    assert after_d == [("a", 2), ("b", 0), ("c", 0)]
    # By how often training shows them; of equals the first.
    assert others == [[("b", 8), ("a", 5), ("d", 5), ("c", 3)]] * 3


def test_nobody_at_all():
    recommender = additive()
    read = recommender.read(None, pl.Series([], dtype=pl.List(pl.String)))
    items, scores = recommender.top(read, 3)
    assert items.shape == scores.shape == (0, 3)
    table = recommender.frame(pl.Series([], dtype=pl.Int64), items, scores)
    assert table.schema == {
        "user": pl.Int64,
        "rank": pl.Int32,
        "item": pl.String,
        "score": pl.Float32,
    }


@pytest.mark.parametrize("seen", ["filter", "keep"])
def test_against_a_loop(seen, monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 7)  # several batches, whose order is by length
    generator = random.Random(0)
    ids = [f"i{n}" for n in range(9)]
    relation = [[generator.randint(-2, 2) for _ in ids] for _ in ids]
    histories = [
        generator.choices([*ids, "unknown"], k=generator.choice([0, 1, 2, 5, 20]))
        for _ in range(60)
    ]
    model = Additive(relation)
    counts = [3, 1, 4, 1, 5, 9, 2, 6, 5]
    info = toy.info(9, max_length=3, counts=counts)
    recommender = Recommender(model, info, pl.Series(ids), pl.Series(["u"]))
    expected = []
    for history in histories:
        known = [item for item in history if item in ids]
        scores = {
            item: sum(relation[ids.index(item)][ids.index(one)] for one in known[-3:])
            if known
            else counts[ids.index(item)]
            for item in ids
            if seen == "keep" or item not in known
        }
        ranked = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
        expected.append(ranked[:5])
    assert listed(recommender, histories, 5, seen) == expected
    assert model.longest == 3


IDS = {
    "numbers": pl.Series([3, 1, 2, 10]),
    "large": pl.Series([2**63, 2**64 - 1, 0, 1], dtype=pl.UInt64),
    "texts": pl.Series(["a b", 'say "x", y', "üñí \U0001f600", "007"]),
    "fractions": pl.Series([0.5, 1.5, -2.25, 1e300]),
    "days": pl.Series([date(2020, 1, day) for day in (1, 2, 3, 4)]),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_every_kind_come_back(kind):
    ids = IDS[kind]
    recommender = Recommender(Additive(RELATION), toy.info(4, max_length=4), ids, ids)
    read = recommender.read(ids, ids.reshape((4, 1)).arr.to_list())
    assert read.user.tolist() == [0, 1, 2, 3]
    assert read.items.values.tolist() == [1, 2, 3, 4]
    items, scores = recommender.top(read, 4, "keep")
    table = recommender.frame(ids, items, scores)
    assert table.schema["user"] == table.schema["item"] == ids.dtype
    assert table["user"].unique(maintain_order=True).to_list() == ids.to_list()
    # The best item after each: the largest of a column of the relations.
    assert table.filter(pl.col("rank") == 1)["item"].to_list() == ids.gather([1, 2, 3, 0]).to_list()


@pytest.mark.parametrize(
    ("ids", "own", "expected"),
    [
        ([5, 7], ["7", "5", "07", "5.0", "x", None, ""], [1, 0, None, None, None, None, None]),
        ([5, 7], [7.0, 5.5, 1e30], [1, None, None]),
        (["5", "a"], [5, 6], [0, None]),
        (["5", "a"], pl.Series(["a", "b"], dtype=pl.Categorical), [1, None]),
        ([5, 7], pl.Series([2**64 - 1, 7], dtype=pl.UInt64), [None, 1]),
        ([5, 7], pl.Series([None, None], dtype=pl.Null), [None, None]),
    ],
)
def test_ids_are_compared_as_what_the_data_have(ids, own, expected):
    assert found(pl.Series(own, strict=False), pl.Series(ids), "item").to_list() == expected


def test_ids_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match=r"user ids are List.*those of the data are Int64.*5"):
        found(pl.Series([[1], [2]]), pl.Series([5, 7]), "user")


def test_a_table_says_the_same_as_lists():
    recommender = additive()
    people, lists = pl.Series([8, 9]), pl.Series([["b", "x"], ["c", "a", "b"]])
    taken = Taken(
        people,
        pl.Series(["a", "b", "c", "x"]),
        torch.tensor([0, 0, 1, 1, 1]).numpy(),
        torch.tensor([1, 3, 2, 0, 1]).numpy(),
    )
    for read in (recommender.read(people, lists), recommender.of(taken)):
        assert read.user.tolist() == [1, -1]
        assert read.items.values.tolist() == [2, 3, 1, 2]
        assert read.items.offsets.tolist() == [0, 1, 4]
        assert read.skipped == 1
        chosen = read.select(torch.tensor([1, 1]))
        assert chosen.user.tolist() == [-1, -1]
        assert chosen.items.values.tolist() == [3, 1, 2] * 2


def test_names_stand_in_the_table():
    names = pl.Series(["Anna", None, "Carl", "Dora"])
    recommender = additive(names=names)
    read = recommender.read(None, pl.Series([["a"], ["d"]]))
    items, scores = recommender.top(read, 3)
    table = recommender.frame(pl.Series(["u", "v"]), items, scores)
    assert table.rows() == [
        ("u", 1, "b", 4.0, None),
        ("u", 2, "c", 3.0, "Carl"),
        ("u", 3, "d", 1.0, "Dora"),
        ("v", 1, "a", 2.0, "Anna"),
        ("v", 2, "b", 0.0, None),
        ("v", 3, "c", 0.0, "Carl"),
    ]


def test_a_list_that_runs_out_of_items_has_fewer_rows():
    recommender = additive(max_length=4)
    read = recommender.read(None, pl.Series([["a", "b", "c"], ["a", "b", "c", "d"]]))
    items, scores = recommender.top(read, 3)
    table = recommender.frame(pl.Series(["u", "v"]), items, scores)
    assert table.select("user", "rank", "item").rows() == [("u", 1, "d")]


def test_who_a_model_of_users_learnt_and_the_popular_items_for_others():
    torch.manual_seed(0)
    trained = torch.arange(50) != 4
    info = replace(toy.info(9, max_length=4), trained_users=trained)  # counts 1, 2, ..., 9
    model = MF(info, dim=3, init_std=1.0, scorer=partial(ItemScorer, bias=True)).eval()
    with torch.no_grad():
        model.scorer.bias.normal_()
    people = pl.Series([f"u{n}" for n in range(50)])
    recommender = Recommender(model, info, pl.Series(range(1, 10)), people)
    # u4 is in the data, and not in training; u0 needs no history to be known.
    asked = pl.Series(["u3", "stranger", "u4", "u0"])
    read = recommender.read(asked, pl.Series([[1], [8], [1], []], dtype=pl.List(pl.Int64)))
    assert recommender.knows(read).tolist() == [True, False, False, True]
    items, scores = recommender.top(read, 9, "keep")
    vectors, bias = model.scorer.weight, model.scorer.bias[:, 0]
    for row, user in ((0, 3), (3, 0)):
        expected = (vectors @ model.users.table.weight[user] + bias).sort(descending=True)
        assert items[row].tolist() == (expected.indices + 1).tolist()
        assert scores[row].tolist() == pytest.approx(expected.values.tolist(), abs=1e-6)
    assert items[1:3].tolist() == scores[1:3].tolist() == [[*range(9, 0, -1)]] * 2
    items, _ = recommender.top(read, 9)
    assert items[1].tolist() == [9, 7, 6, 5, 4, 3, 2, 1, 0]


def test_the_lists_are_those_of_the_evaluation():
    torch.manual_seed(0)
    model = SASRec(toy.info(20), dim=8, dropout=0.5)  # in training: it is switched off and on
    histories = toy.random_histories(30, 20, 12)
    rows = toy.jagged(histories)
    part = HeldOut(
        torch.arange(30),
        torch.zeros(30, dtype=torch.int64),
        rows.values,
        rows.offsets[:-1],
        rows.offsets[1:],
    )
    model.eval()
    with torch.no_grad():
        hidden = model.represent(batch_of(part, 8))
        items, scores = top(hidden, model.scorer.fixed(), part, "filter", 10)
    model.train()
    recommender = Recommender(model, toy.info(20), pl.Series(range(1, 21)), pl.Series(range(50)))
    read = recommender.read(pl.Series(range(30)), pl.Series(histories))
    found_items, found_scores = recommender.top(read, 10)
    assert model.training
    assert torch.equal(found_items, items)
    assert torch.allclose(found_scores, scores, atol=1e-6)
