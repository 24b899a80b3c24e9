from math import log

import pytest
import torch
from torch import nn

from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from negrec.losses.bce import BCE
from negrec.models.mminforec import MMInfoRec
from negrec.models.sasrec import SASRec
from negrec.objectives import mminforec
from negrec.objectives.mminforec import RankingWithMINCE
from negrec.objectives.ranking import Ranking
from negrec.samplers.uniform import Uniform
from tests import toy
from tests.training.test_trainer import TRAIN, Run, same

V = 20
SEQUENCES = Sequences(TRAIN, 8, NextItem())
# Targets 2, 3, 4 | 6, 7 | 3 | 1, 9: item 3 is a target twice.
BATCH = toy.batch([[1, 2, 3, 4], [5, 6, 7], [8, 3], [9, 1, 9]])
TARGETS, OWNER = [2, 3, 4, 6, 7, 3, 1, 9], [0, 0, 0, 1, 1, 2, 3, 3]


def model(dropout=0.0, **settings):
    torch.manual_seed(0)
    return MMInfoRec(
        toy.info(V), dim=8, dropout=dropout, memory_dropout=dropout, init_std=0.5, **settings
    )


def objective(**settings):
    return RankingWithMINCE(
        toy.info(V), SEQUENCES, lambda info: Uniform(info, k=2), BCE(), **settings
    )


def ranking():
    return Ranking(toy.info(V), SEQUENCES, lambda info: Uniform(info, k=2), BCE())


def auxiliary(made, student, batch=BATCH, seed=0):
    torch.manual_seed(seed)
    return made.auxiliary(student, batch, student(batch), toy.step())


class Recorded(nn.Module):
    """Scales instances at random, and keeps what it gave."""

    def __init__(self):
        super().__init__()
        self.given = []
        self.noise = torch.Generator().manual_seed(1)  # torch's own stream draws the negatives

    def forward(self, vectors):
        noise = torch.rand(vectors.shape, generator=self.noise)
        self.given.append(vectors * noise)
        return self.given[-1]


def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_choice():
    # Every score is 0: 1 of 1 + C', whatever J, where C' are the targets that differ from one's
    # own: 6 for the two 3s of 8, 7 for the others. One step ahead: 3, 4 | 7 | 9: 6 once, 7 thrice.
    student = model()
    with torch.no_grad():
        student.scorer.weight.zero_()
    one = (6 * log(8) + 2 * log(7)) / 8
    assert auxiliary(objective(steps=1), student).item() == pytest.approx(one, rel=1e-6)
    # Two steps ahead: 4. In all 6 + 3 + 1 of eight, and 2 + 1 of seven.
    for steps, losses in ((2, [9, 3]), (3, [10, 3]), (9, [10, 3])):
        expected = (losses[0] * log(8) + losses[1] * log(7)) / sum(losses)
        assert auxiliary(objective(steps=steps), student).item() == pytest.approx(
            expected, rel=1e-6
        )


@pytest.mark.parametrize("negatives", [256, 4])
def test_the_loss_query_by_query(negatives):
    student = model()
    made = objective(instances=3, steps=3, negatives=negatives, temperature=0.7)
    made.instance_dropout = Recorded()
    value = auxiliary(made, student)
    own, others = made.instance_dropout.given  # (J, N, D), (J, C, D)
    torch.manual_seed(0)
    drawn = torch.randperm(8)[:negatives].tolist()
    assert others.shape == (3, min(negatives, 8), 8)
    hidden = student(BATCH).hidden
    states = [hidden, *student.following(hidden, 2)]
    losses = []
    for s in range(3):
        for n in range(8):
            if n + s >= 8 or OWNER[n + s] != OWNER[n]:
                continue
            item, z = TARGETS[n + s], states[s][n]
            right = sum(torch.exp(z @ own[j, n + s] / 0.7) for j in range(3))
            wrong = sum(
                torch.exp(z @ others[j, c] / 0.7)
                for c, m in enumerate(drawn)
                for j in range(3)
                if TARGETS[m] != item
            )
            losses.append(-torch.log(right / (right + wrong)))
    assert len(losses) == 8 + 4 + 1
    torch.testing.assert_close(value, sum(losses) / len(losses))


