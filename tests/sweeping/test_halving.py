"""Successive halving, on made-up learning curves and a made-up clock."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from negrec.errors import InputError
from negrec.sweeping.halving import (
    CandidateError,
    Choice,
    Halving,
    Judgement,
    Memory,
    Round,
    Trial,
    Watch,
)

Curve = Callable[[int, int], float]  # seed, epoch from 1 -> validation value


@dataclass
class World(Watch):
    """Candidates with known curves and speeds; training takes no time but the clock's.

    Attributes:
        curves: candidate -> its curve.
        speed: candidate -> seconds of an epoch, 1 unless given.
        overhead: seconds of each call beside its epochs.
        patience: epochs without a better value that end a training.
    """

    curves: dict[str, Curve]
    speed: dict[str, float] = field(default_factory=dict)
    overhead: float = 0.0
    patience: int = 10**6
    now: float = 0.0
    calls: list[tuple[str, int, int]] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    trained_to: dict[tuple[str, int], int] = field(default_factory=dict)
    stop_at: int = 10**6  # call that is interrupted

    def train(self, cell: str, seed: int, epochs: int) -> Trial:
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append((cell, seed, epochs))
        best, best_epoch, last = -math.inf, 0, 0
        for epoch in range(1, epochs + 1):
            last = epoch
            if (value := self.curves[cell](seed, epoch)) > best:
                best, best_epoch = value, epoch
            if epoch - best_epoch >= self.patience:
                break
        speed = self.speed.get(cell, 1.0)
        before = self.trained_to.get((cell, seed), 0)
        self.now += self.overhead + max(last - before, 0) * speed
        self.trained_to[cell, seed] = last
        return Trial(best, last, last * speed, self.overhead, last < epochs, best_epoch == last)

    def choose(self, budget: float, seeds=(0, 1, 2), max_epochs=100, **settings) -> Choice:
        memory = settings.pop("memory", Memory())
        halving = Halving(
            *(list(self.curves), seeds, budget, max_epochs),
            *(self.train, lambda: self.now, memory, self),
            **settings,
        )
        return halving.run()

    def planned(self, planned: Round, seconds: float) -> None:
        self.rounds.append(planned)

    def judged(self, judgement: Judgement) -> None:
        self.judgements.append(judgement)

    def out_of_time(self, number: int) -> None:
        self.late.append(number)


def towards(limit: float, slowness: float) -> Curve:
    return lambda seed, epoch: limit * (1 - math.exp(-epoch / slowness)) * (1 + 1e-4 * seed)


def eight(best: str = "f") -> World:
    limits = dict(zip("abcdefgh", (0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.17, 0.18), strict=True))
    limits[best] = 0.5
    return World({name: towards(limit, 5) for name, limit in limits.items()})


@pytest.mark.parametrize("best", "abcdefgh")
@pytest.mark.parametrize("eta", [2, 3])
def test_the_best_is_found_for_much_less_than_all(best: str, eta: int):
    # All eight for 100 epochs with three seeds would be 2,400 s.
    world = eight(best)
    choice = world.choose(240, eta=eta)
    assert choice.best == best
    assert choice.equals == ()
    assert len(choice.survivors) == eta
    assert world.now <= 240
    sizes = [len(planned.cells) for planned in world.rounds]
    assert sizes == {2: [8, 4, 2], 3: [8, 3]}[eta]


def test_shares_of_the_budget_by_hand():
    # Budget 1,000 s, 1 s per epoch, no overhead. Probe: 8 s. Rounds of 8, 4 and 2. The tests of 2
    # survivors are taken for 2 s times the seeds.
    # Round 1: (1000 - 8 - 2) / 3 = 330 for 8 (e - 1): e = 42; takes 328, 336 gone.
    # Round 2: two seeds: 4 (e - 42) + 4 e <= (1000 - 336 - 4) / 2 = 330 gives 62, less than 2 x 42;
    #   one seed: 4 (e - 42) <= (1000 - 336 - 2) / 2 = 331 gives 124; takes 328, 664 gone.
    # Round 3, the last: three seeds: 2 (e - 124) + 4 e <= 1000 - 664 - 6 = 330 gives 96; two:
    #   2 (e - 124) + 2 e <= 332 gives 145, both less than 248; one: 2 (e - 124) <= 334 gives 291.
    world = eight()
    choice = world.choose(1000, max_epochs=500)
    assert [(r.epochs, r.seeds, len(r.cells)) for r in world.rounds] == [
        (42, (0,), 8),
        (124, (0,), 4),
        (291, (0,), 2),
    ]
    assert world.now == 998
    assert choice.last.round.epochs == 291


def test_with_time_left_the_survivors_get_all_seeds():
    world = eight()
    choice = world.choose(10_000, max_epochs=50)
    assert [r.seeds for r in world.rounds] == [(0,), (0, 1), (0, 1, 2)]
    assert choice.last.round.seeds == (0, 1, 2)
    assert {r.epochs for r in world.rounds} == {50}
    # 8 + 4 + 2 runs of 50 epochs, and no epoch twice.
    assert world.now == 14 * 50


def test_no_epoch_is_trained_twice():
    world = eight()
    world.choose(300)
    assert world.now == sum(world.trained_to.values())


@pytest.mark.parametrize("budget", [11, 13.7, 31, 55, 100, 333])
@pytest.mark.parametrize("overhead", [0, 0.3])
def test_the_budget_holds(budget: float, overhead: float):
    world = eight()
    world.overhead = overhead
    assert world.choose(budget).best == "f"
    assert world.now <= budget  # foretold speeds are exact here


def test_a_slowdown_costs_one_trial_at_most():
    # From the sixth call on everything is ten times slower than foretold.
    world = eight()
    train, longest = world.train, []

    def slower(cell: str, seed: int, epochs: int) -> Trial:
        before = world.now
        trial = train(cell, seed, epochs)
        if len(world.calls) > 10:
            world.now += 9 * (world.now - before)
        longest.append(world.now - before)
        return trial

    world.train = slower
    world.choose(100)
    assert world.now <= 100 + max(longest)
    assert world.late == [1]


def test_expensive_candidates_are_counted_in_seconds():
    # g costs 20 s per epoch: 27 s for the probe, 40 for tests; (500 - 27 - 40) / 3 = 144 s in
    # round 1 for 27 (e - 1): e = 6.
    world = eight()
    world.speed["g"] = 20
    choice = world.choose(500)
    assert world.rounds[0].epochs == 6
    assert choice.best == "f"
    assert world.now <= 500
    # All of a round are judged at the same age, whatever they cost.
    assert {epochs for _, _, epochs in world.calls[8:16]} == {6}


def test_the_first_round_has_some_epochs():
    # 8 s for the probe, 2 for tests; a third of the rest, 12.7 s, would be one more epoch of each;
    # half of it reaches 1 + 19 / 8 = 3 epochs, and 3 are wanted.
    world = eight()
    world.choose(48)
    assert world.rounds[0].epochs == 3


def test_the_first_round_leaves_half_of_the_time_to_the_others():
    # Half of 30 s reaches 1 + 15 / 8 = 2 epochs, however many are wanted.
    world = eight()
    world.choose(40)
    assert world.rounds[0].epochs == 2


def test_a_late_starter_that_overtakes_in_time_is_found():
    # b is ahead until epoch 6, c from then on; round 1 of 200 s ends after that.
    world = eight()
    world.curves["b"] = lambda seed, epoch: 0.3 if epoch > 2 else 0.25
    world.curves["c"] = lambda seed, epoch: min(0.05 * epoch, 0.8)
    world.curves["f"] = towards(0.2, 5)
    choice = world.choose(300)
    assert world.rounds[0].epochs > 6
    assert choice.best == "c"


def test_a_late_starter_that_is_dropped_is_said_to_be_improving():
    world = World({"fast": towards(0.3, 1), "other": towards(0.29, 1), "flat": lambda s, e: 0.1})
    world.curves["late"] = lambda seed, epoch: 0.001 * epoch  # 1 in the end
    world.choose(60, max_epochs=1000)
    dropped = {c: why for j in world.judgements for c, why in j.dropped.items()}
    assert dropped["late"].endswith("; still improving")
    assert not dropped["flat"].endswith("improving")
    assert "0.1000 is below number 2 of 4, 0.2" in dropped["flat"]


def test_equals_are_kept_and_said_to_be_equal():
    same = towards(0.3, 5)
    world = World({"a": same, "b": same, "c": same, "d": towards(0.1, 5), "e": towards(0.1, 5)})
    choice = world.choose(1000)
    # Round 1 keeps 3 of 5, round 2 would keep 2 of 3.
    assert [set(j.kept) for j in world.judgements] == [set("abc")] * 3
    assert choice.best == "a"  # the first named of equal ones
    assert choice.equals == ("b", "c")
    assert choice.survivors == ("a", "b", "c")


def test_noise_of_one_seed_is_a_fraction():
    values = {"a": 0.2, "b": 0.2 * 0.98, "c": 0.2 * 0.96, "d": 0.1}
    world = World({name: lambda s, e, v=v: v for name, v in values.items()})
    choice = world.choose(1000, seeds=(0,))
    # b is within 3% of the best, c is within 3% of b: in for another round, not in the end.
    assert world.judgements[0].kept == ("a", "b", "c")
    assert choice.equals == ("b",)
    assert choice.survivors == ("a", "b")


def test_noise_over_seeds_by_hand():
    # Differences a - b are 0.2, 0.4, 0.6 with the three seeds: mean 0.4, sd 0.2. With two
    # candidates the pooled formula is the paired one: standard error 0.2 / sqrt(3), noise twice it.
    # What all candidates share with a seed is no noise.
    world = World({"a": lambda s, e: 1.0, "b": lambda s, e: 1.0})
    world.curves["a"] = lambda s, e: (1.2, 2.4, 0.6)[s]
    world.curves["b"] = lambda s, e: (1.0, 2.0, 0.0)[s]
    choice = world.choose(1000, max_epochs=5)
    assert choice.last.means == {"a": pytest.approx(1.4), "b": pytest.approx(1.0)}
    assert choice.last.noise == pytest.approx(2 * 0.2 / math.sqrt(3))
    assert choice.equals == ()  # 0.4 > 0.231
    world.curves["b"] = lambda s, e: (1.2, 2.2, 0.4)[s]  # differences 0, 0.2, 0.2
    assert world.choose(1000, max_epochs=5).last.noise == pytest.approx(
        2 * np.std([0, 0.2, 0.2], ddof=1) / math.sqrt(3)
    )


def test_a_failure_stops_nobody_else():
    world = eight()

    def refused(seed: int, epoch: int) -> float:
        raise CandidateError("it has no density")

    def explodes(seed: int, epoch: int) -> float:
        if epoch > 5:
            raise CandidateError("the loss is not finite")
        return 0.9

    world.curves |= {"a": refused, "b": lambda seed, epoch: math.nan, "h": explodes}
    memory = Memory()
    assert world.choose(300, memory=memory).best == "f"
    assert memory.failed == {
        "a": "it has no density",
        "b": "its validation value is -inf",  # nothing is larger than the start
        "h": "the loss is not finite",
    }
    assert {c for j in world.judgements for c in j.means}.isdisjoint("abh")
    # Once is enough.
    assert [cell for cell, _, _ in world.calls].count("a") == 1


def test_all_fail():
    def refused(seed: int, epoch: int) -> float:
        raise CandidateError("the table is empty")

    with pytest.raises(InputError, match=r"^no candidate can be trained; a: the table is empty$"):
        World({"a": refused, "b": refused}).choose(100)


def test_all_fail_late():
    def explodes(seed: int, epoch: int) -> float:
        if epoch > 5:
            raise CandidateError("the loss is not finite")
        return 0.1

    with pytest.raises(InputError, match="no candidate can be trained; a: the loss is not finite"):
        World({"a": explodes, "b": explodes}).choose(100)


def test_converged_runs_cost_nothing_more():
    # Flat from epoch 5 on, patience 10: each run ends after 15 epochs.
    slopes = {"a": 0.1, "b": 0.08, "c": 0.06, "d": 0.04}
    world = World({name: lambda s, e, x=x: x * min(e, 5) for name, x in slopes.items()})
    world.patience = 10
    # Round 1: (300 - 4 - 2) / 2 = 147 s for 4 (e - 1): 37 epochs. In round 2 the two that are left
    # have ended, so 500 epochs cost nothing, and another seed is expected to end after 15, too.
    choice = world.choose(300, max_epochs=500)
    assert [(r.epochs, r.seeds) for r in world.rounds] == [(37, (0,)), (500, (0, 1, 2))]
    assert choice.best == "a"
    assert set(world.trained_to.values()) == {15}
    # Seed 0: the probe and one long call; another seed: one call.
    assert len(world.calls) == 4 * 2 + 2 * 2


@pytest.mark.parametrize("enough", [False, True])
def test_a_budget_too_small_says_which_one_works(enough: bool):
    world = eight()
    world.overhead = 0.5
    memory = Memory()
    with pytest.raises(InputError, match="too small for one epoch of each of 8") as refused:
        world.choose(5, memory=memory)
    assert world.now <= 5 + 1.5
    # The whole probe takes 8 x 1.5 = 12 s, and 1.2 times that is asked for: 14.4.
    assert "budget=15s or more" in str(refused.value)
    assert world.choose(15 if enough else 12.5, memory=memory).best == "f"
    assert len([call for call in world.calls if call[2] == 1]) == 8  # what was trained is kept


def test_a_probe_alone_chooses_too_and_says_that_time_ran_out():
    world = eight()
    choice = world.choose(8.5)
    assert choice.best == "f"
    assert choice.last.round.epochs == 1
    assert world.late == [1, 2, 3]


def test_without_time_for_all_the_better_half_goes_on():
    # 8 s for the probe, 2 for tests. Of the 5 s that are left 8 candidates take 8 for an epoch, so
    # half of them are dropped after one epoch; the 4 others get one each; one is left, for nobody.
    world = eight()
    choice = world.choose(15)
    assert world.late == [1, 3]
    assert [(r.number, r.epochs, len(r.cells)) for r in world.rounds] == [(2, 2, 4)]
    assert choice.best == "f"
    assert choice.last.round.epochs == 2
    assert world.now == 12


def test_the_same_twice():
    one, two = eight(), eight()
    assert one.choose(123) == two.choose(123)
    assert one.calls == two.calls


@pytest.mark.parametrize("stop_at", [0, 3, 8, 9, 15, 17, 20, 21])
def test_an_interrupted_choice_goes_on_to_the_same_end(stop_at: int):
    whole = eight()
    expected = whole.choose(240)
    assert stop_at < len(whole.calls)
    world = eight()
    world.stop_at = stop_at
    memory = Memory()
    with pytest.raises(KeyboardInterrupt):
        world.choose(240, memory=memory)
    world.stop_at = 10**6
    saved = json.loads(json.dumps(memory.as_dict()))
    assert Memory.of(saved) == memory
    assert world.choose(240, memory=Memory.of(saved)) == expected
    assert world.calls == whole.calls
    assert world.now == whole.now


def test_with_another_budget_what_was_dropped_stays_dropped():
    # Interrupted in round 2, which 4 of 8 are in, since there was no time for round 1.
    world = eight()
    world.stop_at = 10
    memory = Memory()
    with pytest.raises(KeyboardInterrupt):
        world.choose(15, memory=memory)
    world.stop_at = 10**6
    assert world.choose(500, memory=memory).best == "f"
    assert [(r.number, len(r.cells)) for r in memory.rounds] == [(2, 4), (3, 2)]
    assert memory.rounds[1].epochs > 50


def test_epochs_come_with_validations():
    world = eight()
    world.choose(700, every=4)
    assert {epochs % 4 for _, _, epochs in world.calls} == {0}
    assert world.calls[0] == ("a", 0, 4)


def test_eta_of_one_would_never_end():
    with pytest.raises(ValueError, match="eta must be at least 2, got 1"):
        eight().choose(10, eta=1)
