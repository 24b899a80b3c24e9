import pytest
import torch
from torch.nn import functional as F

from negrec.scoring import HistoryScorer, ItemScorer
from negrec.types import Batch
from tests import toy


@pytest.mark.parametrize("shape", ["query", "sequence", "batch"])
def test_candidates_are_scored_by_dot_products(shape):
    queries = toy.queries(toy.batch([[1, 2, 3, 4], [5, 6], [7, 8, 9]]))
    scorer = toy.scorer()
    n = len(queries.target)
    rows, row = {"query": (n, None), "sequence": (3, queries.sequence), "batch": (1, None)}[shape]
    items = torch.randint(1, 21, (rows, 5), generator=torch.Generator().manual_seed(0))
    scores = scorer(queries.hidden, items, row)
    for i in range(n):
        of = {"query": i, "sequence": int(queries.sequence[i]), "batch": 0}[shape]
        for j, item in enumerate(items[of].tolist()):
            expected = queries.hidden[i] @ scorer.matrix[item - 1]
            assert scores[i, j].item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_every_way_to_score_is_a_dot_product_with_the_matrix(similarity, temperature, bias):
    generator = torch.Generator().manual_seed(0)
    scorer = ItemScorer(20, 4, 1.0, similarity, bias, temperature)
    states = torch.randn(6, 4, generator=generator)
    with torch.no_grad():
        scorer.weight.copy_(torch.randn(20, 4, generator=generator))
        if bias:
            scorer.bias.copy_(torch.randn(20, 1, generator=generator))
    # The definition, written out.
    expected = states @ scorer.weight.T
    if similarity == "cosine":
        expected = F.cosine_similarity(states[:, None], scorer.weight[None], dim=2)
    if bias:
        expected = expected + scorer.bias.T
    expected = expected / temperature
    hidden = scorer.query(states)
    torch.testing.assert_close(hidden @ scorer.matrix.T, expected)
    torch.testing.assert_close(scorer.every(hidden), expected)
    items = torch.tensor([[3, 5], [1, 1], [20, 2], [4, 4], [7, 8], [9, 6]])
    torch.testing.assert_close(scorer(hidden, items), expected.gather(1, items - 1))
    target = scorer.target(hidden, items[:, 0])
    torch.testing.assert_close(target, expected.gather(1, items[:, :1] - 1)[:, 0])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_an_offset_is_added_to_all_scores_of_a_query(similarity, temperature, bias):
    torch.manual_seed(0)
    plain = ItemScorer(20, 4, 1.0, similarity, bias, temperature)
    scorer = ItemScorer(20, 4, 1.0, similarity, bias, temperature, offset=True)
    scorer.load_state_dict(plain.state_dict())
    states, offset = torch.randn(6, 4), torch.randn(6)
    without = plain.every(plain.query(states))
    hidden = scorer.query(states, offset)
    assert hidden.shape[1] == scorer.width == scorer.matrix.shape[1] == 5 + bias
    expected = without + offset[:, None] / temperature
    torch.testing.assert_close(scorer.every(hidden), expected)
    torch.testing.assert_close(scorer.fixed().every(hidden), expected)
    assert scorer.fixed().width == scorer.width
    items = torch.tensor([[3, 5], [1, 1], [20, 2], [4, 4], [7, 8], [9, 6]])
    torch.testing.assert_close(scorer(hidden, items), expected.gather(1, items - 1))
    torch.testing.assert_close(scorer.every(scorer.query(states)), without)  # 0 by default


