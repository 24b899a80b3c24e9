import pytest
from hydra import compose, initialize_config_dir

from negrec.commandline.configuration import conf_dir
from negrec.errors import InputError
from negrec.sweeping.forecast import Cut, Forecast, cut, probe


def cell(epoch: float, start: float = 0.0, epochs: int = 100) -> Forecast:
    return Forecast(start, epoch, epochs, 0.0)


# Two cells of 100 epochs, 1 s and 3 s each, and 10 s to start: 110 + 310 = 420 s for a seed.
CELLS = [cell(1, 10), cell(3, 10)]


@pytest.mark.parametrize(
    ("budget", "at_once", "left"),
    [
        (8400, 1, Cut(None, None)),  # 20 seeds are 8,400 s
        (8399, 1, Cut(19, None)),
        (4200, 2, Cut(None, None)),
        (840, 1, Cut(2, None)),
        # 2 seeds of E epochs are 2 (20 + 4 E) <= 839: E = 99.
        (839, 1, Cut(2, 99)),
        (48, 1, Cut(2, 1)),
        # Forty jobs at once end with the longest, 310 s; in 309 s E epochs end with 10 + 3 E: 99.
        (310, 40, Cut(None, None)),
        (309, 40, Cut(2, 99)),
    ],
)
def test_seeds_are_cut_first_then_epochs(budget, at_once, left):
    assert cut(CELLS, 20, at_once, budget) == left


def test_a_single_seed_stays(tmp_path):
    # One seed of E epochs is 20 + 4 E <= 100: E = 20.
    assert cut(CELLS, 1, 1, 100) == Cut(None, 20)


def test_epochs_that_differ_are_not_cut():
    # All with the fewer ones would lengthen the short runs.
    with pytest.raises(InputError, match="not the same for all cells"):
        cut([cell(1), cell(1, epochs=5)], 2, 1, 40)


def test_a_budget_too_small_for_one_epoch_is_refused():
    # Two seeds of one epoch of each cell: 2 (20 + 4) = 48 s.
    with pytest.raises(InputError, match=r"47 s is too small: one epoch of 2 cells .* about 48 s"):
        cut(CELLS, 20, 1, 47)


def composed(tmp_path, *words):
    small = ["dataset.users=200", "dataset.items=100", f"paths.cache_dir={tmp_path / 'cache'}"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", [*small, *words])


def test_a_probe_foretells_and_leaves_nothing(tmp_path):
    cfg = composed(tmp_path, "trainer.max_epochs=7", "trainer.threads=1")
    found = probe(cfg, steps=2, threads=1)
    assert found.epochs == 7
    assert found.epoch > 0
    assert found.seconds == pytest.approx(found.start + 7 * found.epoch)
    # Three checkpoints, of which two hold Adam's two moments beside the weights: about 7 times
    # the item vectors alone, which are 101 x 64 x 4 bytes.
    assert found.disk > 7 * 100 * 64 * 4
    assert cfg.trainer.max_epochs == 7
    assert not list(tmp_path.iterdir())


def test_a_probe_counts_the_run_before(tmp_path):
    cfg = composed(tmp_path, "pretraining={trainer:{max_epochs:100000}}", "trainer.max_epochs=7")
    found = probe(cfg, steps=2, threads=1)
    assert found.epochs == 7
    # The same epochs, so many more of them, before the first.
    assert found.start > 1_000 * 7 * found.epoch


def test_a_probe_of_what_needs_no_training(tmp_path):
    found = probe(composed(tmp_path, "model=popularity"), steps=2, threads=1)
    assert found.disk == 0


def test_a_probe_fails_as_the_run_would(tmp_path):
    with pytest.raises(Exception, match="does not go with sampler"):
        probe(composed(tmp_path, "sampler=uniform", "loss=softmax", "sampler=uniform"), 2, 1)
