import copy

import pytest
import torch

from negrec.plateau import Plateau

# L_0 - L_5 = 4, so an epoch whose loss falls by less than 0.02 lets it start. The sixth (t = 6)
# falls by nothing, but the rule looks from t = 7 on; t = 8 falls by 0.01.
LOSSES = [5.0, 4.0, 3.0, 2.0, 1.5, 1.0, 1.0, 0.9, 0.89, 0.5]
FIRST = 9


def feed(plateau, epoch, mean):
    """Two batches of different sizes, whose queries have the given mean."""
    plateau.observe(torch.tensor([mean - 0.3]), epoch)
    plateau.observe(torch.tensor([mean, mean + 0.3]), epoch)


def run(plateau, losses, epochs):
    """When it has started, asked at the begin and at the end of each epoch."""
    answers = []
    for epoch in epochs:
        begin = plateau.started(epoch)
        feed(plateau, epoch, losses[epoch])
        assert plateau.started(epoch) == begin  # an epoch is of one kind
        answers.append(begin)
    return answers


def test_it_starts_with_the_epoch_after_the_first_slow_one():
    assert run(Plateau(), LOSSES, range(10)) == [False] * FIRST + [True]


def test_it_stays_started_whatever_the_loss_does():
    losses = [*LOSSES, 0.1, 9.0]
    assert run(Plateau(), losses, range(12))[FIRST:] == [True] * 3


@pytest.mark.parametrize(("loss", "started"), [(1.12, True), (3.2 / 3, False)])
def test_it_is_the_mean_over_queries_that_counts(loss, started):
    # Epoch 8: (0.2 + 3 * 1.12) / 4 = 0.89, slow; (0.2 + 3.2) / 4 = 0.85, fast. The mean of the
    # batches' means would be 0.66 and 0.63, both fast.
    plateau = Plateau()
    run(plateau, LOSSES, range(8))
    plateau.observe(torch.tensor([0.2]), 8)
    plateau.observe(torch.full((3,), loss), 8)
    assert plateau.started(9) is started


@pytest.mark.parametrize(("eighth", "started"), [(0.8801, True), (0.8799, False)])
def test_the_threshold_is_a_200th_of_the_first_fall(eighth, started):
    plateau = Plateau()
    run(plateau, [*LOSSES[:8], eighth], range(9))
    assert plateau.started(9) is started


def test_a_loss_that_rises_is_slow():
    plateau = Plateau()
    run(plateau, [*LOSSES[:7], 1.2], range(8))
    assert plateau.started(8)


def test_a_loss_that_keeps_falling_never_starts_it():
    losses = [10 - 0.1 * t for t in range(40)]  # 0.1 an epoch against (0.5) / 200
    assert not any(run(Plateau(), losses, range(40)))


@pytest.mark.parametrize("start", [0, 7, 12])
def test_a_fixed_epoch(start):
    assert run(Plateau(start), LOSSES, range(10)) == [epoch >= start for epoch in range(10)]


@pytest.mark.parametrize("start", ["plateau", 7])
@pytest.mark.parametrize("cut", range(10))
def test_resumed_in_an_epoch_it_starts_as_if_it_had_not_been_cut_off(cut, start):
    whole, broken, resumed = Plateau(start), Plateau(start), Plateau(start)
    expected = run(whole, LOSSES, range(10))
    run(broken, LOSSES, range(cut))
    broken.observe(torch.tensor([LOSSES[cut] - 0.3]), cut)  # the first batch; then it dies
    state = copy.deepcopy(broken.state_dict())
    resumed.started(cut)  # what it says before the state is loaded does not stick
    resumed.load_state_dict(state)
    assert resumed.started(cut) == expected[cut]
    resumed.observe(torch.tensor([LOSSES[cut], LOSSES[cut] + 0.3]), cut)
    assert run(resumed, LOSSES, range(cut + 1, 10)) == expected[cut + 1 :]
    assert all(
        torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items()
    )


def test_a_first_look_at_a_later_epoch_is_no_nan():
    plateau = Plateau()
    feed(plateau, 3, 1.0)
    assert plateau.losses.isfinite().all()


@pytest.mark.parametrize("start", [-1, 1.5, "soon", None])
def test_bad_starts_are_refused(start):
    with pytest.raises(ValueError, match="start must be plateau or an epoch from 0, got"):
        Plateau(start)