def test_a_part_of_the_queries_is_scored_like_the_whole():
    queries = toy.queries(toy.batch([[1, 2, 3, 4], [5, 6], [7, 8, 9]]))
    scorer, items = toy.scorer(), torch.tensor([[1, 2], [3, 4], [5, 6]])
    whole = scorer(queries.hidden, items, queries.sequence)
    part = scorer(queries.hidden[3:], items, queries.sequence[3:])  # without the first sequence
    torch.testing.assert_close(part, whole[3:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"similarity": "euclid"}, "scorer.similarity must be dot or cosine, got 'euclid'"),
        ({"temperature": 0.0}, "scorer.temperature must be positive, got 0.0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ItemScorer(20, 4, **settings)


def test_targets_and_negatives_are_scored_in_full_precision_under_autocast():
    scorer, hidden = toy.scorer(), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    items = torch.tensor([1, 2, 3])
    with torch.autocast("cpu", torch.bfloat16):
        target, negative = scorer.target(hidden, items), scorer(hidden, items[None])
    assert torch.equal(negative, hidden @ scorer.matrix[:3].T)
    torch.testing.assert_close(target, negative.diagonal())


def histories_scorer():
    # A_12 = 3, A_13 = 1, A_41 = 5; the newest item counts twice.
    relation = torch.tensor([4, 1, 1]), torch.tensor([1, 3, 2]), torch.tensor([5.0, 1.0, 3.0])
    base = torch.tensor([0.5, 0.25, 0.0, 0.0])
    return HistoryScorer(base, relation, torch.tensor([2.0, 1.0]))


def test_items_are_scored_by_their_relations_to_a_history():
    scorer = histories_scorer()
    hidden = torch.tensor([[0.0, 0.0], [1.0, 4.0], [4.0, 1.0], [2.0, 0.0]])
    expected = torch.tensor(
        [
            [0.5, 0.25, 0, 0],  # nobody's history
            [0.5 + 5, 0.25 + 2 * 3, 2 * 1, 0],
            [0.5 + 2 * 5, 0.25 + 3, 1, 0],
            [0.5, 0.25, 0, 0],  # item 2 is related to nothing
        ]
    )
    assert torch.equal(scorer.every(hidden), expected)
    assert torch.equal(scorer.every(hidden, torch.full((4, 4), torch.nan)), expected)
    items = torch.tensor([[3, 1], [1, 1], [2, 4], [4, 2]])
    assert torch.equal(scorer(hidden, items), expected.gather(1, items - 1))
    assert torch.equal(scorer(hidden, items[:1]), expected[:, [2, 0]])
    row = torch.tensor([0, 2, 2, 3])
    assert torch.equal(scorer(hidden, items, row), expected.gather(1, items[row] - 1))
    assert torch.equal(
        scorer.target(hidden, items[:, 0]), expected.gather(1, items[:, :1] - 1)[:, 0]
    )
    assert scorer.largest(hidden).tolist() == [0.5 + 5 * (2 + 1)] * 4
    assert scorer.fixed() is scorer
    assert (scorer.n_items, scorer.width) == (4, 2)


def test_a_chunk_of_histories_is_scored_like_all(monkeypatch):
    scorer, items = histories_scorer(), torch.arange(1, 5)[None]
    hidden = torch.randint(0, 5, (50, 2), generator=torch.Generator().manual_seed(0)).float()
    monkeypatch.setattr("negrec.kernels.tiles._CELLS", 1)  # chunks of 16
    assert torch.equal(scorer(hidden, items), scorer.every(hidden))
    assert scorer(hidden[:0], items).shape == (0, 4)


def test_a_history_is_its_distinct_items_newest_first():
    relation = torch.ones(0).long(), torch.ones(0).long(), torch.ones(0)
    scorer = HistoryScorer(torch.ones(9), relation, torch.ones(3))
    batch = Batch.of([[7, 8, 7, 7, 5, 1], [9, 2]])
    states = scorer.histories(batch, torch.tensor([0, 1, 2, 3, 4, 5]))
    assert states.tolist() == [
        *([7, 0, 0], [8, 7, 0], [7, 8, 0], [7, 0, 8], [5, 7, 0]),
        [9, 0, 0],  # nothing of the sequence before
    ]
    assert scorer.every(states).eq(1).all()


def test_scores_of_histories_are_no_dot_products():
    with pytest.raises(TypeError, match="no dot products"):
        _ = histories_scorer().matrix
    with pytest.raises(TypeError, match="no dot products"):
        histories_scorer().vectors(torch.ones(1).long())
