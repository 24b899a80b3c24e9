from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from negrec.losses.bce import BCE
from negrec.losses.bpr import BPR
from negrec.models.sasrec import SASRec
from negrec.objectives.ranking import Ranking
from negrec.samplers.base import Sampler
from negrec.samplers.full import Full
from negrec.samplers.hard_memory import HardMemory
from negrec.samplers.in_batch import InBatch
from negrec.samplers.mixed import Mixture
from negrec.samplers.uniform import Uniform
from negrec.scoring import FixedScorer
from negrec.types import DatasetInfo, Feedback, Negatives, Queries, Scores
from tests import toy

CONF = Path(__file__).parents[2] / "conf"
V = 20
TARGET = 19  # the target of the toy query below


class Given(Sampler):
    """Answers every query with the same items, given before each step."""

    def __init__(self, info, items=(1, 2, 3, 4), exclude="target", **fields):
        super().__init__(info, exclude)
        self.given, self.fields, self.observed = items, fields, []
        self.k = len(items)

    def sample(self, queries, scorer, step):
        items = torch.tensor(self.given)
        items = items[None] if items.ndim == 1 else items
        return Negatives(items, exclude=self.exclude, **self.fields)

    def observe(self, feedback):
        self.observed.append(feedback)


def numbered(histories, n_items=V, max_length=8):
    """Facts with numbered tokens, and the batch of all histories."""
    train = toy.jagged(histories)
    sequences = Sequences(train, max_length, NextItem())
    facts = sequences.facts(toy.info(n_items, max_length))
    return facts, toy.batch(histories, max_length)


def one_dimensional(batch, scores):
    """Queries and a scorer that give item i of query n the score ``scores[i] * state[n]``."""
    queries = Queries.of(batch, torch.ones(len(batch.items), 1))
    vectors = torch.zeros(V, 1)
    for item, score in scores.items():
        vectors[item - 1] = score
    return queries, FixedScorer(vectors)


class Visits:
    """The one query (18 -> 19) of one user, visited again and again with scripted scores."""

    def __init__(self, start=0, **settings):
        facts, self.batch = numbered([[18, TARGET]])
        self.base = Given(facts)
        self.memory = HardMemory(facts, self.base, start=start, **settings)
        self.epoch = 0

    def __call__(self, drawn, scores):
        """One visit: what was drawn, and all scores (the target's is 0 unless it is given).

        Returns:
            Items, of these the valid ones, the mined ones, and the labels.
        """
        self.base.given = drawn
        queries, scorer = one_dimensional(self.batch, scores)
        before = {k: v.clone() for k, v in self.memory.state_dict().items()}
        negatives = self.memory.sample(queries, scorer, toy.step(epoch=self.epoch))
        assert all(torch.equal(v, before[k]) for k, v in self.memory.state_dict().items())
        valid = negatives.valid(queries)
        held = Scores(
            scorer.target(queries.hidden, queries.target),
            scorer(queries.hidden, negatives.items),
            valid,
            V,
        )
        loss = torch.ones(1)
        feedback = Feedback(queries, negatives, held, loss, self.epoch)
        self.memory.observe(feedback)
        self.epoch += 1
        items = negatives.items[0].tolist()
        mined = [] if negatives.mined is None else pick(negatives.items, negatives.mined)
        label = None if negatives.label is None else negatives.label[0].tolist()
        return items, pick(negatives.items, valid), mined, label

    def remembered(self):
        return [i for i in self.memory.items[0].tolist() if i]


def pick(items, mask):
    return items[0][mask[0]].tolist()


UP = {5: 2.0, 6: 1.0, 7: 3.0}  # above the target, whose score is 0; all other items score 0


def test_what_scored_above_the_target_is_served_first_the_next_time():
    visits = Visits(m=9)
    assert visits([4, 5, 3, 6], UP)[0] == [4, 5, 3, 6]
    assert visits.remembered() == [5, 6]  # the highest first; a tie with the target is not above
    assert visits([1, 2, 3, 4], UP)[0] == [5, 6, 3, 4]
    # Item 5 has fallen below the target: it leaves, and item 7 comes in.
    assert visits([1, 2, 7, 4], {5: -1.0, 6: 1.0, 7: 3.0})[0] == [5, 6, 7, 4]
    assert visits.remembered() == [7, 6]


def test_a_full_memory_keeps_the_highest_scored():
    visits = Visits(m=9, slots=2)
    visits([5, 6, 7, 1], UP)
    assert visits.remembered() == [7, 5]


