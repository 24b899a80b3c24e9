import math
from dataclasses import replace

import pytest
import torch

from negrec.losses.sampled_softmax import SampledSoftmax
from negrec.losses.softmax import Softmax
from negrec.samplers.genni import GenNi, about_half_the_root, subset
from negrec.types import Feedback, Negatives, Queries, Step
from negrec.world import World
from tests import toy

V = 30


def one_query(scale=0.2):
    """A batch with one query, of target 4, and a small state, so that the softmax spreads."""
    queries = toy.queries(toy.batch([[3, 4]]))
    return replace(queries, hidden=scale * queries.hidden)


def belief(queries, scorer, alpha, candidates=None):
    """The definition: softmax(alpha * score) over the candidates without the target, (V,)."""
    score = alpha * (queries.hidden[0].double() @ scorer.matrix.double().T)
    allowed = torch.ones(V, dtype=torch.bool)
    if candidates is not None:
        allowed[:] = False
        allowed[candidates - 1] = True
    allowed[queries.target[0] - 1] = False
    return score.masked_fill(~allowed, -torch.inf).softmax(0)


def many(queries, n):
    """The same query n times."""
    return replace(
        queries,
        hidden=queries.hidden.repeat(n, 1),
        target=queries.target.repeat(n),
        user=queries.user.repeat(n),
        position=queries.position.repeat(n),
        sequence=queries.sequence.repeat(n),
    )


@pytest.mark.parametrize(("alpha", "scale"), [(0.0, 0.2), (2.5, 0.2), (50.0, 0.03), (50.0, 0.2)])
def test_draws_follow_equation_5(alpha, scale):
    queries, scorer = one_query(scale), toy.scorer(V)
    sampler = GenNi(toy.info(V), alpha=alpha, k=4)
    with torch.no_grad():
        drawn = sampler.sample(many(queries, 10_000), scorer, toy.step()).items
        expected = belief(queries, scorer, alpha)
    assert drawn.shape == (10_000, 4)
    assert toy.chi_square_p(drawn - 1, expected) > 1e-4
    if alpha == 0:
        assert expected.max().item() == pytest.approx(1 / (V - 1))  # uniform without the target
    if alpha * scale == 10:
        assert drawn.eq(expected.argmax() + 1).all()  # the argmax, to one part in 10^16


@pytest.mark.parametrize("preselect", ["batch", "sequence"])
def test_draws_follow_equation_6_given_the_preselected_items(preselect):
    queries, scorer = many(one_query(), 20_000), toy.scorer(V)
    sampler = GenNi(toy.info(V), alpha=2.5, beta=0.3, preselect=preselect)
    with torch.no_grad():
        drawn = sampler.sample(queries, scorer, toy.step(5)).items
    candidates = drawn.unique()
    # ceil(0.3 * 30) = 9 candidates; the target may be one of them and is never drawn.
    assert len(candidates) in (8, 9)
    with torch.no_grad():
        expected = belief(one_query(), scorer, 2.5, candidates)
    assert toy.chi_square_p(drawn - 1, expected) > 1e-4


@pytest.mark.parametrize("lead", [8.0, 100.0])
@pytest.mark.parametrize("beta", [1.0, 0.6])
@pytest.mark.parametrize("preselect", ["batch", "sequence"])
def test_a_target_far_in_front_does_not_level_the_others(lead, beta, preselect):
    # exp(-lead * alpha) underflows: the target must not be what the others are measured against.
    queries, scorer = many(one_query(), 20_000), toy.scorer(V)
    state = queries.hidden[0]
    with torch.no_grad():
        best = (scorer.matrix @ state).max()
        scorer.weight[queries.target[0] - 1] = state * (best + lead) / state.square().sum()
    sampler = GenNi(toy.info(V), alpha=50.0, beta=beta, preselect=preselect)
    # With one draw per query and alpha = 50 all but the very best items are as good as impossible.
    with torch.no_grad():
        drawn = sampler.sample(queries, scorer, toy.step(5)).items
        score = scorer.matrix @ state
    score[queries.target[0] - 1] = -torch.inf
    assert score[drawn.flatten() - 1].mean() > score[score.isfinite()].quantile(0.8)


@pytest.mark.parametrize("preselect", ["batch", "sequence"])
def test_preselection_is_uniform(preselect):
    # With alpha = 0 and a fresh V' at each step, all items but the target are equally likely.
    queries, scorer = many(one_query(), 4), toy.scorer(V)
    sampler = GenNi(toy.info(V), alpha=0.0, beta=0.2, preselect=preselect)
    drawn = torch.cat(
        [sampler.sample(queries, scorer, toy.step(seed)).items[:1] for seed in range(4_000)]
    )
    expected = torch.full((V,), 1 / (V - 1))
    expected[queries.target[0] - 1] = 0
    assert toy.chi_square_p(drawn - 1, expected) > 1e-4


