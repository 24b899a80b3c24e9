import copy
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

from negrec.embedding import look_up
from negrec.losses.bce import BCE
from negrec.models.sasrec import SASRec
from negrec.objectives.ranking import Ranking
from negrec.objectives.ranking_with_teacher import RankingWithTeacher
from negrec.samplers.base import Sampler
from negrec.samplers.hard_memory import HardMemory
from negrec.samplers.uniform import Uniform
from negrec.training.lazy_adam import LazyAdam
from negrec.types import Negatives
from tests import toy
from tests.training.test_trainer import Run, same

CONF = Path(__file__).parents[2] / "conf"
V = 20
BATCH = toy.batch([[1, 2, 3, 4], [5, 6, 7]])  # five queries


class Mines(Sampler):
    """Answers with items 9 and 10 for everybody, and mines item 10 of queries 1 and 3."""

    def __init__(self, info, mined=True):
        super().__init__(info)
        self.mined = None
        if mined:
            self.mined = torch.zeros(5, 2, dtype=torch.bool)
            self.mined[[1, 3], 1] = True

    def sample(self, queries, scorer, step):
        return Negatives(torch.tensor([[9, 10]]), mined=self.mined)


class WithBuffers(SASRec):
    """A model that counts its batches, and keeps a moving number."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("batches", torch.tensor(0))
        self.register_buffer("moving", torch.tensor(0.0))


def model(dropout=0.0):
    torch.manual_seed(0)
    return WithBuffers(toy.info(V), dim=8, dropout=dropout, init_std=0.3)


def bound(student, sampler=Mines, **settings):
    made = RankingWithTeacher(toy.info(V), None, sampler, BCE(), **{"start": 0, **settings})
    made.bind(student)
    return made


def shift(module, by):
    """A step of an optimiser, for people: every parameter moves by the same."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += by


def weights(module):
    return {name: value.clone() for name, value in module.named_parameters()}


def test_the_teacher_is_apart_frozen_and_checkpointed():
    student = model()
    made = bound(student)
    assert not any(p.requires_grad for p in made.parameters())
    assert all(p.requires_grad for p in student.parameters())
    own = {p.data_ptr() for p in student.parameters()}
    assert not own & {p.data_ptr() for p in made.teacher.parameters()}
    saved = made.state_dict()
    assert {f"teacher.{name}" for name in student.state_dict()} < set(saved)
    assert "begun" in saved


def test_updates_after_the_step_follow_equation_6():
    student = model()
    made = bound(student, decay=0.75)
    shift(student, 1.0)  # between binding and the start it learnt: the teacher begins from there
    start = weights(student)
    outcome = made(student, BATCH, toy.step())
    assert all(torch.equal(v, start[k]) for k, v in made.teacher.named_parameters())
    shift(student, 4.0)
    made.observe(student, outcome.feedback)
    for name, value in made.teacher.named_parameters():  # w + (1 - 0.75) * 4
        torch.testing.assert_close(value, start[name] + 1.0)
    outcome = made(student, BATCH, toy.step())
    shift(student, 8.0)
    made.observe(student, outcome.feedback)
    for name, value in made.teacher.named_parameters():  # 0.75 * 1 + 0.25 * 12 = 3.75
        torch.testing.assert_close(value, start[name] + 3.75)


def test_updates_before_the_step_come_before_the_teacher_is_asked():
    student = model()
    made = bound(student, decay=0.75, teacher_update="before")
    start = weights(student)
    for expected, by in ((0.0, 4.0), (1.0, 8.0), (3.75, 0.0)):
        outcome = made(student, BATCH, toy.step())
        for name, value in made.teacher.named_parameters():
            torch.testing.assert_close(value, start[name] + expected)
        shift(student, by)
        made.observe(student, outcome.feedback)


def test_buffers_follow_too():
    student = model()
    made = bound(student, decay=0.75)
    outcome = made(student, BATCH, toy.step())
    student.batches += 3
    student.moving += 8.0
    made.observe(student, outcome.feedback)
    assert made.teacher.batches.item() == 3  # a count has no average
    assert made.teacher.moving.item() == 2.0


def test_it_follows_rows_that_an_optimiser_has_not_stored_yet():
    student = model()
    made = bound(student, decay=0.5)
    started = student.scorer.weight.detach().clone()
    optimizer = LazyAdam(student.parameters(), lr=0.1, rows="lazy")
    student(BATCH).hidden.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.step()  # without a gradient
    made._follow(student, 0.5)
    now = look_up(student.scorer.weight, torch.arange(V)).detach()
    assert (now - student.scorer.weight).abs().max() > 0.01
    torch.testing.assert_close(made.teacher.scorer.weight.detach(), (started + now) / 2)