def test_more_slots_than_candidates():
    visits = Visits(m=9, slots=8)
    visits([5, 6, 7, 8], {**UP, 8: 4.0})
    assert visits.remembered() == [8, 7, 5, 6]
    assert visits([1, 2], UP)[0] == [8, 7]
    assert visits.remembered() == [7]


@pytest.mark.parametrize("m", [0, 1, 3])
def test_an_item_served_again_more_than_m_times_is_reversed_in_that_step(m):
    visits = Visits(m=m)
    found = []
    for _ in range(2 * m + 4):
        items, valid, mined, label = visits([5, 1, 2, 3], UP)
        assert valid == items == [5, 1, 2, 3]
        assert label == [float(items[0] in mined), 0, 0, 0]
        found.append(mined)
    # Recorded at visit 1, served again at visits 2, 3, ...: for the m + 1st time at visit m + 2.
    # There it leaves the memory; the next visit draws and records it anew.
    cycle = [[]] * (m + 1) + [[5]]
    assert found == (cycle * 4)[: 2 * m + 4]


def test_a_false_negative_stays_one_where_it_persists():
    visits = Visits(m=1, persist=True, slots=2)
    found = [visits([5, 1, 2, 3], UP)[2] for _ in range(2)]
    low = {5: -9.0, 6: 1.0, 7: 2.0}
    found += [visits([6, 7, 1, 2], low)[2] for _ in range(3)]
    # It was served for the second time at visit 3. Items 6 and 7 share what is left: one slot,
    # and 7, recorded at visit 3 and 4, is the second one to be found, at visit 5.
    assert found == [[], [], [5], [5], [5, 7]]
    assert sorted(visits.remembered()) == [5, 7]


@pytest.mark.parametrize(("action", "labels"), [("track", False), ("remove", False)])
def test_track_and_remove(action, labels):
    visits = Visits(m=1, action=action)
    assert visits.memory.labels is labels
    for _ in range(2):
        visits([5, 6, 1, 2], {5: 2.0})
    items, valid, mined, label = visits([5, 6, 1, 2], {5: 2.0})
    assert label is None
    assert (items, mined) == ([5, 6, 1, 2], [5])
    assert valid == ([5, 6, 1, 2] if action == "track" else [6, 1, 2])
    assert visits.remembered() == []  # after its visit it is forgotten


def test_reversed_items_lower_the_loss_as_positives():
    visits = Visits(m=0)
    visits([5, 1, 2, 3], {5: 2.0})
    queries, scorer = one_dimensional(visits.batch, {5: 2.0})
    negatives = visits.memory.sample(queries, scorer, toy.step())
    # Scores 0 of the target, 2 of the reversed, 0 of three negatives: four terms of ln 2 and
    # -ln sigma(2).
    expected = (4 * torch.tensor(2.0).log() + torch.tensor(-2.0).exp().log1p()) / 5
    torch.testing.assert_close(BCE()(queries, negatives, scorer).loss[0], expected)


def test_a_draw_that_repeats_a_served_item_is_ruled_out():
    visits = Visits(m=9)
    visits([5, 6, 1, 2], {5: 2.0})
    items, valid, _, _ = visits([1, 5, 5, 6], {5: 2.0})
    assert (items, valid) == ([5, 5, 5, 6], [5, 6])
    assert visits.remembered() == [5]


def test_an_item_drawn_twice_is_recorded_once():
    visits = Visits(m=9)
    visits([5, 5, 6, 5], UP)
    assert visits.remembered() == [5, 6]
    assert visits([1, 2, 3, 4], UP)[1] == [5, 2, 3, 6]  # empty slots between are filled by draws


def test_nothing_that_is_ruled_out_is_recorded():
    visits = Visits(m=9)
    visits.base.exclude = "window"
    visits([5, 18, TARGET, 1], {5: 2.0, 18: 9.0, TARGET: 1.0})
    assert visits.remembered() == [5]


def test_without_recorded_only_the_highest_scored_are_kept_above_the_target_or_not():
    visits = Visits(m=9, recorded_only=False, slots=2)
    visits([1, 2, 3, 4], {1: -3.0, 2: -1.0, 3: -2.0, 4: -4.0})
    assert visits.remembered() == [2, 3]


