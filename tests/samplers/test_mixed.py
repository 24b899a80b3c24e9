from functools import partial

import pytest
import torch

from negrec.samplers.cross_batch import CrossBatch
from negrec.samplers.full import Full
from negrec.samplers.genni import GenNi
from negrec.samplers.in_batch import InBatch
from negrec.samplers.mixed import Mixture
from negrec.samplers.popularity import Popularity
from negrec.samplers.uniform import Uniform
from negrec.types import Feedback
from tests import toy

V = 30
SHARES = ["query", "sequence", "batch"]


def mixture(**parts):
    return Mixture(toy.info(V), parts)


def drawn(sampler, seed=0):
    queries = toy.queries(toy.batch(toy.random_histories(40, V, 10), max_length=6))
    return queries, sampler.sample(queries, toy.scorer(V), toy.step(seed))


@pytest.mark.parametrize("first", SHARES)
@pytest.mark.parametrize("second", SHARES)
def test_columns_stand_side_by_side_in_the_finer_rows(first, second):
    # Popularity draws nothing but the items 29 and 30, uniform all.
    info = toy.info(V, counts=[0] * 28 + [1, 1])
    sampler = Mixture(
        info,
        {
            "rare": partial(Popularity, gamma=1.0, k=3, share=first, exclude="none"),
            "all": partial(Uniform, k=4, share=second, exclude="none"),
        },
    )
    queries, negatives = drawn(sampler)
    rows = {"query": len(queries.target), "sequence": 40, "batch": 1}
    assert negatives.items.shape == (max(rows[first], rows[second]), 7)
    by_query = negatives.of().expand(len(queries.target), -1)
    assert (by_query[:, :3] >= 29).all()
    assert (by_query[:, 3:] < 29).any()
    # Who shares a draw has the same columns.
    for columns, share in ((by_query[:, :3], first), (by_query[:, 3:], second)):
        if share == "sequence":
            assert all(len(columns[queries.sequence == s].unique(dim=0)) == 1 for s in range(40))
        if share == "batch":
            assert len(columns.unique(dim=0)) == 1


def test_each_part_keeps_its_own_exclusion():
    sampler = mixture(
        free=partial(Uniform, k=30, share="batch", exclude="none"),
        strict=partial(InBatch, k="all", exclude="window"),
    )
    queries, negatives = drawn(sampler)
    valid = negatives.valid(queries)
    assert valid[:, :30].all()
    items = negatives.of().expand(len(queries.target), -1)
    index = torch.arange(len(items))[:, None].expand_as(items)
    hit = queries.excluded.contains(items, index, "window")
    assert torch.equal(valid[:, 30:], ~hit[:, 30:])
    assert hit[:, 30:].any()


def test_hand_computed_density():
    # 1 of 4 columns from q = (3/4, 1/4, 0), 3 of 4 uniform over 3: item 1 has
    # 3/16 + 1/4 = 7/16, item 2 1/16 + 1/4 = 5/16, item 3 1/4.
    info = toy.info(3, counts=[3, 1, 0])
    sampler = Mixture(
        info,
        {
            "popular": partial(Popularity, gamma=1.0, k=1, share="batch"),
            "uniform": partial(Uniform, k=3, share="batch"),
        },
    )
    probability = sampler.log_prob(torch.tensor([1, 2, 3])).exp()
    torch.testing.assert_close(probability, torch.tensor([7 / 16, 5 / 16, 4 / 16]))


def test_a_draw_per_query_has_the_density_it_was_redrawn_from():
    # Target 2 excluded: the popular part is certain of item 1; uniform has halves left.
    # Item 1: (1 + 1/2) / 2 = 3/4; item 3: (0 + 1/2) / 2 = 1/4.
    info = toy.info(3, counts=[3, 1, 0])
    sampler = Mixture(
        info,
        {
            "popular": partial(Popularity, gamma=1.0, k=2),
            "uniform": partial(Uniform, k=2),
        },
    )
    queries = toy.queries(toy.batch([[1, 2]]))
    negatives = sampler.sample(queries, toy.scorer(3), toy.step())
    expected = torch.where(negatives.items == 1, 3 / 4, 1 / 4)
    torch.testing.assert_close(negatives.log_q.exp(), expected)
    assert negatives.items.unique().tolist() == [1, 3]


def test_without_a_density_of_each_part_there_is_none():
    sampler = mixture(hard=partial(GenNi, alpha=1.0), uniform=partial(Uniform, k=2))
    assert not sampler.has_density
    assert drawn(sampler)[1].log_q is None


def test_a_part_whose_size_is_the_batch_s_has_a_density_batch_by_batch_only():
    sampler = mixture(
        all=partial(InBatch, k="all", exclude="target"),
        uniform=partial(Uniform, k=2, share="batch"),
    )
    assert sampler.k is None
    assert not sampler.has_density
    queries, negatives = drawn(sampler)
    n = len(queries.target)
    own, uniform = sampler.parts
    items = negatives.items
    expected = (n * own.log_prob(items).exp() + 2 * uniform.log_prob(items).exp()) / (n + 2)
    torch.testing.assert_close(negatives.log_q.exp(), expected)


def test_parts_that_exclude_unlike_items_have_no_density_in_common():
    sampler = mixture(
        one=partial(Uniform, k=2, share="batch", exclude="target"),
        other=partial(Uniform, k=2, share="batch", exclude="window"),
    )
    assert not sampler.has_density
    assert drawn(sampler)[1].log_q is None


def test_a_mixture_may_be_a_part():
    # Redrawn without target 2: item 1 has (1 + 1/2) / 2 = 3/4 in the mixture, 1/2 outside of it.
    info = toy.info(3, counts=[3, 1, 0])
    inner = partial(
        Mixture,
        parts={"popular": partial(Popularity, gamma=1.0, k=1), "uniform": partial(Uniform, k=1)},
    )
    sampler = Mixture(info, {"inner": inner, "uniform": partial(Uniform, k=2)})
    queries = toy.queries(toy.batch([[1, 2]]))
    negatives = sampler.sample(queries, toy.scorer(3), toy.step())
    expected = torch.where(negatives.items == 1, 5 / 8, 3 / 8)
    torch.testing.assert_close(negatives.log_q.exp(), expected)


def test_empty_slots_of_a_part_stay_empty():
    sampler = mixture(queue=partial(CrossBatch, size=200), uniform=partial(Uniform, k=2))
    queries, negatives = drawn(sampler)
    assert (~negatives.present).any()
    assert negatives.present[:, -2:].all()
    assert not (negatives.valid(queries) & ~negatives.of(negatives.present)).any()


def test_parts_learn_from_what_was_seen():
    sampler = mixture(queue=partial(CrossBatch, size=4), uniform=partial(Uniform, k=2))
    queries, negatives = drawn(sampler)
    sampler.observe(Feedback(queries, negatives, None, torch.ones(len(queries.target))))
    assert sampler.parts[0].queue.tolist() == queries.target[-4:].tolist()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "at least one sampler"),
        ({"uniform": partial(Uniform, k=0)}, "parts.uniform: k must be at least 1, got 0"),
        ({"all": Full}, "parts.all: Full cannot be one part of several"),
        (
            {"odd": partial(toy.Labelling, k=2)},
            "parts.odd: Labelling cannot be one part of several",
        ),
    ],
)
def test_bad_parts_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        Mixture(toy.info(V), parts)