def test_decay_zero_is_the_model_itself():
    student = model()
    made = bound(student, decay=0.0)
    outcome = made(student, BATCH, toy.step())
    shift(student, 0.3)
    made.observe(student, outcome.feedback)
    assert same(made.teacher.state_dict(), student.state_dict())


def test_the_consistency_is_the_mean_over_mined_items_of_equation_7():
    student = model()
    made = bound(student, weight=0.3)
    made(student, BATCH, toy.step())
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():  # now they differ, each weight in its own way
        for parameter in student.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=noise)
    outcome = made(student, BATCH, toy.step())
    plain = Ranking(toy.info(V), None, Mines, BCE())(student, BATCH, toy.step())

    def scores_of_item_10(module):
        return (module.states(BATCH) @ module.scorer.matrix[9])[[1, 3]]

    soft = torch.sigmoid(scores_of_item_10(made.teacher))
    chance = torch.sigmoid(scores_of_item_10(student))
    expected = -(soft * chance.log() + (1 - soft) * (1 - chance).log()).mean()
    torch.testing.assert_close(outcome.loss, plain.loss + 0.3 * expected)
    torch.testing.assert_close(outcome.feedback.loss, plain.feedback.loss)  # of the ranking alone
    # Its gradient with respect to a score is (chance - soft) / 2, and the teacher has none.
    gradient = torch.autograd.grad(outcome.loss - plain.loss, student.scorer.weight)[0]
    again = torch.autograd.grad(0.3 * expected, student.scorer.weight)[0]
    torch.testing.assert_close(gradient, again)
    assert gradient.abs().max() > 1e-3
    assert all(p.grad is None for p in made.teacher.parameters())


def test_the_teacher_answers_without_dropout_and_draws_nothing():
    student = model(dropout=0.5)
    made, plain = bound(student), Ranking(toy.info(V), None, Mines, BCE())
    student.train()
    made.train()
    torch.manual_seed(1)
    made(student, BATCH, toy.step())
    after = torch.get_rng_state()
    torch.manual_seed(1)
    plain(student, BATCH, toy.step())
    assert torch.equal(after, torch.get_rng_state())
    assert not any(module.training for module in made.teacher.modules())


@pytest.mark.parametrize("settings", [{"weight": 0.0}, {"start": 5}])
def test_without_weight_or_before_the_start_the_loss_is_that_of_ranking(settings):
    student = model()
    made = bound(student, **settings)
    plain = Ranking(toy.info(V), None, Mines, BCE())
    for epoch in range(2):
        shift(student, 0.1)
        outcome = made(student, BATCH, toy.step(0, epoch))
        made.observe(student, outcome.feedback)
        assert torch.equal(outcome.loss, plain(student, BATCH, toy.step(0, epoch)).loss)


def test_the_teacher_is_evaluated_once_it_has_started():
    student = model()
    made = bound(student, start=1, decay=0.5)
    other = bound(student, start=1, decay=0.5, evaluate_teacher=False)
    for objective in (made, other):
        assert objective.evaluated(student) is student
        for epoch in range(2):
            outcome = objective(student, BATCH, toy.step(0, epoch))
            objective.observe(student, outcome.feedback)
            if epoch == 0:
                assert objective.evaluated(student) is student
    assert made.evaluated(student) is made.teacher
    assert other.evaluated(student) is student


def test_the_control_is_an_average_without_mining():
    student, twin = model(), model()
    made = bound(student, sampler=lambda info: Uniform(info, k=2), decay=0.5)
    plain = Ranking(toy.info(V), None, lambda info: Uniform(info, k=2), BCE())
    for seed in range(3):
        one, other = made(student, BATCH, toy.step(seed)), plain(twin, BATCH, toy.step(seed))
        assert torch.equal(one.loss, other.loss)
        for module in (student, twin):
            shift(module, 0.1)
        made.observe(student, one.feedback)
    # Three steps of 0.1: the teacher is 0.5, 0.5 + 0.25, ... of a step behind: 0.1 * (1 - 1/8).
    slow, fast = made.evaluated(student).scorer.weight, student.scorer.weight
    assert not torch.equal(slow, fast)
    torch.testing.assert_close(fast - slow, torch.full_like(fast, 0.0875))


def test_mining_and_the_teacher_see_the_same_losses_and_start_together():
    made, student = run_of("reverse", Path()).objective, model()
    made.bind(student)
    for epoch in range(12):
        for seed in range(2):
            outcome = made(student, BATCH, toy.step(10 * epoch + seed, epoch))
            assert made.starting.started(epoch) == made.sampler.starting.started(epoch)
            made.observe(student, outcome.feedback)
    assert made.starting.started(11)
    assert same(made.starting.state_dict(), made.sampler.starting.state_dict())