@pytest.mark.parametrize("size", [1, 5, 12])
def test_few_of_many_are_distinct_and_uniform(size, monkeypatch):
    # The way of large catalogues, at 50 items: 12 is the most that is drawn by rejection.
    monkeypatch.setattr("negrec.samplers.genni._ORDERED", 10)
    device, found = torch.device("cpu"), []
    for seed in range(4_000):
        chosen = subset(50, size, torch.Generator().manual_seed(seed), device)
        assert chosen.diff().gt(0).all()
        assert len(chosen) == size
        found.append(chosen)
    assert toy.chi_square_p(torch.cat(found), torch.full((50,), 1 / 50)) > 1e-4
    pairs = torch.stack([chosen[:2] for chosen in found]) if size > 1 else None
    if pairs is not None and size == 5:
        # The smallest of 5 out of 50: P(min >= 10) = C(40, 5) / C(50, 5).
        expected = math.comb(40, 5) / math.comb(50, 5)
        assert (pairs[:, 0] >= 10).double().mean().item() == pytest.approx(expected, abs=0.03)


def test_a_preselection_from_a_large_catalogue_is_what_was_asked_for():
    chosen = subset(1_000_000, 100_000, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert len(chosen.unique()) == 100_000
    assert chosen.min() >= 0
    assert chosen.max() < 1_000_000
    assert chosen.double().mean().item() == pytest.approx(500_000, rel=0.01)


def test_sequences_have_candidates_of_their_own():
    histories = toy.random_histories(40, V, 10)
    queries = toy.queries(toy.batch(histories, max_length=20))
    sampler = GenNi(toy.info(V), alpha=0.0, beta=0.1, k=20, preselect="sequence")
    drawn = sampler.sample(queries, toy.scorer(V), toy.step()).items
    sets = [set(drawn[queries.sequence == s].flatten().tolist()) for s in range(40)]
    assert all(len(chosen) <= 3 for chosen in sets)  # ceil(0.1 * 30)
    assert len(set.union(*sets)) == V


def test_chunks_do_not_change_what_is_drawn(monkeypatch):
    histories = toy.random_histories(40, V, 10)
    queries = toy.queries(toy.batch(histories, max_length=20))
    sampler = GenNi(toy.info(V), alpha=50.0, exclude="history")
    with torch.no_grad():
        whole = sampler.sample(queries, toy.scorer(V), toy.step()).items
        toy.cut_tiles(monkeypatch, 7)
        parts = sampler.sample(queries, toy.scorer(V), toy.step()).items
    # At alpha = 50 nearly every draw is the argmax, whatever the random numbers.
    assert (whole == parts).float().mean() > 0.9


@pytest.mark.parametrize("exclude", ["none", "target", "window", "history"])
@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_excluded_items_are_never_drawn(exclude, beta):
    queries = toy.queries(toy.batch(toy.random_histories(40, V, 10), max_length=4))
    sampler = GenNi(toy.info(V), alpha=1.0, beta=beta, k=8, exclude=exclude)
    with torch.no_grad():
        negatives = sampler.sample(queries, toy.scorer(V), toy.step())
    assert Negatives(negatives.items, exclude=exclude).valid(queries).all()


@pytest.mark.parametrize("preselect", ["batch", "sequence"])
def test_a_query_without_candidates_has_no_valid_negative(preselect):
    # ceil(0.01 * 30) = 1 candidate: where it is the target, nothing is left.
    queries = many(one_query(), 3)
    sampler = GenNi(toy.info(V), alpha=1.0, beta=0.01, preselect=preselect)
    drawn, n_empty = [], 0
    for seed in range(600):
        with torch.no_grad():
            negatives = sampler.sample(queries, toy.scorer(V), toy.step(seed))
        empty = negatives.items[0, 0] == queries.target[0]
        n_empty += int(empty)
        assert negatives.valid(queries).all() == (not empty)
        drawn.append(negatives.items[:1])
    assert n_empty > 0
    # No item is favoured for want of a candidate: each is the only one in a 30th of the draws.
    assert toy.chi_square_p(torch.cat(drawn) - 1, torch.full((V,), 1 / V)) > 1e-4


def test_a_share_of_the_catalogue_is_not_rounded_up_by_floating_point():
    # 0.07 * 100 is 7.000000000000001 and 0.55 * 100 is 55.00000000000001.
    for beta, size in ((0.07, 7), (0.55, 55), (0.551, 56)):
        assert GenNi(toy.info(100), alpha=1.0, beta=beta).candidates(0) == size


def test_growing_beta_is_equation_7():
    sampler = GenNi(toy.info(1000), alpha=1.0, grow=10)
    # 0.001 * 10^(E / 10) of 1,000 items: 1, 10, 100 and 1,000 at epochs 0, 10, 20, 30.
    assert [sampler.candidates(epoch) for epoch in (0, 10, 20, 30, 5_000)] == [
        1,
        10,
        100,
        1000,
        1000,
    ]


def test_curriculum_moves_alpha_against_the_loss():
    sampler = GenNi(toy.info(V), 1.0, curriculum=True, alpha_step=0.5, alpha_bounds=(0.0, 2.0))
    queries = one_query()

    def alpha_after(loss):
        sampler.observe(Feedback(queries, Negatives(torch.ones(1, 1)), None, torch.tensor([loss])))
        return sampler.alpha.item()

    # first; fell; fell; fell (at the bound); rose; the same
    assert [alpha_after(x) for x in (3.0, 2.0, 1.0, 0.5, 4.0, 4.0)] == [1, 1.5, 2, 2, 1.5, 1.5]


def test_without_curriculum_alpha_stays():
    sampler = GenNi(toy.info(V), 1.0)
    for loss in (3.0, 1.0):
        sampler.observe(
            Feedback(one_query(), Negatives(torch.ones(1, 1)), None, torch.tensor([loss]))
        )
    assert sampler.alpha.item() == 1


@pytest.mark.parametrize("alpha", [0.0, 2.5])
def test_one_cluster_is_the_exact_draw(alpha):
    # P(c) = 1, and within the cluster of all items the draw is equation 5.
    queries, scorer = one_query(), toy.scorer(V)
    sampler = GenNi(toy.info(V), alpha=alpha, k=4, index="clusters", n_clusters=1)
    with torch.no_grad():
        negatives = sampler.sample(many(queries, 10_000), scorer, toy.step())
        expected = belief(queries, scorer, alpha)
    assert toy.chi_square_p(negatives.items - 1, expected) > 1e-4
    torch.testing.assert_close(negatives.log_q, expected.log().float()[negatives.items - 1])


def test_without_alpha_the_index_is_uniform():
    # All scores are 0: P(c) = n_c / V and 1 / n_c within.
    sampler = GenNi(toy.info(V), 0.0, k=4, index="clusters", n_clusters=4, exclude="none")
    with torch.no_grad():
        negatives = sampler.sample(many(one_query(), 5_000), toy.scorer(V), toy.step())
    torch.testing.assert_close(negatives.log_q, torch.full((5_000, 4), -math.log(V)))
    assert toy.chi_square_p(negatives.items - 1, torch.full((V,), 1 / V)) > 1e-4


def test_the_index_is_near_to_the_exact_draw():
    queries, scorer = one_query(), toy.scorer(V)
    sampler = GenNi(toy.info(V), alpha=2.5, k=4, index="clusters", n_clusters=8)
    with torch.no_grad():
        negatives = sampler.sample(many(queries, 20_000), scorer, toy.step())
        expected = belief(queries, scorer, 2.5)
    found = torch.zeros(V, dtype=torch.double)
    found[negatives.items.flatten() - 1] = negatives.log_q.flatten().double().exp()
    assert found.sum().item() == pytest.approx(1, abs=1e-5)  # all V - 1 items have come
    uniform = torch.full((V,), 1 / (V - 1)).scatter(0, queries.target - 1, 0.0)
    distance, of_uniform = ((q - expected).abs().sum() / 2 for q in (found, uniform))
    assert 1e-3 < distance < of_uniform / 3
    assert toy.chi_square_p(negatives.items - 1, found) > 1e-4


def test_the_index_is_made_at_the_first_step_of_an_epoch():
    queries, scorer = one_query(), toy.scorer(V)
    sampler = GenNi(toy.info(V), alpha=1.0, index="clusters")

    def kept_after(step):
        with torch.no_grad():
            scorer.weight.copy_(torch.roll(scorer.weight, 1, 0))
            negatives = sampler.sample(queries, scorer, step)
        sampler.observe(Feedback(queries, negatives, None, torch.ones(1)))
        return sampler.clusters.members

    first = kept_after(replace(toy.step(), index=3))  # nothing is kept yet
    assert torch.equal(kept_after(replace(toy.step(), index=4)), first)
    second = kept_after(toy.step(epoch=1))
    assert not torch.equal(second, first)
    assert torch.equal(kept_after(replace(toy.step(epoch=1), index=1)), second)


def test_the_curriculum_reaches_the_index():
    sampler = GenNi(toy.info(V), 1.0, curriculum=True, alpha_step=0.5, index="clusters")
    queries = many(one_query(), 2_000)
    for loss in (3.0, 2.0):
        with torch.no_grad():
            negatives = sampler.sample(queries, toy.scorer(V), toy.step())
        sampler.observe(Feedback(queries, negatives, None, torch.tensor([loss])))
    assert sampler.alpha.item() == 1.5
    plain = GenNi(toy.info(V), 1.5, index="clusters")
    with torch.no_grad():
        drawn, expected = (s.sample(queries, toy.scorer(V), toy.step()) for s in (sampler, plain))
    assert torch.equal(drawn.log_q, expected.log_q)


def test_refined_log_q_makes_the_full_softmax_of_one_cluster():
    # With alpha = 1 and one cluster e^s / q is the sum over the catalogue whatever is drawn.
    queries = toy.queries(toy.batch(toy.random_histories(20, V, 8)))
    scorer = toy.scorer(V)
    sampler = GenNi(toy.info(V), alpha=1.0, k=2, index="clusters", n_clusters=1)
    with torch.no_grad():
        negatives = sampler.sample(queries, scorer, toy.step())
        refined = SampledSoftmax(log_q="refined")(queries, negatives, scorer)
        every = Negatives(torch.arange(1, V + 1)[None], exhaustive=True)
        full = Softmax()(queries, every, scorer)
    torch.testing.assert_close(refined.loss, full.loss)


def test_about_half_the_square_root():
    # Halves of roots are 0.5, 0.7, 2.7, 55, 158 and 500: 2^1.45 = 2.7, 2^5.8 = 55, 2^7.3 = 158.
    sizes = {1: 1, 2: 1, 30: 2, 12_101: 64, 100_000: 128, 1_000_000: 512}
    assert {n: about_half_the_root(n) for n in sizes} == sizes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -0.1}, "alpha must be at least 0 and finite, got -0.1"),
        ({"alpha": math.nan}, "alpha must be at least 0"),
        ({"beta": 0.0}, r"beta must be in \(0, 1\], got 0.0"),
        ({"beta": 1.1}, r"beta must be in \(0, 1\], got 1.1"),
        ({"k": 0}, "k must be at least 1"),
        ({"k": 31}, "k=31, and there are 30 items"),
        ({"grow": 0}, "grow must be a positive number"),
        ({"grow": 5, "beta": 0.5}, "contradict"),
        ({"preselect": "user"}, "preselect must be batch or sequence, got 'user'"),
        ({"alpha": 7.0, "curriculum": True}, "curriculum needs"),
        ({"index": "trees"}, "index must be clusters or null, got 'trees'"),
        ({"index": "clusters", "beta": 0.5}, "index=clusters and beta=0.5 contradict"),
        ({"index": "clusters", "grow": 5}, "index=clusters and grow=5 contradict"),
        ({"n_clusters": 8}, "n_clusters=8 needs an index"),
        ({"index": "clusters", "n_clusters": 12}, "n_clusters must be a power of two, got 12"),
        ({"index": "clusters", "n_clusters": 0}, "n_clusters must be a power of two, got 0"),
        ({"index": "clusters", "n_clusters": 32}, "n_clusters=32, and there are 30 items"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GenNi(**{"info": toy.info(V), "alpha": 1.0, **settings})


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_ranks_draw_from_one_preselection_each_by_itself(beta):
    sampler, scorer = GenNi(toy.info(V), alpha=2.5, beta=beta), toy.scorer(V)
    whole = toy.batch([[1, 2]] * 20_000, max_length=1)
    state = one_query().hidden
    drawn = []
    for rank in range(2):
        part = whole.part(World(rank, 2))
        queries = Queries.of(part, state.expand(len(part.items), -1))
        own, shared = (torch.Generator().manual_seed(seed) for seed in (rank, 7))
        with torch.no_grad():
            step = Step(0, 0, own, shared=shared)
            drawn.append(sampler.sample(queries, scorer, step).items.flatten())
    assert [len(of_rank) for of_rank in drawn] == [10_000, 10_000]
    candidates = torch.cat(drawn).unique()
    assert len(candidates) <= math.ceil(beta * V)
    with torch.no_grad():
        query = replace(one_query(), target=torch.tensor([2]))
        expected = belief(query, scorer, 2.5, candidates)
    for of_rank in drawn:
        assert toy.chi_square_p(of_rank - 1, expected) > 1e-4
    # Two ranks that drew the same numbers would agree on every query.
    agree = (drawn[0] == drawn[1]).double().mean().item()
    assert agree == pytest.approx(expected.square().sum().item(), abs=0.02)
