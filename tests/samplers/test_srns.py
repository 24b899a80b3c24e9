from dataclasses import replace
from functools import partial
from math import log, sqrt

import pytest
import torch

from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from negrec.losses.bce import BCE
from negrec.samplers.adaptive import TopK
from negrec.samplers.base import Sampler
from negrec.samplers.hard_memory import HardMemory
from negrec.samplers.mixed import Mixture
from negrec.samplers.srns import SRNS, deviation
from negrec.samplers.uniform import Uniform
from negrec.scoring import FixedScorer
from negrec.types import Feedback, Negatives, Queries
from tests import toy

V = 10


class Given(Sampler):
    """In the place of the uniform pool: the same items for every query."""

    def __init__(self, info, items):
        super().__init__(info)
        self.given = items

    def sample(self, queries, scorer, step):
        n = len(queries.target)
        return Negatives(torch.tensor(self.given).expand(n, -1))


class Visits:
    """Every query has a state of 1 and the scores that are given; item 10 is every target."""

    def __init__(self, users=1, drawn=None, **settings):
        histories = [[9, 10]] * users
        self.batch = toy.batch(histories)
        info = Sequences(toy.jagged(histories), 8, NextItem()).facts(toy.info(V))
        settings = {"memory": 2, "pool": 5, "weight": 1.0, "warmup": 0, **settings}
        self.sampler = SRNS(info, **settings)
        if drawn is not None:
            self.sampler.pool = Given(info, drawn)
        self.epoch = 0

    def queries(self):
        return Queries.of(self.batch, torch.ones(len(self.batch.items), 1))

    def __call__(self, scores, learn=True):
        """The negatives of one visit; item i scores ``scores.get(i, 0)``."""
        vectors = torch.zeros(V, 1)
        for item, score in scores.items():
            vectors[item - 1] = score
        queries, scorer = self.queries(), FixedScorer(vectors)
        negatives = self.sampler.sample(queries, scorer, toy.step(self.epoch, self.epoch))
        if learn:
            loss = BCE()(queries, negatives, scorer).loss
            self.sampler.observe(Feedback(queries, negatives, None, loss, self.epoch))
            self.epoch += 1
        return negatives

    def kept(self):
        """Items (N, M) and histories (N, M, 5) of the queries' tokens."""
        token = self.sampler.token_base[self.batch.user] + self.batch.position
        return self.sampler.items[token], self.sampler.history[token].float()

    def remember(self, items, history=None):
        """Fills the memory of every token."""
        self.sampler.items[:] = torch.tensor(items)
        if history is not None:
            self.sampler.history[:] = torch.tensor(history)


STILL = [0.5] * 5
VARYING = [0.1, 0.9, 0.1, 0.9, 0.5]


@pytest.mark.parametrize("target", [0.0, 2.0])  # its score: P is relative to it
@pytest.mark.parametrize(("weight", "picked"), [(0.0, 1), (0.5, 1), (0.8, 2)])
def test_the_pick_is_by_probability_plus_weighted_deviation(weight, picked, target):
    # P = 1/2 for the target's own score, and 1/4 for one lower by ln 3. The deviations are 0 and,
    # with mean 0.5 and squares 4 * 0.16 + 0 over 5 visits, sqrt(0.128) = 0.358. So item 2 is
    # picked from 0.25 / 0.358 = 0.699 on.
    visits = Visits(weight=weight, drawn=[3, 4])
    visits.remember([1, 2], [STILL, VARYING])
    scores = {1: target, 2: target - log(3), 3: 9.0, 4: 9.0, 10: target}
    assert visits(scores).items.tolist() == [[picked]]


def test_k_are_picked_the_best_first():
    visits = Visits(weight=0.8, drawn=[3, 4, 5], memory=3, k=2)
    visits.remember([1, 2, 6], [STILL, VARYING, STILL])
    # 0.5 + 0, 0.25 + 0.8 * 0.358 = 0.536, and sigma(-1) = 0.269 + 0.
    assert visits({2: -log(3), 6: -1.0}).items.tolist() == [[2, 1]]


def test_the_deviation_is_that_of_the_visits_that_are_known():
    history = torch.tensor(
        [
            [0.1, 0.3, 0.5, 0.7, 0.9],  # squares 0.16 + 0.04 + 0 + 0.04 + 0.16 = 0.4, over 5
            [-1.0, -1.0, 0.2, 0.4, 0.6],  # 0.04 + 0 + 0.04, over 3
            [-1.0, -1.0, -1.0, -1.0, 0.7],
            [-1.0, -1.0, -1.0, -1.0, -1.0],
        ]
    )
    expected = torch.tensor([sqrt(0.08), sqrt(0.08 / 3), 0.0, 0.0])
    torch.testing.assert_close(deviation(history), expected)


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 0.0), (1, 0.1), (25, 2.5), (50, 5.0), (51, 5.0), (400, 5.0)]
)
def test_the_weight_grows_until_the_warm_up_is_over(epoch, expected):
    assert Visits(weight=5.0, warmup=50).sampler.weight_in(epoch) == pytest.approx(expected)


