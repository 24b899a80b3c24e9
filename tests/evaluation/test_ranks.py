"""Ranks against a plain sort of every single list."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from negrec.errors import InputError
from negrec.evaluation.ranks import rank, rank_among, sample_unseen, top
from negrec.kernels import native
from negrec.scoring import FixedScorer
from negrec.types import HeldOut
from tests import toy

POLICIES = ["filter", "keep", "zero"]


def held_out(histories, targets):
    """One target after each history; user 0 first."""
    rows = toy.jagged(histories)
    return HeldOut(
        user=torch.arange(len(targets)),
        target=torch.tensor(targets, dtype=torch.int64),
        items=rows.values.long(),
        start=rows.offsets[:-1],
        end=rows.offsets[1:],
    )


def scored(scores):
    """States and a scorer with these scores, (m, V)."""
    scores = torch.as_tensor(scores, dtype=torch.float32)
    return scores, FixedScorer(torch.eye(scores.shape[1]))


def ranking(scores, history, target, seen):
    """The ranking as (score, item), best first, ties by id: the definition, item by item."""
    entries = []
    for item, score in enumerate(scores, 1):
        if seen == "filter" and item in history and item != target:
            continue
        entries.append((0.0 if seen == "zero" and item in history else float(score), item))
    return sorted(entries, key=lambda entry: (-entry[0], entry[1]))


def position(ranked, target, n_items):
    """The items above the target and its ties."""
    if target == 0:
        return n_items, 0
    own = next(score for score, item in ranked if item == target)
    return (
        sum(score > own for score, _ in ranked),
        sum(score == own for score, _ in ranked) - 1,
    )


@st.composite
def problems(draw):
    """Few scores over few items, so that ties, repeats, seen and cold targets are common."""
    n_items = draw(st.integers(1, 9))
    m = draw(st.integers(1, 6))
    item = st.integers(1, n_items)
    return (
        draw(st.lists(st.lists(item, max_size=8), min_size=m, max_size=m)),
        draw(st.lists(st.integers(0, n_items), min_size=m, max_size=m)),
        [[draw(st.integers(-2, 2)) for _ in range(n_items)] for _ in range(m)],
    )


@pytest.fixture(scope="module", params=["compiled", "torch", "tiles"])
def way(request):
    """All ways of computing it; tiles are two columns wide."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "tiles":
            toy.cut_tiles(patch, 2)
        with nullcontext() if request.param == "compiled" else native.plain():
            yield request.param


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("seen", POLICIES)
@settings(deadline=None)
@given(problems(), st.integers(1, 12))
def test_against_a_sort(seen, problem, k):
    histories, targets, scores = problem
    part, (hidden, scorer) = held_out(histories, targets), scored(scores)
    found = rank(hidden, scorer, part, seen)
    items, values = top(hidden, scorer, part, seen, k)
    for i, target in enumerate(targets):
        ranked = ranking(scores[i], histories[i], target, seen)
        expected = position(ranked, target, scorer.n_items)
        assert (int(found.greater[i]), int(found.ties[i])) == expected
        shown = ranked[:k] + [(-torch.inf, 0)] * (k - len(ranked[:k]))
        assert list(zip(values[i].tolist(), items[i].tolist(), strict=True)) == shown


@pytest.mark.parametrize("how", ["compiled", "torch", "tiles"])
@pytest.mark.parametrize("seen", POLICIES)
def test_many_chunks_against_a_sort(seen, how, monkeypatch):
    # 500 states over 9,000 items are several chunks; whole scores tie often.
    if how == "tiles":
        toy.cut_tiles(monkeypatch, 1_000)
    generator = torch.Generator().manual_seed(0)
    m, n_items = 500, 9_000
    hidden = torch.randint(-3, 4, (m, 3), generator=generator).float()
    matrix = torch.randint(-3, 4, (n_items, 3), generator=generator).float()
    histories = toy.random_histories(m, n_items, 9)
    targets = torch.randint(0, n_items + 1, (m,), generator=generator).tolist()
    targets[::5] = [history[0] for history in histories[::5]]  # repeats
    part = held_out(histories, targets)
    scorer = FixedScorer(matrix)
    with nullcontext() if how == "compiled" else native.plain():
        found = rank(hidden, scorer, part, seen)
    items, _ = top(hidden, scorer, part, seen, 7)
    scores = hidden @ matrix.T
    for i in range(0, m, 25):
        ranked = ranking(scores[i].tolist(), histories[i], targets[i], seen)
        expected = position(ranked, targets[i], n_items)
        assert (int(found.greater[i]), int(found.ties[i])) == expected
        assert items[i].tolist() == [item for _, item in ranked[:7]]


