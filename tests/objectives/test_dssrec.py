from math import log

import pytest
import torch

from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from negrec.losses.bce import BCE
from negrec.models.dssrec import DSSRec
from negrec.models.sasrec import SASRec
from negrec.objectives.dssrec import RankingWithIntentions, halves, seq2seq
from negrec.objectives.ranking import Ranking
from negrec.samplers.uniform import Uniform
from tests import toy
from tests.training.test_trainer import TRAIN, Run, same

V = 20
SEQUENCES = Sequences(TRAIN, 8, NextItem())
HISTORIES = [[1, 2], [3, 4, 5], *toy.random_histories(8, V, 8)]


def model(dropout=0.0):
    torch.manual_seed(0)
    return DSSRec(toy.info(V), dim=8, dropout=dropout, intentions=3, init_std=0.3)


def objective(**settings):
    return RankingWithIntentions(
        toy.info(V), SEQUENCES, lambda info: Uniform(info, k=2), BCE(), **settings
    )


def ranking():
    return Ranking(toy.info(V), SEQUENCES, lambda info: Uniform(info, k=2), BCE())


def rows(batch):
    return [part.tolist() for part in batch.items.split(batch.offsets.diff().tolist())]


def test_the_halves_of_a_sequence_are_the_sequence():
    batch = toy.batch(HISTORIES)
    earlier, later = halves(batch)
    for history, before, after in zip(HISTORIES, rows(earlier), rows(later), strict=True):
        assert before
        assert after
        assert before + after[::-1] == history
    for half in (earlier, later):
        assert half.position.tolist() == [i for row in rows(half) for i in range(len(row))]
        assert torch.equal(half.user, batch.user)


def test_every_cut_is_as_likely_as_the_others():
    # Four items: after the first, the second or the third; 600 sequences, 200 each.
    torch.manual_seed(0)
    earlier, _ = halves(toy.batch([[1, 2, 3, 4]] * 600))
    assert toy.chi_square_p(earlier.offsets.diff() - 1, torch.full((3,), 1 / 3)) > 1e-3
    assert earlier.offsets.diff().unique().tolist() == [1, 2, 3]


def test_the_loss_by_hand():
    # D = 4. Scores (2 ln 3) / 2 = ln 3 and 0: 3 / (3 + 1); and of the second 1 / (1 + 1).
    earlier = torch.tensor([[[2.0, 0, 0, 0]], [[0.0, 0, 0, 0]]])
    later = torch.tensor([[[log(3), 0, 0, 0]], [[0.0, 5, 0, 0]]])
    assert seq2seq(earlier, later, 1.0).item() == pytest.approx((log(4 / 3) + log(2)) / 2)
    assert seq2seq(earlier, later, 0.5).item() == pytest.approx(log(4 / 3))  # the lower one
    assert seq2seq(earlier, later, 0.01).item() == pytest.approx(log(4 / 3))  # at least one


def test_the_loss_pair_by_pair():
    torch.manual_seed(0)
    earlier, later = torch.randn(5, 3, 8), torch.randn(5, 3, 8)
    losses = []
    for u in range(5):
        for k in range(3):
            scores = {
                (v, j): torch.exp(earlier[u, k] @ later[v, j] / 8**0.5)
                for v in range(5)
                for j in range(3)
            }
            losses.append(-torch.log(scores[u, k] / sum(scores.values())).item())
    for confident, kept in ((1.0, 15), (0.4, 6), (0.41, 7)):
        expected = sum(sorted(losses)[:kept]) / kept
        assert seq2seq(earlier, later, confident).item() == pytest.approx(expected, rel=1e-5)


def test_a_step_is_ranking_plus_the_weighted_loss_of_views_encoded_one_by_one():
    student, made, batch = model(), objective(weight=0.3), toy.batch(HISTORIES)
    made.bind(student)
    torch.manual_seed(5)
    outcome = made(student, batch, toy.step())
    plain = ranking()(student, batch, toy.step())
    torch.manual_seed(5)
    earlier, later = (
        torch.cat([student.intentions(toy.batch([[*row, 1]]), after) for row in rows(half)])
        for half, after in zip(halves(batch), (False, True), strict=True)
    )
    expected = seq2seq(earlier, later, 0.5)
    torch.testing.assert_close(outcome.loss, plain.loss + 0.3 * expected)
    torch.testing.assert_close(outcome.terms["ranking"], plain.loss)
    torch.testing.assert_close(outcome.terms["auxiliary"], expected)
    expected.backward()
    reached = student.disentangle
    assert reached.later_bias.grad.abs().amax(1).min() > 1e-4
    assert reached.bias.grad.abs().amax(1).min() > 1e-4  # both sides learn
    assert reached.prototypes.grad.abs().amax(1).min() > 1e-5


def test_a_sequence_alone_with_one_intention_has_nothing_to_be_mistaken_for():
    torch.manual_seed(0)
    student = DSSRec(toy.info(V), dim=8, intentions=1)
    outcome = objective()(student, toy.batch([[1, 2, 3]]), toy.step())
    assert outcome.terms["auxiliary"].item() == 0.0


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
    whole = run_of(objective(), tmp_path / "whole")
    whole.fit()
    broken = run_of(objective(), tmp_path / "broken", checkpoint_minutes=0.0)
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
    resumed = run_of(objective(), tmp_path / "broken")
    resumed.fit()
    assert same(resumed.validated[-1], whole.validated[-1])
    assert resumed.losses()[-1] == whole.losses()[-1]


def test_a_model_without_intentions_is_refused():
    message = "does not go with model SASRec, which has no vectors of intentions: use model=dssrec"
    with pytest.raises(ValueError, match=message):
        objective().bind(SASRec(toy.info(V), dim=8))


def test_other_targets_are_refused():
    class Hidden:
        extra, shortest = 0, 1

    sequences = Sequences(TRAIN, 8, Hidden())
    with pytest.raises(ValueError, match=r"does not go with targets Hidden: .* targets=next_item"):
        RankingWithIntentions(toy.info(V), sequences, lambda info: Uniform(info, k=2), BCE())


@pytest.mark.parametrize("confident", [0.0, -0.5, 1.5, float("nan")])
def test_bad_fractions_are_refused(confident):
    with pytest.raises(ValueError, match=rf"confident must be in \(0, 1\], got {confident}"):
        objective(confident=confident)
