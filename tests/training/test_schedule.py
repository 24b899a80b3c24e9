import pytest

from negrec.training.schedule import factor


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
    ],
)
def test_two_steps_of_warm_up_and_four_of_the_schedule(schedule, expected):
    factors = [factor(schedule, step, warmup=2, total=6) for step in range(6)]
    assert factors == pytest.approx(expected)
