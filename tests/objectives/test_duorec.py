import pytest
import torch

from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from negrec.losses.bce import BCE
from negrec.models.mf import MF
from negrec.models.sasrec import SASRec
from negrec.objectives.duorec import DuoRec
from negrec.objectives.ranking import Ranking
from negrec.samplers.uniform import Uniform
from tests import toy
from tests.objectives.test_cl4srec import check_resume, rows
from tests.objectives.test_contrast import plain_info_nce
from tests.training.test_trainer import Run, same

V = 20
LENGTH = 4
# User 2 has one interaction, user 3 none: item 1 is the target of users 0, 1 and, twice, 4.
TRAIN = [[2, 3, 1], [4, 1], [1], [], [5, 6, 7, 1, 8, 9, 1, 10], [11, 10, 12]]


def sampler(info):
    return Uniform(info, k=2)


def sequences(histories=TRAIN, window="last"):
    return Sequences(toy.jagged(histories), LENGTH, NextItem(), window)


def objective(source=None, **settings):
    source = source or sequences()
    return DuoRec(toy.info(V, max_length=LENGTH), source, sampler, BCE(), **settings)


def model(dropout=0.0):
    torch.manual_seed(0)
    return SASRec(toy.info(V, max_length=LENGTH), dim=8, dropout=dropout, init_std=0.3)


def targets(histories):
    """(index among all interactions, item, what came before it, user) of each training target."""
    found, index = [], 0
    for user, history in enumerate(histories):
        for at, item in enumerate(history):
            if at > 0:
                found.append((index, item, history[:at][-LENGTH:], user))
            index += 1
    return found


def test_draws_are_uniform_over_the_other_histories_with_the_same_target():
    made = objective()
    every = targets(TRAIN)
    torch.manual_seed(0)
    for own, item, _, _ in every:
        others = [index for index, asked, _, _ in every if asked == item and index != own]
        drawn = made.draw(torch.full((3000,), own))
        if not others:
            assert (drawn == own).all()  # there is none
            continue
        place = torch.searchsorted(torch.tensor(others), drawn)
        assert torch.equal(torch.tensor(others)[place], drawn)
        assert toy.chi_square_p(place, torch.full((len(others),), 1 / len(others))) > 0.01
    # Of item 1 there are four, so three for each; of item 10 two, so one.
    assert [item for _, item, _, _ in every].count(1) == 4


def test_histories_are_what_came_before_and_fits():
    made = objective()
    every = targets(TRAIN)
    read = made.histories(torch.tensor([index for index, *_ in every]))
    assert rows(read) == [before for *_, before, _ in every]
    assert read.user.tolist() == [user for *_, user in every]
    places = [p.tolist() for p in read.position.split(read.offsets.diff().tolist())]
    for (*_, before, user), at in zip(every, places, strict=True):
        assert [TRAIN[user][i] for i in at] == before


@pytest.mark.parametrize("window", ["last", "all"])
def test_of_the_own_targets_they_are_the_batch(window):
    source = sequences(toy.random_histories(30, V, 15), window)
    made = objective(source, unsupervised=True, supervised=False)
    batch = Loader(source, len(source), seed=0).batch(torch.randperm(len(source)), (0, 0))
    seen = []
    histories = made.histories
    made.histories = lambda own: seen.append(own) or histories(own)
    student = model()
    made.auxiliary(student, batch, student(batch), toy.step())
    read = histories(seen[0])
    for name in ("items", "offsets", "position", "user"):
        assert torch.equal(getattr(read, name), getattr(batch, name))
    assert torch.equal(source.train.values[seen[0]], batch.target[batch.last])


@pytest.mark.parametrize(
    ("unsupervised", "supervised"), [(True, True), (True, False), (False, True)]
)
def test_the_term_contrasts_the_views_that_are_on(unsupervised, supervised):
    # Without dropout the history's own views are its state.
    source, student = sequences(), model()
    made = objective(
        source, unsupervised=unsupervised, supervised=supervised, temperature=0.7, weight=0.3
    )
    made.bind(student)
    batch = Loader(source, 4, seed=0).batch(torch.arange(4), (0, 0))  # users 0, 1, 4, 5
    torch.manual_seed(5)
    outcome = made(student, batch, toy.step())
    torch.manual_seed(5)
    newest = torch.tensor([2, 4, 13, 16])  # of users 0, 1, 4, 5 among all interactions
    views = made.draw(newest) if supervised else newest
    before = {index: history for index, _, history, _ in targets(TRAIN)}

    def states(indices):
        return [
            student.states(toy.batch([[*before[i], 1]]))[-1].detach().double()
            for i in indices.tolist()
        ]

    expected = plain_info_nce(states(newest), states(views), 0.7)
    plain = Ranking(toy.info(V), None, sampler, BCE())(student, batch, toy.step())
    assert outcome.terms["auxiliary"].item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(outcome.loss, plain.loss + 0.3 * expected)
    assert torch.equal(outcome.feedback.negatives.items, plain.feedback.negatives.items)
    if supervised:
        assert views.tolist() != newest.tolist()


def test_with_dropout_the_two_views_of_a_history_differ():
    # One sequence whose target nobody else has: alone in its batch it would cost 0, so twice two.
    source = sequences([[1, 2, 3], [4, 5, 6]])
    batch = Loader(source, 2, seed=0).batch(torch.arange(2), (0, 0))
    made, student = objective(source), model(dropout=0.5)
    read = []
    represent = student.represent
    student.represent = lambda batch: read.append(represent(batch)) or read[-1]
    made.auxiliary(student, batch, student(batch), toy.step())
    one, two = read[0].chunk(2)
    assert rows(made.histories(torch.tensor([2, 5]))) == [[1, 2], [4, 5]]
    assert not torch.isclose(one, two).all(1).any()


def run_of(folder, **settings):
    run = Run(folder, checkpoint_minutes=0.0, max_epochs=3)
    if settings:
        source = run.trainer.loader.sequences
        run.objective = DuoRec(toy.info(V), source, sampler, BCE(), **settings)
    return run


def test_weight_zero_trains_as_ranking_does(tmp_path):
    none, zero, some = (
        run_of(tmp_path / name, **settings)
        for name, settings in (("a", {}), ("b", {"weight": 0.0}), ("c", {"weight": 0.1}))
    )
    for run in (none, zero, some):
        run.fit()
    assert same(none.model.state_dict(), zero.model.state_dict())
    assert none.losses() == zero.losses()
    assert not same(none.model.state_dict(), some.model.state_dict())


def test_resumed_in_an_epoch_it_ends_as_if_it_had_not_been_cut(tmp_path):
    check_resume(lambda name: run_of(tmp_path / name, weight=0.1))


def test_the_index_is_not_saved_and_moves_along():
    made = objective()
    assert not made.state_dict()
    assert {buffer.device.type for buffer in made.to("meta").buffers()} == {"meta"}


def test_other_targets_are_refused():
    class MaskedItem:
        extra, shortest = 0, 1

    source = sequences()
    source.targets = MaskedItem()
    with pytest.raises(ValueError, match=r"duorec does not go with targets MaskedItem.*next_item"):
        objective(source)


def test_a_model_that_reads_no_history_is_refused():
    with pytest.raises(ValueError, match="the model reads none"):
        objective().bind(MF(toy.info(), dim=8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"unsupervised": False, "supervised": False},
            "one of unsupervised and supervised must be true: both are false",
        ),
        ({"temperature": -1.0}, "temperature must be positive and finite, got -1.0"),
        ({"weight": float("nan")}, "weight must be at least 0 and finite, got nan"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        objective(**settings)
