import pytest

from negrec.training.early_stopping import EarlyStopping


def test_patience_counts_evaluations_since_the_best():
    stopping = EarlyStopping(patience=2)
    values = [0.1, 0.3, 0.3, 0.2]
    assert [stopping.better(epoch, value) for epoch, value in enumerate(values)] == [
        True,
        True,
        False,  # a tie is not better
        False,
    ]
    assert stopping.exhausted
    assert (stopping.best_epoch, stopping.best_value) == (1, 0.3)


def test_without_patience_it_never_ends():
    stopping = EarlyStopping(patience=None)
    for epoch in range(100):
        stopping.better(epoch, 0.0)
    assert not stopping.exhausted
    assert stopping.best_epoch == 0


def test_patience_must_be_positive():
    with pytest.raises(ValueError, match="patience must be at least 1 or null, got 0"):
        EarlyStopping(patience=0)
