from contextlib import nullcontext

import pytest
import torch

from negrec import scoring
from negrec.kernels import candidates, native
from negrec.scoring import ItemScorer
from tests import toy

WAYS = ("compiled", "products", "gathered")
NEEDS_COMPILER = pytest.mark.skipif(not native.available(), reason="no C++ compiler here")


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Each way to compute the same."""
    if request.param == "compiled" and not native.available():
        pytest.skip("no C++ compiler here")
    monkeypatch.setattr(candidates, "_GATHERED", 0 if request.param == "gathered" else 10**9)
    with nullcontext() if request.param == "compiled" else native.plain():
        yield request.param


def made(n, k, dim, u, rows=None, dtype=torch.float32):
    """Queries, vectors, indices with repeats, and rows for some queries each."""
    generator = torch.Generator().manual_seed(n + k + dim + u)
    hidden = torch.randn(n, dim, generator=generator, dtype=dtype) / 2
    vectors = torch.randn(u, dim, generator=generator, dtype=dtype) / 2
    index = torch.randint(u, (n if rows is None else rows, k), generator=generator)
    row = None
    if rows is not None:
        row = torch.randint(rows, (n,), generator=generator).sort().values
    return hidden.requires_grad_(), vectors.requires_grad_(), index, row


def with_gradients(scores, hidden, vectors):
    slope = torch.randn(
        scores.shape, generator=torch.Generator().manual_seed(0), dtype=scores.dtype
    )
    return scores, *torch.autograd.grad(scores, (hidden, vectors), slope)


def plainly(hidden, vectors, index, row):
    """The same out of vectors (N, K, D)."""
    each = vectors[index if row is None else index[row]]
    return torch.einsum("nd,nkd->nk", hidden, each)


@pytest.mark.parametrize("rows", [None, 5])
@pytest.mark.parametrize(
    ("n", "k", "dim", "u"),
    [
        (40, 7, 16, 30),
        (33, 9, 50, 4),  # many repeats, and a width that is no multiple of 16
        (20, 1, 64, 300),
        (3, 300, 129, 11),
        (17, 5, 272, 1),  # candidates of one row only; more registers than are kept at once
        (1, 4, 1, 2),
    ],
)
def test_scores_and_gradients_are_those_of_gathered_vectors(way, n, k, dim, u, rows, monkeypatch):
    monkeypatch.setattr(candidates, "_CELLS", 2 * max(u, k * dim))  # several chunks
    case = made(n, k, dim, u, rows)
    found = with_gradients(candidates.scores(*case), *case[:2])
    expected = with_gradients(plainly(*case), *case[:2])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_by_hand(way):
    hidden = torch.tensor([[1.0, 2.0], [0.0, -1.0]], requires_grad=True)
    vectors = torch.tensor([[3.0, 1.0], [2.0, 5.0]], requires_grad=True)
    scores = candidates.scores(hidden, vectors, torch.tensor([[0, 1, 0], [1, 1, 0]]))
    assert scores.tolist() == [[5, 12, 5], [-5, -5, -1]]
    scores.backward(torch.tensor([[1.0, 10.0, 100.0], [1.0, 10.0, 100.0]]))
    assert hidden.grad.tolist() == [[101 * 3 + 20, 101 + 50], [22 + 300, 55 + 100]]
    # Item 0: 101 h_1 + 100 h_2; item 1: 10 h_1 + 11 h_2.
    assert vectors.grad.tolist() == [[101, 102], [10, 9]]


def test_none_at_all(way):
    for n, k, u in ((0, 3, 5), (4, 0, 5), (0, 3, 0)):
        case = made(n, k, 16, max(u, 1))
        case = (case[0], case[1][:u].detach().requires_grad_(), *case[2:])
        scores, of_hidden, of_vectors = with_gradients(candidates.scores(*case), *case[:2])
        assert scores.shape == (n, k)
        assert of_hidden.eq(0).all()
        assert of_vectors.shape == (u, 16)
        assert of_vectors.eq(0).all()


def test_states_that_lie_apart_in_memory(way):
    hidden, vectors, index, _ = made(12, 5, 34, 9)
    apart = hidden[:, ::2], vectors.detach()[:, ::2].requires_grad_()
    expected = with_gradients(plainly(*apart, index, None), *apart)
    for a, b in zip(
        with_gradients(candidates.scores(*apart, index), *apart), expected, strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wanted", [0, 1])
def test_only_the_gradients_that_are_wanted(way, wanted):
    case = made(10, 4, 16, 6)
    expected = with_gradients(candidates.scores(*case), *case[:2])[1 + wanted]
    case[1 - wanted].requires_grad_(False)
    scores = candidates.scores(*case)
    slope = torch.randn(scores.shape, generator=torch.Generator().manual_seed(0))
    scores.backward(slope)
    assert torch.equal(case[wanted].grad, expected)
    assert case[1 - wanted].grad is None


@pytest.mark.parametrize("bad", [-1, 6])
def test_an_index_that_is_no_row_is_refused(way, bad):
    hidden, vectors, index, _ = made(10, 5, 16, 6)
    index[7, 4] = bad
    if way == "gathered" and bad < 0:
        pytest.skip("PyTorch counts it from the end")
    with pytest.raises((IndexError, RuntimeError)):
        candidates.scores(hidden, vectors, index)


@pytest.mark.parametrize("limit", [0, 10**9])
def test_gradients_are_those_of_differences(limit, monkeypatch):
    monkeypatch.setattr(candidates, "_GATHERED", limit)
    hidden, vectors, index, row = made(6, 4, 3, 5, 2, torch.double)
    assert torch.autograd.gradcheck(
        lambda h, v: candidates.scores(h, v, index, row), (hidden, vectors)
    )
    index = index[row]
    assert torch.autograd.gradcheck(lambda h, v: candidates.scores(h, v, index), (hidden, vectors))


@NEEDS_COMPILER
@pytest.mark.parametrize("dim", [32, 64, 272])
def test_bits_do_not_depend_on_the_number_of_threads(dim):
    case = made(700, 60, dim, 90)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 7, 40):
            torch.set_num_threads(threads)
            found.append(with_gradients(candidates.scores(*case), *case[:2]))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_the_products_are_taken_where_they_are_cheaper():
    index = torch.zeros(4, 256, dtype=torch.int64)
    assert candidates._few(torch.empty(3_416, 1), index)  # ML-1M
    assert not candidates._few(torch.empty(100_000, 1), index)


@pytest.mark.parametrize("share", ["query", "sequence"])
@pytest.mark.parametrize("k", [1, 30])
@pytest.mark.parametrize(
    "limits", [{}, {"_GATHERED": 0}, {"_TABLE": 0}, {"_TABLE": 0, "_GATHERED": 0}]
)
def test_a_scorer_scores_alike_with_and_without_a_compiler(share, k, limits, monkeypatch):
    for name, value in limits.items():
        monkeypatch.setattr(scoring, name, value)
    queries = toy.queries(toy.batch(toy.random_histories(9, 40, 8)), dim=6)
    rows = len(queries.target) if share == "query" else 9
    items = torch.randint(1, 41, (rows, k), generator=torch.Generator().manual_seed(1))
    row = None if share == "query" else queries.sequence
    hidden = queries.hidden.requires_grad_()

    def run():
        scorer = toy.scorer(40, dim=6)
        scores = scorer(hidden, items, row)
        return with_gradients(scores, hidden, scorer.weight)

    with native.plain():
        expected = run()
    reference = with_gradients(
        *(lambda w: (plainly(hidden, w, items - 1, row), hidden, w))(toy.scorer(40, dim=6).weight)
    )
    for a, b, c in zip(run(), expected, reference, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(a, c, atol=1e-5, rtol=1e-5)


@NEEDS_COMPILER
@pytest.mark.parametrize("dim", [6, 64, 129])
@pytest.mark.parametrize("k", [1, 4, 7])
def test_a_candidate_that_is_the_target_ties_with_it(k, dim):
    queries = toy.queries(toy.batch(toy.random_histories(30, 40, 8)), dim=dim)
    scorer = toy.scorer(40, dim=dim)
    scores = scorer.target(queries.hidden, queries.target)
    items = queries.target[:, None].expand(-1, k)
    assert torch.equal(scorer(queries.hidden, items), scores[:, None].expand(-1, k))
    both = scorer.with_target(queries.hidden, queries.target, items)
    assert torch.equal(both[0], scores)
    assert torch.equal(both[1], scores[:, None].expand(-1, k))
    expected = (queries.hidden * scorer.weight[queries.target - 1]).sum(1)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [None, 5])
@pytest.mark.parametrize(("n", "k", "dim", "u"), [(40, 7, 16, 30), (33, 1, 50, 4), (9, 6, 272, 3)])
def test_the_target_beside_the_candidates(way, n, k, dim, u, rows):
    hidden, vectors, index, row = made(n, k, dim, u, rows)
    target = torch.randint(u, (n,), generator=torch.Generator().manual_seed(5))
    both = torch.cat([target[:, None], index if row is None else index[row]], 1)
    expected = with_gradients(plainly(hidden, vectors, both, None), hidden, vectors)
    positive, negative = candidates.with_target(hidden, vectors, target, index, row)
    found = with_gradients(torch.cat([positive[:, None], negative], 1), hidden, vectors)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    positive, _ = candidates.with_target(hidden, vectors, target, index, row)
    own = with_gradients(positive, hidden, vectors)
    alone = with_gradients(plainly(hidden, vectors, target[:, None], None)[:, 0], hidden, vectors)
    for a, b in zip(own, alone, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@NEEDS_COMPILER
def test_a_target_that_is_no_row_is_refused():
    hidden, vectors, index, _ = made(10, 5, 16, 6)
    with pytest.raises(IndexError, match="1 candidates are none of the 6 vectors"):
        candidates.with_target(hidden, vectors, torch.tensor([0] * 9 + [6]), index)


@pytest.mark.parametrize("share", ["query", "sequence", "batch"])
@pytest.mark.parametrize("limits", [{}, {"_GATHERED": 0, "_TABLE": 0}, {"_TABLE": 0}])
def test_target_and_candidates_in_one_go_or_apart(share, limits, monkeypatch):
    for name, value in limits.items():
        monkeypatch.setattr(scoring, name, value)
    queries = toy.queries(toy.batch(toy.random_histories(9, 40, 8)), dim=6)
    rows = {"query": len(queries.target), "sequence": 9, "batch": 1}[share]
    items = torch.randint(1, 41, (rows, 3), generator=torch.Generator().manual_seed(1))
    row = queries.sequence if share == "sequence" else None
    hidden = queries.hidden.requires_grad_()

    class Otherwise(ItemScorer):
        """A scorer that scores in its own way is asked in that way."""

        def target(self, hidden, target):
            return super().target(hidden, target) + 1

    def run(kind, apart):
        scorer = kind(40, 6)
        scorer.load_state_dict(toy.scorer(40, dim=6).state_dict())
        if apart:
            both = scorer.target(hidden, queries.target), scorer(hidden, items, row)
        else:
            both = scorer.with_target(hidden, queries.target, items, row)
        scores = torch.cat([both[0][:, None], both[1]], 1)
        return with_gradients(scores, hidden, scorer.weight)

    for kind in (ItemScorer, Otherwise):
        for a, b in zip(run(kind, False), run(kind, True), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_second_derivatives_are_refused(way):
    hidden, vectors, index, row = made(5, 3, 16, 4)
    scores = candidates.scores(hidden, vectors, index, row)
    (first,) = torch.autograd.grad(scores.square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@NEEDS_COMPILER
def test_indices_of_another_type():
    hidden, vectors, index, row = made(9, 3, 16, 6, rows=4)
    expected = candidates.scores(hidden, vectors, index, row)
    assert torch.equal(candidates.scores(hidden, vectors, index.int(), row.int()), expected)
