from datetime import date
from pathlib import Path

import polars as pl
import pytest

from negrec.data.columns import Columns, sniff
from negrec.errors import InputError


def table(folder: Path, header: str, row: str = "") -> Path:
    path = folder / "clicks.csv"
    row = row or ",".join("1" for _ in header.split(","))
    path.write_text(f"{header}\n{row}\n")
    return path


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("user,item,timestamp", ("user", "item", "timestamp", None, None)),
        ("user_id,item_id,position", ("user_id", "item_id", None, "position", None)),
        ("userId,movieId,rating,timestamp", ("userId", "movieId", "timestamp", None, "rating")),
        ("timestamp,visitorid,event,itemid", ("visitorid", "itemid", "timestamp", None, None)),
        ("reviewerID,asin,overall,unixReviewTime",
         ("reviewerID", "asin", "unixReviewTime", None, "overall")),
        ("Session ID,SKU,Date", ("Session ID", "SKU", "Date", None, None)),
        # The plainer name wins.
        ("session,user,product,item,date,ts", ("user", "item", "ts", None, None)),
    ],
)  # fmt: skip
def test_names_are_guessed(tmp_path, header, found):
    assert sniff(table(tmp_path, header)) == Columns(*found)


def test_types_are_looked_at(tmp_path):
    path = tmp_path / "clicks.parquet"
    frame = {"uid": [1], "iid": [2], "time": [True], "when": [date(2024, 1, 2)], "pos": ["first"]}
    pl.DataFrame(frame).write_parquet(path)
    # `time` is a yes or no and `pos` no number; `when` is the one column of dates.
    assert sniff(path) == Columns("uid", "iid", "when", None, None)


def test_texts_that_are_times_are_times_whatever_their_name(tmp_path):
    row = "a,7,2024-03-01T10:00:00Z"
    assert sniff(table(tmp_path, "user,item,seen_at", row)).timestamp == "seen_at"
    # Numbers may be anything, and a name of words is no time.
    assert sniff(table(tmp_path, "user,item,seen_at", "a,7,1709287200")).timestamp is None
    assert sniff(table(tmp_path, "user,item,shop", "a,7,2024 Ltd")).timestamp is None
    two = table(tmp_path, "user,item,seen_at,paid_at", f"{row},2024-03-02 11:00")
    with pytest.raises(InputError, match=r"seen_at and paid_at hold times: choose with dataset"):
        sniff(two)
    assert sniff(two, {"timestamp": "paid_at"}).timestamp == "paid_at"


def test_what_is_given_is_taken(tmp_path):
    path = table(tmp_path, "user,item,who,timestamp,7")
    found = sniff(path, {"user": "who", "item": 7, "timestamp": None})
    assert found == Columns("who", "7", None, None, None)
    assert str(found) == "user=who, item=7"


def test_a_column_is_used_once(tmp_path):
    path = table(tmp_path, "user,uid,item")
    assert sniff(path, {"item": "uid"}) == Columns("user", "uid", None, None, None)


@pytest.mark.parametrize(
    ("header", "given", "message"),
    [
        ("a,item", {}, r"clicks.csv: no column looks like users: its columns are a, item; name it "
         r"with dataset.columns.user=NAME \(a first line must name the columns"),
        ("user,a", {}, "no column looks like items"),
        ("user,uid,item", {}, "user and uid may both be the column of users: choose with "
         "dataset.columns.user=NAME"),
        ("user,item,date,day", {}, "date and day may both be the column of timestamps"),
        ("user,item", {"item": "sku"}, "clicks.csv has no column 'sku': its columns are user, "
         "item; name one of them with dataset.columns.item=NAME"),
        ("user,item", {"user": None}, "dataset.columns.user: every table needs"),
        ("user,item", {"usr": "user"}, "dataset.columns.usr: there is no such setting"),
    ],
)  # fmt: skip
def test_questions_to_the_user(tmp_path, header, given, message):
    with pytest.raises(InputError, match=message) as caught:
        sniff(table(tmp_path, header), given)
    assert "\n" not in str(caught.value)


def test_a_quote_that_is_never_closed_is_one_line(tmp_path):
    lines = "".join(f"u{i},i{i},{1_700_000_000 + i}\n" for i in range(50))
    (tmp_path / "t.csv").write_text('user,item,timestamp\n"u-1,x,1700000000\n' + lines)
    with pytest.raises(InputError, match=r"t\.csv cannot be read") as caught:
        sniff(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)
