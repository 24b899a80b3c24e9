import pytest
import torch

from negrec.samplers.cross_batch import CrossBatch
from negrec.types import Feedback
from tests import toy

V = 30


def queries_of(*histories):
    return toy.queries(toy.batch(histories))


def observe(sampler, queries):
    negatives = sampler.sample(queries, toy.scorer(V), toy.step())
    sampler.observe(Feedback(queries, negatives, None, torch.ones(len(queries.target))))


def candidates(sampler, queries):
    negatives = sampler.sample(queries, toy.scorer(V), toy.step())
    return sorted(negatives.items[negatives.present].tolist())


def test_the_queue_holds_the_newest_targets_of_earlier_batches():
    sampler = CrossBatch(toy.info(V), size=3, k="all")
    first, second, third = queries_of([1, 2, 3]), queries_of([4, 5, 6]), queries_of([7, 8])
    assert candidates(sampler, first) == [2, 3]  # its own: nothing was before
    observe(sampler, first)
    assert candidates(sampler, second) == [2, 3, 5, 6]
    observe(sampler, second)
    assert candidates(sampler, third) == [3, 5, 6, 8]  # 2 was the oldest of four


def test_a_batch_larger_than_the_queue_fills_it_with_its_newest():
    sampler = CrossBatch(toy.info(V), size=2, k="all")
    observe(sampler, queries_of([1, 2, 3, 4]))
    assert candidates(sampler, queries_of([7, 8])) == [3, 4, 8]


def test_empty_slots_are_no_candidates():
    sampler = CrossBatch(toy.info(V), size=50, k=20)
    queries = queries_of([1, 2], [3, 4])
    negatives = sampler.sample(queries, toy.scorer(V), toy.step())
    assert negatives.items.ge(1).all()
    valid = negatives.valid(queries)
    assert not (valid & ~negatives.present).any()
    assert (~negatives.present).any()


def test_the_density_counts_empty_slots():
    # 4 targets and 12 empty slots: a column is item i with probability q(i) / 4.
    sampler = CrossBatch(toy.info(V), size=12, k="all")
    queries = queries_of([1, 2, 3], [4, 5, 6])
    negatives = sampler.sample(queries, toy.scorer(V), toy.step())
    expected = sampler.log_prob(negatives.items).exp() / 4
    torch.testing.assert_close(negatives.log_q.exp(), expected)
    own = sampler.log_prob(queries.target).exp() / 4
    torch.testing.assert_close(negatives.target_log_q.exp(), own)
    # All weights 1 / (K q) of the present ones: 4 targets stand for the sum over all items.
    observe(sampler, queries_of(*([[1, 2, 3, 4, 5, 6, 7]] * 2)))
    full = sampler.sample(queries, toy.scorer(V), toy.step())
    torch.testing.assert_close(full.log_q, sampler.log_prob(full.items))


def test_bad_size_is_refused():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        CrossBatch(toy.info(V), size=0)
