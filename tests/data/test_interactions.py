import pytest

from negrec.data.interactions import Recommendation, recommended
from tests.data import made

ROWS = [(1, 7, 1), (1, 8, 2), (2, 7, 3), (2, 9, 4)]


def test_the_hash_is_the_datas():
    data = made.interactions(ROWS)
    assert data.hash == made.interactions([ROWS[i] for i in (2, 0, 1, 3)]).hash  # by time anyway


@pytest.mark.parametrize(
    "rows",
    [
        [*ROWS[:3], (2, 9, 5)],
        [*ROWS[:3], (2, 10, 4)],
        [*ROWS[:3], (3, 9, 4)],
        [(1, 6, 1), (1, 8, 2), (2, 6, 3), (2, 9, 4)],  # the same indices and lengths
        ROWS[:3],
        [row[:2] for row in ROWS],
    ],
)
def test_other_data_have_another_hash(rows):
    assert made.interactions(rows).hash != made.interactions(ROWS).hash


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (ROWS, Recommendation("global_temporal", "filter")),
        ([row[:2] for row in ROWS], Recommendation("leave_one_out", "filter")),
        # One repeat of 5 is more than 5%, one of 20 is not.
        ([*ROWS, (2, 9, 5)], Recommendation("global_temporal", "keep")),
        (
            [*((1, i, i) for i in range(19)), (1, 0, 19)],
            Recommendation("global_temporal", "filter"),
        ),
    ],
)
def test_recommended(rows, expected):
    assert recommended(made.interactions(rows)) == expected