def test_variance_finds_what_scores_high_and_steadily():
    # P = sigma(s - s+). Steady: 1, 1.1, ... 1.3: sigma from 0.731 to 0.786, deviation 0.02.
    # Wild: 0.1 and 4 in turn: sigma 0.525 and 0.982, deviation 0.22.
    visits = Visits(miner="variance", deviation=0.05, slots=2)
    found = []
    for visit, steady in enumerate([1.0, 1.3, 1.1, 1.2, 1.0, 1.0]):
        _, _, mined, _ = visits([5, 6, 1, 2], {5: steady, 6: 4.0 if visit % 2 else 0.1})
        found.append(mined)
    assert found == [[]] * 5 + [[5]]  # five visits are known at the sixth
    assert visits.remembered() == [6]


@pytest.mark.parametrize(("deviation", "mined"), [(0.0260, [5]), (0.0250, [])])
def test_variance_is_measured_over_five_visits(deviation, mined):
    # sigma of logit(0.5), logit(0.52), ...: 0.52, 0.54, 0.56, 0.58, 0.5 + the oldest, forgotten.
    # Five values with steps of 0.018 around their middle deviate by sqrt(2) * 0.018 = 0.02546.
    chances = torch.tensor([0.99, 0.518, 0.536, 0.554, 0.572, 0.590])
    visits = Visits(miner="variance", deviation=deviation)
    for score in chances.logit().tolist():
        visits([5, 1, 2, 3], {5: score})
    assert visits([5, 1, 2, 3], {5: 1.0})[2] == mined


def test_variance_looks_at_the_distance_to_the_target():
    # Item 5 is always 1 above the target, item 6 always at 3: its distance goes up and down.
    visits = Visits(miner="variance", deviation=0.05, slots=2)
    for target in (0.0, 2.0, -3.0, 1.0, 2.9):
        visits([5, 6, 1, 2], {TARGET: target, 5: target + 1, 6: 3.0, 1: -9.0, 2: -9.0})
    assert visits([5, 6, 1, 2], {})[2] == [5]


def test_variance_asks_for_five_visits_even_where_none_is_too_unsteady():
    visits = Visits(miner="variance", deviation=0.5)
    found = [visits([5, 1, 2, 3], {5: 9.0})[2] for _ in range(6)]
    assert found == [[]] * 5 + [[5]]


def test_variance_over_all_candidates_asks_for_a_high_mean():
    # Items 5 and 6 are steady; only 5 has a mean above 1/2. Neither was always above the target.
    visits = Visits(miner="variance", deviation=0.1, recorded_only=False, slots=2)
    for visit in range(5):
        visits([5, 6, 1, 2], {5: -0.1 if visit == 2 else 0.4, 6: -0.2, 1: -9.0, 2: -9.0})
    assert visits([5, 6, 1, 2], {5: 0.4, 6: -0.2})[2] == [5]


def test_the_same_history_is_forgotten_where_only_recorded_items_count():
    visits = Visits(miner="variance", deviation=0.1, slots=2)
    for visit in range(5):
        visits([5, 6, 1, 2], {5: -0.1 if visit == 2 else 0.4})
    assert visits([5, 6, 1, 2], {5: 0.4})[2] == []


def test_a_steady_false_negative_stays_one_where_it_persists():
    visits = Visits(miner="variance", persist=True, slots=2)
    for _ in range(5):
        visits([5, 6, 1, 2], {5: 1.0})
    wild = [visits([5, 6, 1, 2], {5: score})[2] for score in (9.0, -9.0, 9.0, 0.1, -3.0)]
    assert wild == [[5]] * 5


