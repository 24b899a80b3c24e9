import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from negrec.contracts.samplers import forbidden
from negrec.kernels.native import plain
from negrec.samplers import clusters
from negrec.samplers.clusters import Clusters, Grouping
from negrec.scoring import ItemScorer
from tests import toy

V = 30
ALPHA = torch.tensor(1.5)


def some_queries(longest=8):
    queries = toy.queries(toy.batch(toy.random_histories(40, V, longest), max_length=longest))
    return replace(queries, hidden=0.5 * queries.hidden)


def drawn(index, grouping, queries, scorer, exclude="none", k=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return index.draw(grouping, queries, scorer, ALPHA, exclude, k, generator)


def grouped(scorer, n_clusters):
    with torch.no_grad():
        return Grouping.of(scorer, n_clusters)


def parts_by_cluster(grouping):
    """The parts of each cluster: ids, centre and spread."""
    ids = grouping.members[grouping.members > 0]
    n, per_cluster = len(grouping.centre), len(grouping.centre) // len(grouping.members)
    stretches = [ids[j * len(ids) // n : (j + 1) * len(ids) // n] for j in range(n)]
    parts = [*zip(stretches, grouping.centre, grouping.spread.double(), strict=True)]
    return [parts[j : j + per_cluster] for j in range(0, n, per_cluster)]


def density(grouping, queries, scorer, exclude):
    """The definition, query by query and cluster by cluster, (N, V)."""
    out = forbidden(queries, exclude, V)
    q = torch.zeros(len(queries.target), V, dtype=torch.double)
    for n, state in enumerate(ALPHA.double() * queries.hidden.double()):
        score = scorer.matrix.detach().double() @ state
        share = []
        for ids, own in zip(grouping.members, parts_by_cluster(grouping), strict=True):
            ids = ids[ids > 0]
            allowed = ids[~out[n, ids]]
            estimate = sum(
                len(part) * (centre.double() @ state + state.square().sum() * spread / 2).exp()
                for part, centre, spread in own
            )
            share.append(estimate if len(allowed) else torch.tensor(0.0))
            q[n, allowed - 1] = share[-1] * score[allowed - 1].softmax(0)
        q[n] /= sum(share)
    return q


# ---- groups


@pytest.mark.parametrize("n_items", [30, 32, 33, 1])
@pytest.mark.parametrize("n_clusters", [1, 2, 4, 16])
def test_every_item_has_one_place_and_clusters_are_of_one_size(n_items, n_clusters):
    if n_clusters > n_items:
        pytest.skip("more clusters than items")
    grouping = grouped(toy.scorer(n_items), n_clusters)
    ids = grouping.members[grouping.members > 0]
    assert ids.sort().values.tolist() == list(range(1, n_items + 1))
    sizes = (grouping.members > 0).sum(1)
    assert sizes.max() == grouping.members.shape[1] == -(-n_items // n_clusters)
    assert sizes.min() == n_items // n_clusters
    assert torch.equal(grouping.members.flatten()[grouping.slot], torch.arange(1, n_items + 1))


def test_the_first_cut_is_across_the_principal_axis():
    scorer = toy.scorer(100, dim=6)
    with torch.no_grad():
        scorer.weight.mul_(torch.tensor([1.0, 1.2, 2.2, 1.1, 0.9, 1.0]))
        turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0))).Q
        scorer.weight.copy_(scorer.weight @ turn)
    matrix = scorer.matrix.detach().double().numpy()
    centred = matrix - matrix.mean(0)
    along = centred @ np.linalg.svd(centred)[2][0]
    halves = {
        frozenset((np.argsort(along)[part] + 1).tolist()) for part in (np.s_[:50], np.s_[50:])
    }
    assert {frozenset(ids.tolist()) for ids in grouped(scorer, 2).members} == halves


def test_planted_groups_are_found():
    # Sixteen items around each corner of a box with sides 32, 16 and 8 in a space of five.
    corners = torch.cartesian_prod(*(torch.tensor([-x, x]) for x in (16.0, 8.0, 4.0)))
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(8).repeat(16)[torch.randperm(128, generator=generator)]
    scorer = ItemScorer(128, 5)
    noise = torch.randn(128, 5, generator=generator)
    with torch.no_grad():
        scorer.weight.copy_(torch.cat([corners[group], torch.zeros(128, 2)], 1) + 0.1 * noise)
    members = grouped(scorer, 8).members
    assert all(len(group[ids - 1].unique()) == 1 for ids in members)


def test_a_sample_of_a_cluster_tells_its_axis(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    scorer = ItemScorer(4_000, 5)
    with torch.no_grad():
        scorer.weight.copy_(torch.randn(4_000, 5, generator=generator))
        scorer.weight[:, 3] *= 10
        scorer.weight[:100, 0] *= 20  # who looks at the first few alone is misled
        scorer.weight[:100, 3] = 0
    monkeypatch.setattr(clusters, "_SAMPLE", 40)
    low, high = grouped(scorer, 2).members
    between = scorer.weight[high - 1, 3].mean() - scorer.weight[low - 1, 3].mean()
    # Halves of a normal of standard deviation 10 lie 2 * 0.798 * 10 = 16 apart.
    assert abs(between.item()) == pytest.approx(16, abs=0.5)


def test_moments_are_means_and_mean_variances():
    # Clusters of 7 and 8 items have four parts each, of 1 and 2 items.
    parts = [part for own in parts_by_cluster(grouped(toy.scorer(V), 4)) for part in own]
    assert [len(ids) for ids, _, _ in parts].count(2) == 14
    assert len(parts) == 16
    for ids, centre, spread in parts:
        vectors = toy.scorer(V).matrix[ids - 1].detach()
        torch.testing.assert_close(centre, vectors.mean(0))
        torch.testing.assert_close(spread.float(), vectors.var(0, unbiased=False).mean())


@pytest.mark.parametrize(
    ("n_items", "n_clusters", "parts"), [(30, 4, 4), (30, 16, 1), (600, 4, 16)]
)
def test_no_part_is_empty(n_items, n_clusters, parts):
    grouping = grouped(toy.scorer(n_items), n_clusters)
    assert len(grouping.centre) == n_clusters * parts
    assert all(len(ids) for own in parts_by_cluster(grouping) for ids, _, _ in own)


def test_pieces_do_not_change_the_groups(monkeypatch):
    whole = grouped(toy.scorer(V), 8)
    monkeypatch.setattr(clusters, "_NUMBERS", 1)
    parts = grouped(toy.scorer(V), 8)
    assert torch.equal(whole.members, parts.members)
    torch.testing.assert_close(whole.centre, parts.centre)
    torch.testing.assert_close(whole.spread, parts.spread)


def test_items_that_are_all_alike_are_cut_too():
    scorer = toy.scorer(V)
    with torch.no_grad():
        scorer.weight.fill_(0.5)
    grouping = grouped(scorer, 8)
    assert (grouping.members > 0).sum() == V
    assert grouping.spread.abs().max() < 1e-12
    _, log_q = drawn(Clusters(V, 8), grouping, some_queries(), scorer)
    torch.testing.assert_close(log_q, torch.full_like(log_q, -math.log(V)))


# ---- draws


@pytest.mark.parametrize("exclude", ["none", "target", "window"])
@pytest.mark.parametrize("n_clusters", [1, 2, 4, 16])
def test_log_q_is_the_definition(n_clusters, exclude):
    queries, scorer = some_queries(), toy.scorer(V)
    grouping = grouped(scorer, n_clusters)
    with torch.no_grad():  # the model learns, and the groups stay
        scorer.weight.mul_(1.5).add_(0.1)
    items, log_q = drawn(Clusters(V, n_clusters), grouping, queries, scorer, exclude, k=5)
    q = density(grouping, queries, scorer, exclude)
    torch.testing.assert_close(q.sum(1), torch.ones(len(q), dtype=torch.double))
    torch.testing.assert_close(log_q.double().exp(), q.gather(1, items - 1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("exclude", ["none", "window"])
def test_draws_follow_log_q(exclude):
    queries, scorer = some_queries(), toy.scorer(V)
    grouping, index = grouped(scorer, 4), Clusters(V, 4)
    q = density(grouping, queries, scorer, exclude)
    for n in (0, 25):
        same = queries.select(torch.full((10_000,), n))
        items, _ = drawn(index, grouping, same, scorer, exclude, k=3, seed=n)
        assert toy.chi_square_p(items - 1, q[n]) > 1e-4


def test_a_cluster_of_which_nothing_is_left_is_not_drawn():
    # With sixteen clusters of one or two items most windows hold a whole one.
    queries, scorer = some_queries(12), toy.scorer(V)
    grouping = grouped(scorer, 16)
    out = forbidden(queries, "window", V)
    whole = torch.stack([out[:, ids[ids > 0]].all(1) for ids in grouping.members], 1)
    assert whole.any(1).float().mean() > 0.5
    items, log_q = drawn(Clusters(V, 16), grouping, queries, scorer, "window", k=50)
    assert not out.gather(1, items).any()
    assert log_q.isfinite().all()


def test_a_query_that_may_be_given_nothing_is_given_anything():
    queries = toy.queries(toy.batch([[*range(1, V + 1)], [3, 4, 5]], max_length=V))
    scorer = toy.scorer(V)
    items, log_q = drawn(Clusters(V, 4), grouped(scorer, 4), queries, scorer, "window", k=3)
    assert items.min() >= 1
    assert items.max() <= V
    assert log_q.isfinite().all()
    assert not torch.isin(items[-2:], torch.tensor([3, 4, 5])).any()  # the others as ever


def test_single_items_as_clusters_are_the_softmax():
    queries, scorer = some_queries(), toy.scorer(32)
    items, log_q = drawn(Clusters(32, 32), grouped(scorer, 32), queries, scorer, k=4)
    expected = (ALPHA * queries.hidden @ scorer.matrix.detach().T).log_softmax(1)
    torch.testing.assert_close(log_q, expected.gather(1, items - 1))


@pytest.mark.parametrize("exclude", ["none", "window"])
def test_pieces_do_not_change_the_draws(monkeypatch, exclude):
    queries, scorer = some_queries(), toy.scorer(V)
    grouping, index = grouped(scorer, 4), Clusters(V, 4)
    whole = drawn(index, grouping, queries, scorer, exclude, k=3)
    monkeypatch.setattr(clusters, "queries_at_once", lambda *_: 7)
    parts = drawn(index, grouping, queries, scorer, exclude, k=3)
    assert torch.equal(whole[0], parts[0])
    torch.testing.assert_close(whole[1], parts[1])


def test_the_draws_of_a_query_are_independent():
    queries, scorer = some_queries().select(torch.zeros(20_000, dtype=torch.int64)), toy.scorer(V)
    grouping = grouped(scorer, 4)
    items, _ = drawn(Clusters(V, 4), grouping, queries, scorer, k=2)
    q = density(grouping, queries.select(slice(0, 1)), scorer, "none")[0]
    pairs = (items[:, 0] - 1) * V + items[:, 1] - 1
    assert toy.chi_square_p(pairs, torch.outer(q, q).flatten()) > 1e-4


def test_a_cosine_with_biases_is_a_dot_product_of_one_column_more():
    scorer = ItemScorer(V, 4, similarity="cosine", bias=True, temperature=0.5)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        scorer.weight.copy_(torch.randn(V, 4, generator=generator))
        scorer.bias.copy_(torch.randn(V, 1, generator=generator))
    plain = some_queries()
    queries = replace(plain, hidden=scorer.query(plain.hidden))
    grouping = grouped(scorer, 4)
    items, log_q = drawn(Clusters(V, 4), grouping, queries, scorer, k=3)
    q = density(grouping, queries, scorer, "none")
    torch.testing.assert_close(log_q.double().exp(), q.gather(1, items - 1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("where", ["states", "items"])
def test_scores_that_are_no_numbers_fail_later_in_the_loss(where, native):
    queries, scorer = some_queries(), toy.scorer(V)
    grouping = grouped(scorer, 4)
    if where == "states":
        queries.hidden[3:6] = math.nan
    else:
        with torch.no_grad():
            scorer.weight.fill_(math.nan)
    with nullcontext() if native else plain():
        items, log_q = drawn(Clusters(V, 4), grouping, queries, scorer, "window", k=2)
    assert items.min() >= 1
    assert items.max() <= V
    broken = log_q.isnan().all(1)
    assert broken.sum() == (3 if where == "states" else len(items))


# ---- state


def test_parts_are_looked_at_again_in_turns(monkeypatch):
    monkeypatch.setattr(clusters, "_REFRESHED", 10)  # of 30 items: three turns
    scorer, index = toy.scorer(V), Clusters(V, 4)
    with torch.no_grad():
        index.keep(index.grouping(scorer, 0))
        before = index.centre.clone()
        scorer.weight.mul_(2)
        expected = Grouping.of(scorer, 4)
        for turn in (1, 2, 3):
            index.keep(index.grouping(scorer, turn))
            # Sixteen parts: 5 to 9, then 10 to 15, then 0 to 4.
            new = {1: range(5, 10), 2: range(5, 16), 3: range(16)}[turn]
            for j in range(16):
                torch.testing.assert_close(index.centre[j], before[j] * (2 if j in new else 1))
    torch.testing.assert_close(index.centre, expected.centre)
    torch.testing.assert_close(index.spread, expected.spread)


@pytest.mark.parametrize(("n_items", "n_clusters"), [(30, 4), (601, 8), (64, 2)])
def test_a_second_look_is_like_the_first(n_items, n_clusters):
    scorer, index = toy.scorer(n_items), Clusters(n_items, n_clusters)
    with torch.no_grad():
        first = index.grouping(scorer, 0)
        index.keep(first)
        again = index.grouping(scorer, 1)
    assert torch.equal(again.members, first.members)
    assert torch.equal(again.centre, first.centre)
    assert torch.equal(again.spread, first.spread)


def test_what_is_kept_is_drawn_from_after_a_round_trip():
    queries, scorer = some_queries(), toy.scorer(V)
    index, twin = Clusters(V, 4), Clusters(V, 4)
    with torch.no_grad():
        index.keep(index.grouping(scorer, 5))  # there is none yet
        twin.load_state_dict(index.state_dict())
        scorer.weight.copy_(torch.roll(scorer.weight, 1, 0))
        kept, loaded = (x.grouping(scorer, 6) for x in (index, twin))
        fresh = twin.grouping(scorer, 0)
    assert torch.equal(kept.members, loaded.members)
    assert torch.equal(kept.centre, loaded.centre)
    assert not torch.equal(fresh.members, kept.members)
    one, other = (drawn(x, g, queries, scorer) for x, g in ((index, kept), (twin, loaded)))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    twin.load_state_dict(Clusters(V, 4).state_dict())  # of a run that has not begun
    assert twin.centre.shape == (16, 0)
