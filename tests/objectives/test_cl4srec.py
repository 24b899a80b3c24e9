import math
from collections import Counter
from dataclasses import replace
from itertools import combinations, permutations

import pytest
import torch

from negrec.data.sequences import Sequences
from negrec.data.targets import MaskedItem, NextItem
from negrec.losses.bce import BCE
from negrec.models.mf import MF
from negrec.models.sasrec import SASRec
from negrec.objectives.cl4srec import CL4SRec
from negrec.objectives.ranking import Ranking
from negrec.samplers.uniform import Uniform
from tests import toy
from tests.objectives.test_contrast import plain_info_nce
from tests.training.test_trainer import TRAIN, Run, same

V = 20
SEQUENCES = Sequences(TRAIN, 8, NextItem())
OFF = {"crop": 0.0, "mask": 0.0, "reorder": 0.0}


def sampler(info):
    return Uniform(info, k=2)


def objective(max_length=8, **settings):
    return CL4SRec(toy.info(V, max_length=max_length), SEQUENCES, sampler, BCE(), **settings)


def model(dropout=0.0, hides=True):
    torch.manual_seed(0)
    return SASRec(toy.info(V), dim=8, dropout=dropout, hides=hides, init_std=0.3)


def rows(batch):
    """The items of each sequence."""
    return [part.tolist() for part in batch.items.split(batch.offsets.diff().tolist())]


def outcomes(history, operator, ratio):
    """What an operator makes of a history, and how probable it is: every case in turn."""
    n = len(history)
    size = math.floor(ratio * n)
    found = Counter()
    if operator == "crop":
        size = max(1, size)
        for begin in range(n - size + 1):
            found[tuple(history[begin : begin + size])] += 1
    elif operator == "mask":
        for hidden in combinations(range(n), size):
            found[tuple(0 if i in hidden else x for i, x in enumerate(history))] += 1
    else:
        for begin in range(n - size + 1):
            for run in permutations(history[begin : begin + size]):
                found[(*history[:begin], *run, *history[begin + size :])] += 1
    return {view: count / found.total() for view, count in found.items()}


@pytest.mark.parametrize("operator", ["crop", "mask", "reorder"])
@pytest.mark.parametrize("ratio", [0.3, 0.6, 0.75, 1.0])
def test_an_operator_makes_what_a_plain_one_makes_as_often(operator, ratio):
    # Histories of 1, 2, 3 and 5 items (and a target) side by side, 600 times.
    histories = [[1, 2], [3, 4, 5], [6, 7, 8, 9], [10, 11, 12, 13, 14, 15]] * 600
    batch = toy.batch(histories)
    torch.manual_seed(0)
    views = rows(objective(**{**OFF, operator: ratio}).views(batch))
    for kind in range(4):
        expected = outcomes(histories[kind][:-1], operator, ratio)
        index = {view: i for i, view in enumerate(expected)}
        drawn = torch.tensor([index[tuple(view)] for view in views[kind::4]])  # each is a case
        assert len(drawn) == 1200
        chance = torch.tensor(list(expected.values()), dtype=torch.double)
        assert toy.chi_square_p(drawn, chance) > 1e-4  # of 48 comparisons the worst counts


def test_sizes_are_rounded_down_as_written():
    # floor(0.29 * 100) is 28 in floating point, and so it is here; 0.3 * 10 is 3.
    made = objective(max_length=100, crop=0.29, mask=0.3, reorder=1.0)
    assert made.sizes[:, 100].tolist() == [math.floor(0.29 * 100), 30, 100]
    assert made.sizes[:, [1, 3, 10]].tolist() == [[1, 1, 2], [0, 0, 3], [1, 3, 10]]


def test_the_operators_of_the_two_views_are_uniform_and_independent():
    batch = toy.batch([[1, 2, 3, 4, 5, 6]] * 3000)
    torch.manual_seed(0)
    views = rows(objective(crop=0.6, mask=0.4, reorder=0.8).views(batch))
    drawn = [0 if len(view) == 3 else 1 if 0 in view else 2 for view in views]
    one, two = torch.tensor(drawn).view(2, -1)
    assert toy.chi_square_p(3 * one + two, torch.full((9,), 1 / 9)) > 0.01


def test_views_keep_the_user_and_the_places():
    histories = toy.random_histories(40, V, 9)
    batch = replace(toy.batch(histories, max_length=8), user=torch.arange(40) + 7)
    views = objective().views(batch)
    assert views.user.tolist() == [*range(7, 47)] * 2
    assert len(views.query) == len(views.target) == 0
    places = [p.tolist() for p in views.position.split(views.offsets.diff().tolist())]
    for b, (view, at) in enumerate(zip(rows(views), places, strict=True)):
        history = histories[b % 40][:-1]
        assert at == list(range(at[0], at[0] + len(at)))  # contiguous
        if len(view) < len(history):
            assert view == history[at[0] : at[0] + len(at)]
        elif 0 in view:
            assert all(x in (0, y) for x, y in zip(view, history, strict=True))
            assert view.count(0) == math.floor(0.3 * len(history))
        else:
            assert sorted(view) == sorted(history)
        assert histories[b % 40][-1] not in view  # the target is no part of it
    assert any(len(a) != len(b) for a, b in zip(rows(views)[:40], rows(views)[40:], strict=True))