def test_without_warm_up_the_weight_is_whole_at_once():
    assert Visits(weight=5.0, warmup=0).sampler.weight_in(0) == 5.0


def test_the_weight_of_the_epoch_decides():
    # As above with a whole weight of 1.4: 0.7 from epoch 5 of 10 on.
    visits = Visits(weight=1.4, warmup=10, drawn=[3, 4])
    visits.remember([1, 2], [STILL, VARYING])
    picked = []
    for visits.epoch in (0, 4, 5, 10):
        picked += visits({2: -log(3)}, learn=False).items[0].tolist()
    assert picked == [1, 1, 2, 2]


def test_an_empty_memory_leaves_the_pick_to_the_pool():
    visits = Visits(drawn=[3, 4, 5])
    scores = {1: 5.0, 3: -1.0, 4: 2.0, 5: 1.0}
    assert visits(scores).items.tolist() == [[4]]
    # From the second visit on the memory alone is picked from.
    visits.remember([3, 0])
    assert visits(scores).items.tolist() == [[3]]


def test_the_memory_is_refreshed_by_drawing_without_replacement():
    # From {1, 2} and {3, 4} two are drawn, with weights exp(s / tau) = 4, 3, 2, 1 of 10.
    weight = {1: 4.0, 2: 3.0, 3: 2.0, 4: 1.0}
    visits = Visits(users=40_000, drawn=[3, 4], tau=0.5)
    visits.remember([1, 2])
    visits({item: 0.5 * log(x) for item, x in weight.items()})
    pairs = [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]
    # P({a, b}) = p_a p_b / (1 - p_a) + p_b p_a / (1 - p_b).
    p = {item: x / 10 for item, x in weight.items()}
    expected = torch.tensor([p[a] * p[b] * (1 / (1 - p[a]) + 1 / (1 - p[b])) for a, b in pairs])
    assert expected.sum().item() == pytest.approx(1)
    kept = visits.kept()[0].sort(dim=1).values.tolist()
    drawn = torch.tensor([pairs.index(tuple(pair)) for pair in kept])
    assert toy.chi_square_p(drawn, expected) > 1e-4


def test_an_item_that_comes_again_is_one_candidate_with_its_past():
    # Item 1 is remembered and drawn twice more: were it three candidates, two of the kept two
    # would often be item 1, or it would have lost its past.
    visits = Visits(users=500, drawn=[1, 2, 1])
    visits.remember([1, 0], [STILL, [-1.0] * 5])
    visits({1: 3.0})
    kept, history = visits.kept()
    assert (kept.sort(dim=1).values == torch.tensor([1, 2])).all()
    # The last four of its past, and sigma(3).
    expected = torch.tensor([0.5] * 4 + [torch.tensor(3.0).sigmoid()])
    torch.testing.assert_close(history[kept == 1], expected.expand(500, -1), atol=1e-3, rtol=0)


def test_the_history_is_that_of_the_last_five_visits():
    # The memory has room for all 9 items but the target: what was drawn once stays.
    visits = Visits(users=30, memory=9, pool=3)
    generator = torch.Generator().manual_seed(0)
    past = [{} for _ in range(30)]  # of each user: item -> all its probabilities
    for _ in range(9):
        scores = dict(enumerate(torch.randn(9, generator=generator).tolist(), start=1))
        visits(scores)
        items, history = visits.kept()
        for user, known in enumerate(past):
            kept = [item for item in items[user].tolist() if item > 0]
            assert len(kept) == len(set(kept))
            assert {*known} <= {*kept}
            for item in kept:
                p = torch.tensor(scores[item]).sigmoid().item()
                known.setdefault(item, []).append(p)
                last = known[item][-5:]
                column = items[user].tolist().index(item)
                expected = [-1.0] * (5 - len(last)) + last
                assert history[user, column].tolist() == pytest.approx(expected, abs=1e-3)
    assert max(len(p) for known in past for p in known.values()) > 5


def test_a_visit_changes_the_memory_of_its_own_tokens_only():
    train = toy.jagged([[1, 2, 3, 4], [5, 6], [7, 8, 9]])
    sequences = Sequences(train, 8, NextItem())
    sampler = SRNS(sequences.facts(toy.info(V)), memory=2, pool=3)
    assert sampler.items.shape == (3 + 1 + 2 + 3, 2)  # every token, targets at the end too
    visited = toy.queries(toy.batch([[1, 2, 3, 4], [5, 6], [7, 8, 9]])).select(
        torch.tensor([1, 2, 4])
    )
    negatives = sampler.sample(visited, toy.scorer(V), toy.step())
    sampler.observe(Feedback(visited, negatives, None, torch.zeros(3)))
    # User 0's tokens are 0..3, user 1's 4 and 5, user 2's 6..8.
    assert (sampler.items > 0).any(1).nonzero().flatten().tolist() == [1, 2, 6]