def test_by_hand():
    # Items 1..5 score 5, 4, 3, 3, 1; the history is 1, 3; the target 4.
    part, factors = held_out([[1, 3]], [4]), scored([[5, 4, 3, 3, 1]])
    filtered, kept, zeroed = (rank(*factors, part, seen) for seen in POLICIES)
    assert (filtered.greater.item(), filtered.ties.item()) == (1, 0)  # behind 2
    assert (kept.greater.item(), kept.ties.item()) == (2, 1)  # behind 1 and 2, beside 3
    assert (zeroed.greater.item(), zeroed.ties.item()) == (1, 0)
    assert top(*factors, part, "filter", 4)[0].tolist() == [[2, 4, 5, 0]]


def test_a_repeated_target():
    # The target is in the history: still ranked, but "zero" gives it the score 0.
    part, factors = held_out([[2, 2, 1]], [2]), scored([[5, 4, 3, -1]])
    assert rank(*factors, part, "filter").greater.item() == 0
    assert rank(*factors, part, "keep").greater.item() == 1
    zeroed = rank(*factors, part, "zero")
    assert (zeroed.greater.item(), zeroed.ties.item()) == (1, 1)  # behind 3, beside 1


def test_a_target_outside_the_catalogue_is_behind_everything():
    found = rank(*scored([[1, 1, 1]]), held_out([[2]], [0]), "filter")
    assert (found.greater.item(), found.ties.item()) == (3, 0)


def test_a_history_with_items_outside_the_catalogue():
    found = rank(*scored([[1, 2, 3]]), held_out([[0, 2]], [1]), "filter")
    assert found.greater.item() == 1  # item 3: item 2 is seen, item 0 is nobody


def test_no_targets():
    nothing = held_out([[]], [])
    factors = torch.empty(0, 2), FixedScorer(torch.ones(3, 2))
    found = rank(*factors, nothing, "filter")
    assert found.greater.shape == found.ties.shape == (0,)
    assert top(*factors, nothing, "filter", 2)[0].shape == (0, 2)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
@pytest.mark.parametrize("function", [rank, lambda *a: top(*a, 2), rank_among])
def test_scores_that_are_no_numbers(function, bad):
    hidden = torch.tensor([[1.0, 1.0], [1.0, bad]])
    matrix = torch.tensor([[1.0, 1e10], [2.0, 1.0], [0.0, 1.0]])
    part = held_out([[3], [3]], [1, 2])
    last = torch.tensor([[3], [3]]) if function is rank_among else "filter"
    with pytest.raises(InputError, match=r"user 1 \(target 2\) are not finite"):
        function(hidden, FixedScorer(matrix), part, last)


def test_an_item_vector_that_is_no_number():
    part, matrix = held_out([[1]], [2]), torch.tensor([[1.0], [1.0], [torch.nan]])
    with pytest.raises(InputError, match=r"user 0 \(target 2\)"):
        rank(torch.ones(1, 1), FixedScorer(matrix), part, "filter")


def test_among_candidates():
    part, factors = held_out([[], []], [2, 0]), scored([[5, 4, 3, 4], [1, 1, 1, 1]])
    found = rank_among(*factors, part, torch.tensor([[1, 4, 3], [1, 2, 3]]))
    assert found.greater.tolist() == [1, 4]  # a cold target is behind the whole catalogue
    assert found.ties.tolist() == [1, 0]


def test_samples_are_uniform_over_the_unseen():
    part = held_out([[1, 4, 4, 0], [], [2, 3]], [6, 0, 3])
    drawn = sample_unseen(part, 6, 20_000, torch.Generator().manual_seed(0))
    for i, left in enumerate([{2, 3, 5}, {1, 2, 3, 4, 5, 6}, {1, 4, 5, 6}]):
        expected = torch.tensor([item in left for item in range(1, 7)]) / len(left)
        assert toy.chi_square_p(drawn[i] - 1, expected) > 1e-3


def test_nothing_is_left_to_sample():
    part = held_out([[1], [1, 2]], [2, 3])
    with pytest.raises(InputError, match="user 1 has seen all 3 items"):
        sample_unseen(part, 3, 1, torch.Generator())