def test_one_instance_without_dropout_is_a_softmax_over_the_targets_of_the_batch():
    student = model()
    made = objective(instances=1, steps=1, instance_dropout=0.0)
    score = student(BATCH).hidden @ student.scorer.matrix[[t - 1 for t in TARGETS]].T
    same_item = torch.tensor([[a == b for b in TARGETS] for a in TARGETS])
    score = score.masked_fill(same_item & ~torch.eye(8, dtype=torch.bool), -torch.inf)
    expected = -score.log_softmax(1).diagonal().mean()
    torch.testing.assert_close(auxiliary(made, student), expected)


def test_chunks_change_neither_the_loss_nor_its_gradient(monkeypatch):
    student, made = model(), objective(negatives=5)

    def run():
        student.zero_grad(set_to_none=True)
        value = auxiliary(made, student)
        value.backward()
        return value.detach(), [p.grad.clone() for p in student.parameters()]

    value, gradients = run()
    monkeypatch.setattr(mminforec, "_SCORES", 3 * 4 * 5)  # three queries of 4 * 5 scores
    assert all((g != 0).any() for g in gradients)
    chunked, chunked_gradients = run()
    torch.testing.assert_close(chunked, value)
    torch.testing.assert_close(chunked_gradients, gradients)


def test_instances_differ_and_half_of_each_is_dropped():
    made = objective(instances=50)
    given = made._instances(torch.ones(20, 8))
    assert given.shape == (50, 20, 8)
    assert set(given.unique().tolist()) == {0.0, 2.0}
    # 8000 fair coins: a standard error of 0.0056.
    assert (given > 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert not torch.equal(given[0], given[1])


def test_the_loss_is_a_weighted_sum_and_the_paper_leaves_ranking_out():
    student = model()

    def step_of(made):
        torch.manual_seed(3)
        return made(student, BATCH, toy.step())

    plain = step_of(ranking()).loss
    torch.manual_seed(3)
    contrast = auxiliary(objective(), student, seed=3)
    torch.testing.assert_close(step_of(objective(weight=0.3)).loss, plain + 0.3 * contrast)
    torch.testing.assert_close(step_of(objective(ranking=0.0)).loss, contrast)
    both = step_of(objective(ranking=0.5, weight=2.0))
    torch.testing.assert_close(both.loss, 0.5 * plain + 2 * contrast)
    torch.testing.assert_close(both.terms["auxiliary"], contrast)
    torch.testing.assert_close(both.terms["ranking"], plain)  # both terms without their weights
    torch.testing.assert_close(step_of(objective(ranking=0.5, weight=0.0)).loss, 0.5 * plain)


def run_of(made, folder, **settings):
    run = Run(folder, **settings)
    run.model, run.objective = model(dropout=0.5), made
    return run


def test_without_weight_training_is_that_of_ranking_to_the_last_bit(tmp_path):
    runs = [run_of(objective(weight=0.0), tmp_path / "a"), run_of(ranking(), tmp_path / "b")]
    for run in runs:
        run.fit()
    assert runs[0].losses() == runs[1].losses()
    assert same(runs[0].model.state_dict(), runs[1].model.state_dict())


def test_a_resumed_run_ends_as_if_it_had_not_been_cut(tmp_path):
    whole = run_of(objective(negatives=5), tmp_path / "whole")
    whole.fit()
    broken = run_of(objective(negatives=5), tmp_path / "broken", checkpoint_minutes=0.0)
    calls, forward = [], broken.objective.forward

    class DiedError(Exception):
        pass

    def mortal(*args):
        if len(calls) == 7:  # in the second epoch of five steps
            raise DiedError
        calls.append(None)
        return forward(*args)

    broken.objective.forward = mortal
    with pytest.raises(DiedError):
        broken.fit()
    resumed = run_of(objective(negatives=5), tmp_path / "broken")
    resumed.fit()
    assert same(resumed.validated[-1], whole.validated[-1])
    assert resumed.losses()[-1] == whole.losses()[-1]


def test_a_model_that_foretells_nothing_is_refused():
    message = "model SASRec, which cannot foretell the items after the next: use model=mminforec"
    with pytest.raises(ValueError, match=message):
        objective().bind(SASRec(toy.info(V), dim=8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ranking": -1.0}, "ranking must be at least 0 and finite, got -1.0"),
        ({"ranking": 0.0, "weight": 0.0}, "ranking and weight must not both be 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"instances": 0}, "instances must be at least 1, got 0"),
        ({"negatives": 0}, "negatives must be at least 1, got 0"),
        ({"instance_dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        objective(**settings)