def test_the_batch_is_not_touched():
    batch = toy.batch([[1, 2, 3, 4], [5, 6, 7]])
    objective(**{**OFF, "mask": 1.0}).views(batch)
    assert batch.items.tolist() == [1, 2, 3, 5, 6]


def test_the_term_contrasts_the_states_of_the_views():
    student, made = model(), objective(temperature=0.7)
    made.bind(student)
    batch = toy.batch(toy.random_histories(6, V, 8))
    torch.manual_seed(5)
    outcome = made(student, batch, toy.step())
    plain = Ranking(toy.info(V), None, sampler, BCE())(student, batch, toy.step())
    torch.manual_seed(5)  # without dropout nothing else is drawn from this stream
    views = rows(made.views(batch))
    states = []
    for view in views:
        history = toy.batch([[*view, 1]])
        states.append(student.states(history)[-1].detach().double())
    expected = plain_info_nce(states[:6], states[6:], 0.7)
    assert outcome.terms["auxiliary"].item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(outcome.terms["ranking"], plain.loss)
    torch.testing.assert_close(outcome.loss, plain.loss + 0.1 * expected)
    assert torch.equal(outcome.feedback.negatives.items, plain.feedback.negatives.items)


def test_the_hidden_vector_learns_from_the_contrast_alone():
    student, made = model(), objective()
    made(student, toy.batch([[1, 2, 3, 4, 5, 6]] * 8), toy.step()).loss.backward()
    assert student.input.hidden.grad.abs().max() > 0


def run_of(folder, **settings):
    run = Run(folder, checkpoint_minutes=0.0, max_epochs=3)
    torch.manual_seed(0)
    run.model = SASRec(toy.info(V), dim=8, dropout=0.5, hides=True)
    sequences = run.trainer.loader.sequences
    if settings:
        run.objective = CL4SRec(toy.info(V), sequences, sampler, BCE(), **settings)
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


def test_with_weight_zero_nothing_is_contrasted():
    made = objective(weight=0.0)
    made.auxiliary = None  # a call would fail
    assert not made(model(), toy.batch([[1, 2, 3, 4]]), toy.step()).terms


def test_resumed_in_an_epoch_it_ends_as_if_it_had_not_been_cut(tmp_path):
    check_resume(lambda name: run_of(tmp_path / name, weight=0.1))


def check_resume(make):
    """Two runs, one of them killed in its second epoch, end with the same weights."""
    whole = make("whole")
    whole.fit()

    class DiedError(Exception):
        pass

    broken = make("broken")
    steps, step = [], broken.objective.forward

    def mortal(*args):
        steps.append(None)
        if len(steps) == len(broken.trainer.loader) + 3:
            raise DiedError
        return step(*args)

    broken.objective.forward = mortal
    with pytest.raises(DiedError):
        broken.fit()
    resumed = make("broken")
    resumed.fit()
    assert same(resumed.model.state_dict(), whole.model.state_dict())
    assert resumed.losses()[-1] == whole.losses()[-1]


def test_nothing_is_saved():
    assert not objective().state_dict()


def test_a_model_that_cannot_read_hidden_items_is_refused():
    message = r"cl4srec does not go with model SASRec .*mask=0.3.*model.hides=true.*objective.mask"
    with pytest.raises(ValueError, match=message):
        objective().bind(model(hides=False))
    made = objective(mask=0.0)
    made.bind(model(hides=False))
    assert (made.views(toy.batch([[1, 2, 3, 4]] * 50)).items > 0).all()


def test_hidden_targets_are_refused():
    # Their windows are one item longer than a history.
    sequences = Sequences(TRAIN, 8, MaskedItem())
    message = r"cl4srec does not go with targets MaskedItem: .* targets=next_item"
    with pytest.raises(ValueError, match=message):
        CL4SRec(toy.info(V), sequences, sampler, BCE())


def test_a_model_that_reads_no_history_is_refused():
    with pytest.raises(ValueError, match="the model reads none"):
        objective().bind(MF(toy.info(), dim=8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (OFF, "one of crop, mask and reorder must be above 0: all are 0"),
        ({"crop": 1.1}, r"crop must be in \[0, 1\], got 1.1"),
        ({"mask": -0.1}, r"mask must be in \[0, 1\], got -0.1"),
        ({"reorder": float("nan")}, r"reorder must be in \[0, 1\], got nan"),
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
        ({"temperature": float("inf")}, "temperature must be positive and finite, got inf"),
        ({"weight": -1.0}, "weight must be at least 0 and finite, got -1.0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        objective(**settings)