def run_of(action, folder, **settings):
    run = Run(folder, max_epochs=12, **settings)
    sequences = run.trainer.loader.sequences
    run.objective = RankingWithTeacher(
        sequences.facts(toy.info(V)),
        sequences,
        lambda info: Uniform(info, k=6),
        BCE(),
        lambda info, base: HardMemory(info, base, action=action, m=1),
        decay=0.9,
        teacher_update="before" if action == "track" else "after",
    )
    return run


FIRST = 40  # the step, of five an epoch, that mining starts with


@pytest.mark.parametrize(
    ("cut", "action"),
    [
        (2, "reverse"),
        (FIRST, "reverse"),
        (FIRST, "track"),
        (FIRST + 1, "track"),
        (FIRST + 3, "reverse"),
        (FIRST + 12, "reverse"),
    ],
)
def test_resumed_around_the_start_of_mining_a_run_ends_as_if_it_had_not_been_cut(
    tmp_path, cut, action
):
    whole = run_of(action, tmp_path / "whole")
    mined = []
    forward = whole.objective.forward

    def counting(*args):
        outcome = forward(*args)
        found = outcome.feedback.negatives.mined
        mined.append(None if found is None else int(found.sum()))
        return outcome

    whole.objective.forward = counting
    whole.fit()
    assert mined.index(0) == FIRST
    assert sum(mined[FIRST:]) > 0

    class DiedError(Exception):
        pass

    broken = run_of(action, tmp_path / "broken", checkpoint_minutes=0.0)
    calls, step = [], broken.objective.forward

    def mortal(*args):
        if len(calls) == cut:
            raise DiedError
        calls.append(None)
        return step(*args)

    broken.objective.forward = mortal
    with pytest.raises(DiedError):
        broken.fit()
    resumed = run_of(action, tmp_path / "broken")
    resumed.fit()
    assert same(resumed.validated[-1], whole.validated[-1])
    last = [run.checkpoints.load_last().tensors for run in (resumed, whole)]
    assert last[0].keys() == last[1].keys()
    assert same(*last)
    logged = {**broken.logged, **resumed.logged}
    assert [logged[e]["train/loss"] for e in range(12)] == whole.losses()


def test_the_best_epoch_brings_back_its_own_teacher(tmp_path):
    for best in (3, 10):  # before and after the start
        run = run_of("reverse", tmp_path / str(best))
        run.values = {best: 1.0}
        run.fit()
        shown = run.objective.evaluated(run.model)
        assert (shown is run.model) == (best == 3)
        assert same(shown.state_dict(), run.validated[best])


def test_a_copy_goes_on_like_the_original():
    student = model()
    made = bound(student, decay=0.5)
    made(student, BATCH, toy.step())
    twin, pupil = copy.deepcopy(made), copy.deepcopy(student)
    for objective, module in ((made, student), (twin, pupil)):
        outcome = objective(module, BATCH, toy.step())
        shift(module, 1.0)
        objective.observe(module, outcome.feedback)
    assert same(made.state_dict(), twin.state_dict())
    assert not same(made.teacher.state_dict(), student.state_dict())


def test_a_state_that_has_not_begun_begins_anew():
    student = model()
    made = bound(student, decay=0.5)
    before = copy.deepcopy(made.state_dict())
    made(student, BATCH, toy.step())
    made.load_state_dict(before)
    shift(student, 1.0)
    made(student, BATCH, toy.step())
    assert same(made.teacher.state_dict(), student.state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1.0}, r"decay must be in \[0, 1\), got 1.0: with 1 a teacher never learns"),
        ({"decay": -0.1}, r"decay must be in \[0, 1\), got -0.1"),
        ({"weight": -1.0}, "weight must be at least 0 and finite, got -1.0"),
        ({"weight": float("inf")}, "weight must be at least 0 and finite, got inf"),
        ({"weight": float("nan")}, "weight must be at least 0 and finite, got nan"),
        ({"teacher_update": "never"}, "teacher_update must be before or after, got 'never'"),
        ({"start": "late"}, "start must be plateau or an epoch from 0, got 'late'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        bound(model(), **settings)


@pytest.mark.parametrize("start", ["plateau", 7])
def test_one_value_starts_mining_and_the_teacher(start):
    overrides = [] if start == "plateau" else [f"mining_start={start}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["experiment=ufnrec", *overrides])
    run = run_of("reverse", Path())
    sequences = run.trainer.loader.sequences
    made = instantiate(cfg.objective)(sequences.facts(toy.info(100)), sequences)
    assert cfg.objective.start == cfg.false_negatives.start == start
    assert isinstance(made, RankingWithTeacher)
    assert made.sampler.starting.started(7) == made.starting.started(7) == (start == 7)
    assert isinstance(made, nn.Module)
