from datetime import date, datetime, timedelta, timezone

import polars as pl
import pytest

from negrec.data.timestamps import microseconds, moment, words

# 2024-01-02 03:04:05 UTC
SECONDS = 1_704_164_645
DAY = 1_704_153_600  # its midnight


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ([SECONDS], SECONDS),
        ([SECONDS * 10**3], SECONDS),
        ([SECONDS * 10**6], SECONDS),
        ([SECONDS * 10**9], SECONDS),
        ([float(SECONDS)], SECONDS),
        ([str(SECONDS)], SECONDS),
        ([f" {SECONDS}.5 "], SECONDS + 0.5),
        ([f"{SECONDS}000"], SECONDS),
        (["1.704164645e+18"], SECONDS),
        ([7], 7),
        ([-7], -7),
        (["2024-01-02"], DAY),
        (["2024/01/02"], DAY),
        (["2024-01-02 03:04"], SECONDS - 5),
        (["2024-01-02T03:04:05"], SECONDS),
        (["2024-01-02 03:04:05.25"], SECONDS + 0.25),
        (["2024-01-02T03:04:05Z"], SECONDS),
        (["2024-01-02 03:04:05 UTC"], SECONDS),
        (["2024-01-02T05:04:05+02:00"], SECONDS),
        (["2024-01-01T22:34-0430"], SECONDS - 5),
        ([date(2024, 1, 2)], DAY),
        ([datetime(2024, 1, 2, 3, 4, 5)], SECONDS),
        ([datetime(2024, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2)))], SECONDS),
    ],
)
def test_all_usual_kinds(given, seconds):
    times, _ = microseconds(pl.Series(given))
    assert times.to_list() == [round(seconds * 10**6)]


def test_the_largest_number_tells_the_unit_of_all():
    times, unit = microseconds(pl.Series([0, SECONDS * 10**3]))
    assert (times.to_list(), unit) == ([0, SECONDS * 10**6], "milliseconds")


def test_large_integers_are_exact():
    # Float64 has no room for the last digits of nanoseconds.
    times, _ = microseconds(pl.Series([str(SECONDS * 10**9 + 123_457_000)]))
    assert times.to_list() == [SECONDS * 10**6 + 123_457]


def test_small_floats_stay_apart():
    # Float32 steps by 128 at this size; 10^6 times that is no such step.
    given = pl.Series(range(SECONDS // 128, SECONDS // 128 + 500), dtype=pl.Float32) * 128
    times, _ = microseconds(given)
    assert times.to_list() == [int(each) * 10**6 for each in given]


@pytest.mark.parametrize("value", ["yesterday", "2024-13-01", "01/02/2024", "", None])
def test_what_cannot_be_read_is_null(value):
    times, _ = microseconds(pl.Series(["2024-01-02", value]))
    assert times.to_list() == [DAY * 10**6, None]


@pytest.mark.parametrize("given", [[1.0, float("nan")], [1.0, float("inf")], ["1", "x"]])
def test_no_number_is_null(given):
    assert microseconds(pl.Series(given))[0].to_list() == [10**6, None]


def test_booleans_are_no_times():
    assert microseconds(pl.Series([True]))[0].to_list() == [None]


def test_moments_of_a_configuration():
    assert moment("2024-01-02") == moment(DAY) == DAY * 10**6
    with pytest.raises(ValueError, match="'soon' is no time"):
        moment("soon")


def test_words():
    assert words(SECONDS * 10**6) == "2024-01-02 03:04:05"
    assert words(DAY * 10**6) == "2024-01-02"
    assert words(2**62) == str(2**62)