def test_of_a_token_that_comes_twice_the_later_query_stands():
    visits = Visits(users=2, drawn=[3, 4])
    twice = visits.queries()
    twice = replace(twice, user=torch.zeros(2, dtype=torch.int64))
    negatives = visits.sampler.sample(twice, FixedScorer(torch.zeros(V, 1)), toy.step())
    memory = torch.tensor([[1, 2], [7, 8]])
    visits.sampler.observe(Feedback(twice, replace(negatives, memory=memory), None, torch.zeros(2)))
    assert visits.sampler.items[:2].tolist() == [[7, 8], [0, 0]]


def test_slots_without_an_item_are_no_negatives():
    visits = Visits(drawn=[3, 4], k=2)
    visits.remember([3, 0])
    assert visits({}).present.tolist() == [[True, False]]
    everything = Visits(drawn=[10, 10], k=2)  # the target
    assert everything({}).present.tolist() == [[False, False]]
    assert everything.kept()[0].tolist() == [[0, 0]]


@pytest.mark.parametrize("exclude", ["target", "window", "history"])
def test_what_is_excluded_is_never_remembered(exclude):
    histories = toy.random_histories(40, V, 6)
    sequences = Sequences(toy.jagged(histories), 4, NextItem())
    info = sequences.facts(toy.info(V, max_length=4))
    sampler = SRNS(info, memory=3, pool=6, exclude=exclude)
    batch = toy.batch(histories, max_length=4)
    for epoch in range(4):
        queries = toy.queries(batch)
        negatives = sampler.sample(queries, toy.scorer(V), toy.step(epoch, epoch))
        sampler.observe(Feedback(queries, negatives, None, torch.zeros(len(queries.target)), epoch))
        own = Negatives(negatives.memory.clamp(min=1), exclude=exclude).valid(queries)
        assert own[negatives.memory > 0].all()
    assert (negatives.memory > 0).any()


def test_a_query_with_a_spoilt_memory_is_served_from_the_pool():
    visits = Visits(drawn=[3, 4])
    visits.remember([10, 10])  # the target
    negatives = visits({3: 1.0})
    assert negatives.items.tolist() == [[3]]
    assert negatives.present.all()


def test_the_same_state_draws_the_same_after_a_round_trip():
    one, other = Visits(users=20), Visits(users=20)
    for epoch in range(3):
        one({item: 0.3 * item * (-1) ** epoch for item in range(1, 10)})
    other.sampler.load_state_dict(one.sampler.state_dict())
    other.epoch = one.epoch
    for _ in range(3):
        scores = {item: 0.1 * item for item in range(1, 10)}
        assert torch.equal(one(scores).items, other(scores).items)
    for name, buffer in one.sampler.state_dict().items():
        assert torch.equal(buffer, other.sampler.state_dict()[name])


def test_memory_is_fourteen_bytes_an_item():
    train = toy.jagged(toy.random_histories(100, 30, 12))
    info = Sequences(train, 8, NextItem()).facts(toy.info(30))
    state = SRNS(info, memory=8).state_dict()
    assert sorted(state) == ["history", "items"]
    assert sum(x.nbytes for x in state.values()) == info.n_tokens * 8 * 14


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"k": 3}, "k must not exceed the memory: k=3, and it holds 2"),
        ({"k": 2, "pool": 1}, "k must not exceed the pool: k=2, and the pool has 1"),
        ({"pool": 11}, "pool: k must not exceed the catalogue: k=11, and there are 10 items"),
        ({"weight": -1.0}, "weight must be at least 0 and finite, got -1.0"),
        ({"tau": 0.0}, "tau must be positive, got 0.0"),
        ({"warmup": -1}, "warmup must be at least 0 epochs, got -1"),
        ({"exclude": "all"}, "exclude must be one of none, target, window, history, got 'all'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Visits(**settings)


def test_tokens_without_numbers_are_refused():
    with pytest.raises(ValueError, match=r"info\.token_base is None"):
        SRNS(toy.info(V))


@pytest.mark.parametrize("wrapper", ["mixed", "adaptive", "mining"])
def test_inside_another_sampler_it_learns_from_its_own_answer(wrapper):
    histories = toy.random_histories(20, V, 8)
    info = Sequences(toy.jagged(histories), 8, NextItem()).facts(toy.info(V))
    make = partial(SRNS, memory=3, pool=4, weight=1.0, tau=1.0, warmup=0, k=2)
    alone, queries, scorer = make(info), toy.queries(toy.batch(histories)), toy.scorer(V)
    outer = {
        "mixed": lambda: Mixture(info, {"srns": make, "uniform": partial(Uniform, k=2)}),
        "adaptive": lambda: TopK(info, make, k=1),
        "mining": lambda: HardMemory(info, make(info), start=0),
    }[wrapper]()
    for epoch in range(3):
        for sampler in (alone, outer):
            negatives = sampler.sample(queries, scorer, toy.step(epoch, epoch))
            loss = BCE()(queries, negatives, scorer)
            sampler.observe(Feedback(queries, negatives, loss.scores, loss.loss, epoch))
    (inner,) = (part for part in outer.parts if isinstance(part, SRNS))
    assert alone.items.any()
    assert torch.equal(inner.items, alone.items)
    assert torch.equal(inner.history, alone.history)
