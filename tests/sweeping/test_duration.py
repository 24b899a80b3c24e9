"""Spans of time, typed and shown."""

import pytest

from negrec.errors import InputError
from negrec.sweeping.duration import parse, words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1_800),
        ("8h", 28_800),
        ("2d", 172_800),
        ("1.5h", 5_400),
        ("1h30m", 5_400),
        ("1d2h3m4.5s", 93_784.5),  # 86,400 + 7,200 + 180 + 4.5
        (" 8H ", 28_800),
    ],
)
def test_what_people_type(text: str, seconds: float):
    assert parse(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "8", "h", "-8h", "0h", "8 hours", "30m1h", "1h2h", "8h x", ".5h", "inf", "nan"]
)
def test_what_is_no_span_is_refused_in_one_line(text: str):
    with pytest.raises(InputError, match="is no span of time: write it as 90s") as refused:
        parse(text)
    assert repr(text) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"),
        (0.26, "0.3 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),  # never "10.0 s"
        (59.4, "59 s"),
        (59.7, "1 min"),
        (90, "1 min 30 s"),
        (3_599.4, "59 min 59 s"),
        (3_599.7, "1 h"),
        (4_800, "1 h 20 min"),
        (85_000, "23 h 37 min"),  # 1,416.7 minutes
        (86_399, "1 d"),
        (2 * 86_400 + 3 * 3_600, "2 d 3 h"),
        (1e6, "11 d 14 h"),  # 277.8 hours
    ],
)
def test_what_people_read(seconds: float, shown: str):
    assert words(seconds) == shown