def trained(monkeypatch, scores):
    """The memory after real steps, with a loss that may hold so many scores."""
    monkeypatch.setattr("negrec.scoring._SCORES", scores)
    histories = toy.random_histories(12, V, 8)
    sequences = Sequences(toy.jagged(histories), 8, NextItem())
    info = sequences.facts(toy.info(V))
    torch.manual_seed(0)
    model = SASRec(info, dim=8, dropout=0.0, init_std=0.5)
    objective = Ranking(
        info, sequences, partial(Uniform, k=6), BCE(), partial(HardMemory, start=0, m=0)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    for epoch in range(4):
        optimizer.zero_grad()
        outcome = objective(model, toy.batch(histories), toy.step(epoch, epoch))
        outcome.loss.backward()
        optimizer.step()
        objective.observe(model, outcome.feedback)
    return objective.sampler, outcome


def test_a_loss_that_holds_no_scores_changes_nothing(monkeypatch):
    held, before = trained(monkeypatch, 1 << 22)
    chunked, after = trained(monkeypatch, 40)
    assert before.feedback.scores is not None
    assert after.feedback.scores is None
    assert held.items.any()
    assert torch.equal(held.items, chunked.items)
    assert torch.equal(held.trace, chunked.trace)


def same(one, other):
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_every_position_of_every_user_has_its_own_memory():
    histories = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    facts, batch = numbered(histories)
    memory = HardMemory(facts, Given(facts, (11, 12, 13, 14)), m=9, start=0)
    queries = toy.queries(batch)
    scorer = toy.scorer(V)
    step(memory, queries, scorer)
    score = queries.hidden @ scorer.matrix.T
    index = torch.arange(6)
    expected = []
    for n in index:
        above = [i for i in (11, 12, 13, 14) if score[n, i - 1] > score[n, queries.target[n] - 1]]
        expected.append(sorted(above, key=lambda i, n=n: -score[n, i - 1]))
    assert len({tuple(row) for row in expected}) > 2
    key = facts.token_base[queries.user] + queries.position
    assert [[i for i in row if i] for row in memory.items[key].tolist()] == expected
    assert len(memory.items) == facts.n_tokens >= 6
    # The queries in another order find the same.
    again = memory.sample(queries.select(index.flip(0)), scorer, toy.step())
    for n, row in enumerate(reversed(expected)):
        assert again.items[n, : len(row)].tolist() == row


def step(memory, queries, scorer, seed=0, epoch=0):
    """A step of training with BCE."""
    with torch.no_grad():
        negatives = memory.sample(queries, scorer, toy.step(seed, epoch))
        judgement = BCE()(queries, negatives, scorer)
    memory.observe(Feedback(queries, negatives, judgement.scores, judgement.loss, epoch))
    return negatives


def test_of_two_visits_in_a_batch_the_later_stands():
    facts, batch = numbered([[18, TARGET]])
    memory = HardMemory(facts, Given(facts, ((5, 1), (6, 1))), m=9, start=0)
    queries, scorer = one_dimensional(batch, UP)
    twice = replace(
        queries,
        hidden=queries.hidden.repeat(2, 1),
        target=queries.target.repeat(2),
        user=queries.user.repeat(2),
        position=queries.position.repeat(2),
        sequence=queries.sequence.repeat(2),
    )
    step(memory, twice, scorer)
    assert memory.items[0].tolist()[:2] == [6, 0]


def test_all_consecutive_windows_are_remembered():
    history = list(range(1, 13))
    sequences = Sequences(toy.jagged([history]), 4, NextItem(), window="all")
    facts = sequences.facts(toy.info(V, 4))
    batch = Loader(sequences, 8, seed=0).batch(torch.arange(len(sequences)), (0, 0))
    queries, scorer = one_dimensional(batch, {15: 2.0})
    memory = HardMemory(facts, Given(facts, (15, 16)), m=9, start=0)
    step(memory, queries, scorer)
    assert (memory.items[:, 0] == 15).sum() == len(queries.target) == 11


BASES = {
    "query": lambda info: Uniform(info, k=5, exclude="history"),
    "sequence": lambda info: Uniform(info, k=5, share="sequence", exclude="window"),
    "batch": lambda info: Uniform(info, k=5, share="batch"),
    "in_batch": lambda info: InBatch(info, k=5),
    "mixed": lambda info: Mixture(
        info,
        {
            "in_batch": lambda info: InBatch(info, k=3),
            "uniform": lambda info: Uniform(info, k=3, share="sequence", exclude="none"),
        },
    ),
}


def crowd(name, **settings):
    facts, batch = numbered(toy.random_histories(30, V, 8))
    base = BASES[name](facts)
    return base, HardMemory(facts, base, **settings), toy.queries(batch), toy.scorer(V)


@pytest.mark.parametrize("name", BASES)
def test_before_the_start_all_is_as_without_the_wrapper(name):
    base, memory, queries, scorer = crowd(name, start=2)
    for epoch in range(2):
        plain, twin = toy.step(5), toy.step(5, epoch)
        expected, found = base.sample(queries, scorer, plain), memory.sample(queries, scorer, twin)
        assert torch.equal(plain.generator.get_state(), twin.generator.get_state())
        assert (found.row is None) == (expected.row is None)
        assert torch.equal(found.items, expected.items)
        assert found.log_q is found.target_log_q is None  # no loss may count on a density
        assert found.mined is found.label is None
        step(memory, queries, scorer, 5, epoch)
        assert not memory.items.any()
    assert step(memory, queries, scorer, 5, epoch=2).mined is not None
    assert memory.items.any()


@pytest.mark.parametrize("name", BASES)
def test_the_wrapped_sampler_draws_what_is_not_served(name):
    base, memory, queries, scorer = crowd(name, start=0, m=9, slots=2)
    step(memory, queries, scorer)
    key = memory.token_base[queries.user] + queries.position
    remembered = memory.items[key]
    assert 0 < (remembered > 0).float().mean() < 1
    drawn = base.sample(queries, scorer, toy.step(3))
    negatives = memory.sample(queries, scorer, toy.step(3))
    n, k = len(queries.target), drawn.k
    assert negatives.items.shape == (n, k)
    for i in range(n):  # the definition, query by query
        served = [x for x in remembered[i].tolist() if x]
        row = drawn.of().expand(n, -1)[i].tolist()
        valid = drawn.valid(queries)[i].tolist()
        wanted = served + row[len(served) :]
        assert negatives.items[i].tolist() == wanted
        allowed = [True] * len(served) + [
            ok and item not in served
            for item, ok in zip(row[len(served) :], valid[len(served) :], strict=True)
        ]
        # Served items passed the policy of the column they were drawn in.
        found = negatives.valid(queries)[i].tolist()
        assert found[len(served) :] == allowed[len(served) :]
        if name != "mixed":
            assert found == allowed


@pytest.mark.parametrize("name", BASES)
def test_invariants_of_the_memory_over_many_steps(name):
    _, memory, queries, scorer = crowd(name, start=0, m=1, slots=3)
    mined = 0
    for epoch in range(6):
        negatives = step(memory, queries, scorer, epoch, epoch)
        assert torch.equal(negatives.label.bool(), negatives.mined)
        assert not (negatives.mined & ~negatives.valid(queries)).any()
        mined += int(negatives.mined.sum())
        rows = memory.items[memory.token_base[queries.user] + queries.position]
        for n, row in enumerate(rows.tolist()):
            kept = [x for x in row if x]
            assert len(kept) == len(set(kept))
            scores = scorer.matrix @ queries.hidden[n]
            assert all(scores[x - 1] > scores[queries.target[n] - 1] for x in kept)
            left = negatives.items[n][negatives.mined[n]].tolist()
            assert not set(kept) & set(left)
        assert ((memory.items > 0) <= (memory.trace[..., 0] > 0)).all()
    assert mined > 0


def test_the_start_follows_the_losses_it_observes():
    visits = Visits(start="plateau")
    for _ in range(9):
        assert visits([5, 1, 2, 3], UP)[2] == []
    # All losses were 1: nothing fell, so nothing is slower than that. Then one epoch rises.
    queries, scorer = one_dimensional(visits.batch, UP)
    negatives = visits.memory.sample(queries, scorer, toy.step(epoch=9))
    visits.memory.observe(Feedback(queries, negatives, None, torch.full((1,), 2.0), 9))
    assert negatives.mined is None
    assert visits.memory.sample(queries, scorer, toy.step(epoch=10)).mined is not None


def test_the_wrapped_sampler_learns_too():
    visits = Visits(start=1)
    visits([1, 2, 3, 4], UP)
    visits([1, 2, 3, 4], UP)
    assert len(visits.base.observed) == 2


def test_slots_without_a_candidate_stay_empty_unless_something_is_served():
    visits = Visits(m=9)
    visits.base.fields = {"present": torch.tensor([[False, True, False, True]])}
    assert visits([5, 6, 7, 1], UP)[1] == [6, 1]
    assert visits.remembered() == [6]
    assert visits([5, 2, 7, 1], UP)[1] == [6, 2, 1]


def test_the_size_of_the_memory():
    # 52,024 users of length 50 are 2,601,200 tokens of 8 slots: 20,809,600 slots of 4 bytes and
    # 1 for the count: 104 MB; of 4 bytes and 5 probabilities: 187 MB.
    info = DatasetInfo(
        1, V, 50, torch.ones(V), token_base=torch.zeros(1).long(), n_tokens=2_601_200
    )
    for miner, size in (("count", 104_048_000), ("variance", 187_286_400)):
        with torch.device("meta"):
            memory = HardMemory(info, Uniform(info, k=1), miner=miner)
        kept = sum(buffer.nbytes for buffer in (memory.items, memory.trace))
        assert kept == size < 200_000_000
        everything = sum(value.nbytes for value in memory.state_dict().values())
        assert everything - size < 100


def test_state_moves_and_survives_a_checkpoint():
    _, memory, queries, scorer = crowd("query", start=0, m=1)
    for epoch in range(3):
        step(memory, queries, scorer, epoch, epoch)
    _, twin, _, _ = crowd("query", start=0, m=1)
    twin.load_state_dict(memory.state_dict())
    one, other = (step(x, queries, scorer, 9, 3) for x in (memory, twin))
    assert torch.equal(one.items, other.items)
    assert torch.equal(one.mined, other.mined)
    assert one.mined.any()
    same(memory, twin)
    assert all(buffer.is_meta for buffer in memory.to("meta").buffers())


def test_what_it_says_of_itself():
    facts, _ = numbered([[18, TARGET]])
    memory = HardMemory(facts, Uniform(facts, k=3))
    assert memory.labels
    assert memory.k == 3
    assert not memory.has_density
    assert memory.name == "Uniform with false negatives reversed"
    assert HardMemory(facts, Uniform(facts, k=3), action="track").name.endswith("tracked")


@pytest.mark.parametrize(
    ("settings", "loss", "reason"),
    [
        ({}, BPR(), "with false negatives reversed: .* the loss cannot honour labels"),
        ({"action": "track"}, BCE(log_q="standard"), "there is none"),
    ],
)
def test_losses_that_cannot_work_with_it_are_refused_at_start(settings, loss, reason):
    facts, _ = numbered([[18, TARGET]])
    with pytest.raises(ValueError, match=reason):
        Ranking(
            facts,
            None,
            lambda info: Uniform(info, k=3),
            loss,
            lambda info, base: HardMemory(info, base, **settings),
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"miner": "magic"}, "miner must be one of count, variance, got 'magic'"),
        ({"action": "flip"}, "action must be one of track, remove, reverse, got 'flip'"),
        ({"m": -1}, r"m must be in 0\.\.254, got -1"),
        ({"m": 255}, r"m must be in 0\.\.254, got 255"),
        ({"deviation": 0.0}, r"deviation must be in \(0, 0.5\], got 0.0"),
        ({"deviation": 0.6}, r"deviation must be in \(0, 0.5\], got 0.6"),
        ({"slots": 0}, "slots must be at least 1, got 0"),
        ({"start": -1}, "start must be plateau or an epoch from 0, got -1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    facts, _ = numbered([[18, TARGET]])
    with pytest.raises(ValueError, match=message):
        HardMemory(facts, Uniform(facts, k=3), **settings)


def test_what_cannot_be_wrapped_is_refused():
    facts, _ = numbered([[18, TARGET]])
    with pytest.raises(ValueError, match="does not go with sampler Full"):
        HardMemory(facts, Full(facts))
    with pytest.raises(ValueError, match="looks for false negatives already"):
        HardMemory(facts, HardMemory(facts, Uniform(facts, k=3)))
    with pytest.raises(ValueError, match=r"info\.token_base is None"):
        HardMemory(toy.info(V), Uniform(facts, k=3))


SETTINGS = {
    "track": ("count", "track"),
    "remove": ("count", "remove"),
    "reverse": ("count", "reverse"),
    "variance_remove": ("variance", "remove"),
    "variance_reverse": ("variance", "reverse"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_yaml_trains(name):
    assert {path.stem for path in (CONF / "sampler/false_negatives").glob("*.yaml")} == {
        *SETTINGS,
        "none",
    }
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"sampler/false_negatives={name}", "mining_start=0", "k=6"])
    facts, batch = numbered(toy.random_histories(20, V, 8))
    objective = instantiate(cfg.objective)(facts, None)
    memory = objective.sampler
    assert (memory.miner.__class__.__name__.lower().strip("_"), memory.action) == SETTINGS[name]
    assert memory.starting.started(0)
    torch.manual_seed(0)
    model = SASRec(facts, dim=8, init_std=0.5)
    mined = 0
    for epoch in range(8):
        outcome = objective(model, batch, toy.step(0, epoch))
        objective.observe(model, outcome.feedback)
        mined += int(outcome.feedback.negatives.mined.sum())
    assert mined > 0
