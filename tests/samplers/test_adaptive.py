from functools import partial

import pytest
import torch

from negrec.samplers.adaptive import TopK
from negrec.samplers.full import Full
from negrec.samplers.in_batch import InBatch
from negrec.samplers.uniform import Uniform
from tests import toy

V = 30
SHARES = ["query", "sequence", "batch"]


def queries_of(n=40):
    return toy.queries(toy.batch(toy.random_histories(n, V, 10), max_length=6))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("at_once", [1 << 22, 50])
def test_the_hardest_valid_items_of_the_pool_are_kept(share, at_once, monkeypatch):
    monkeypatch.setattr("negrec.scoring._SCORES", at_once)
    queries, scorer = queries_of(), toy.scorer(V)
    base = partial(Uniform, k=12, share=share, exclude="window")
    with torch.no_grad():
        kept = TopK(toy.info(V), base, k=3).sample(queries, scorer, toy.step(1))
        pool = base(toy.info(V)).sample(queries, scorer, toy.step(1))  # the same draw
        scores = queries.hidden @ scorer.matrix.T
    n = len(queries.target)
    candidates, valid = pool.of().expand(n, -1), pool.valid(queries)
    for q in range(n):
        own = scores[q, candidates[q][valid[q]] - 1].sort(descending=True).values[:3]
        mine = kept.items[q][kept.present[q]]
        assert torch.equal(scores[q, mine - 1].sort(descending=True).values, own)
    assert torch.equal(kept.valid(queries), kept.present)


def test_of_the_whole_catalogue_it_is_the_k_hardest_items():
    queries, scorer = queries_of(), toy.scorer(V)
    with torch.no_grad():
        kept = TopK(toy.info(V), Full, k=4).sample(queries, scorer, toy.step())
        scores = queries.hidden @ scorer.matrix.T
    scores[torch.arange(len(scores)), queries.target - 1] = -torch.inf
    expected = scores.topk(4, dim=1).indices + 1
    assert torch.equal(kept.items.sort(1).values, expected.sort(1).values)


def test_as_many_as_the_pool_has_is_the_pool():
    queries = queries_of()
    base = partial(Uniform, k=6, exclude="target")
    kept = TopK(toy.info(V), base, k=6).sample(queries, toy.scorer(V), toy.step())
    pool = base(toy.info(V)).sample(queries, toy.scorer(V), toy.step())
    assert torch.equal(kept.items.sort(1).values, pool.items.sort(1).values)


def test_fewer_valid_items_than_k_leave_empty_slots():
    # The batch's targets are 2, 3 and 5; the window of the first sequence rules out 1, 2, 3.
    queries = toy.queries(toy.batch([[1, 2, 3], [4, 5]]))
    kept = TopK(toy.info(V), partial(InBatch, k="all"), k=2).sample(
        queries, toy.scorer(V), toy.step()
    )
    assert kept.present.sum(1).tolist() == [1, 1, 2]
    assert kept.items[0][kept.present[0]].tolist() == [5]
    assert sorted(kept.items[2].tolist()) == [2, 3]


def test_there_is_no_density():
    sampler = TopK(toy.info(V), partial(Uniform, k=6), k=2)
    assert not sampler.has_density
    assert sampler.sample(queries_of(), toy.scorer(V), toy.step()).log_q is None


def test_a_score_that_is_not_a_number_is_no_reason_to_skip():
    queries, scorer = queries_of(), toy.scorer(V)
    with torch.no_grad():
        scorer.weight[5] = torch.nan
    kept = TopK(toy.info(V), partial(Uniform, k=25), k=2).sample(queries, scorer, toy.step())
    assert kept.present.all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"k": 7}, "k must not exceed the pool: k=7, and the pool has 6"),
        ({"base": partial(toy.Labelling, k=6)}, "Labelling cannot be a pool"),
        ({"base": partial(Uniform, k=31)}, "pool: k must not exceed the catalogue: k=31"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TopK(toy.info(V), **{"base": partial(Uniform, k=6), "k": 2, **settings})
