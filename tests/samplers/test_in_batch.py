from dataclasses import replace

import pytest
import torch

from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from negrec.samplers.in_batch import InBatch
from tests import toy

V = 30


def made(**settings):
    queries = toy.queries(toy.batch(toy.random_histories(40, V, 10), max_length=6))
    return queries, InBatch(toy.info(V), **settings)


def test_all_targets_of_the_batch_for_everybody():
    queries, sampler = made(k="all")
    negatives = sampler.sample(queries, toy.scorer(V), toy.step())
    assert negatives.items.shape == (1, len(queries.target))
    assert negatives.items[0].sort().values.equal(queries.target.sort().values)


@pytest.mark.parametrize("share", ["batch", "sequence"])
def test_positions_are_drawn_without_replacement(share):
    queries, sampler = made(k=50, share=share)
    negatives = sampler.sample(queries, toy.scorer(V), toy.step())
    assert negatives.items.shape == (1 if share == "batch" else 40, 50)
    # No item comes more often than it is a target of the batch.
    there = torch.bincount(queries.target, minlength=V + 1)
    for row in negatives.items:
        assert (torch.bincount(row, minlength=V + 1) <= there).all()
    # Sequences draw for themselves; a few of 40 may begin at the same of some 200 positions.
    assert len(negatives.items.unique(dim=0)) > 0.8 * len(negatives.items)


@pytest.mark.parametrize("share", ["batch", "sequence"])
def test_every_subset_is_equally_likely(share):
    # Two of the 4 targets 2, 3, 5, 6: each of the 6 pairs in a sixth of the draws.
    queries = toy.queries(toy.batch([[1, 2, 3], [4, 5, 6]]))
    sampler = InBatch(toy.info(V), k=2, share=share)
    pairs = torch.cat(
        [sampler.sample(queries, toy.scorer(V), toy.step(seed)).items[-1:] for seed in range(3_000)]
    )
    index = {2: 0, 3: 1, 5: 2, 6: 3}
    number = {(0, 1): 0, (0, 2): 1, (0, 3): 2, (1, 2): 3, (1, 3): 4, (2, 3): 5}
    drawn = torch.tensor([number[tuple(sorted(index[i] for i in p))] for p in pairs.tolist()])
    assert toy.chi_square_p(drawn, torch.full((6,), 1 / 6)) > 1e-4


def test_the_density_is_the_frequency_among_training_targets():
    # First items are nobody's target: 1 never, 2 twice, 3 once.
    sequences = Sequences(toy.jagged([[1, 2], [1, 2, 3]]), 5, NextItem())
    info = sequences.facts(toy.info(3))
    assert info.target_counts.tolist() == [0, 2, 1]
    probability = InBatch(info).log_prob(torch.tensor([1, 2, 3])).exp()
    torch.testing.assert_close(probability, torch.tensor([0, 2 / 3, 1 / 3]))


def test_over_shuffled_batches_items_come_as_often_as_their_density_says():
    sequences = Sequences(toy.jagged(toy.random_histories(60, V, 10)), 6, NextItem())
    info = sequences.facts(toy.info(V))
    sampler, loader = InBatch(info, k=16), Loader(sequences, 12, seed=0)
    # Of batches of unlike sizes a target in a small one is drawn more often: the sizes weigh.
    drawn = torch.zeros(V)
    for epoch in range(400):
        for batch in loader.epoch(epoch):
            negatives = sampler.sample(toy.queries(batch), toy.scorer(V), toy.step(epoch))
            drawn[negatives.items - 1] += len(batch.target)
    expected = sampler.log_prob(torch.arange(1, V + 1)).exp()
    torch.testing.assert_close(drawn / drawn.sum(), expected, atol=0.01, rtol=0)


def test_a_batch_smaller_than_k_gives_all_it_has():
    queries, sampler = made(k=10_000, share="sequence")
    assert sampler.sample(queries, toy.scorer(V), toy.step()).k == len(queries.target)


def test_one_sequence_alone_has_no_valid_negative():
    queries = toy.queries(toy.batch([[1, 2, 3, 4]]))
    negatives = InBatch(toy.info(V)).sample(queries, toy.scorer(V), toy.step())
    assert not negatives.valid(queries).any()


def test_without_target_counts_the_counts_stand_in():
    info = replace(toy.info(3, counts=[1, 0, 3]), target_counts=None)
    probability = InBatch(info).log_prob(torch.tensor([1, 2, 3])).exp()
    torch.testing.assert_close(probability, torch.tensor([0.25, 0, 0.75]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k must be at least 1 or all, got 0"),
        ({"k": "some"}, "k must be at least 1 or all, got 'some'"),
        ({"share": "query"}, "share must be batch or sequence, got 'query'"),
        ({"share": "sequence", "k": "all"}, "use share=batch"),
        ({"exclude": "user"}, "exclude must be one of"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        InBatch(toy.info(V), **settings)
