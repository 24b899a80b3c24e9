"""``negrec data convert``: the new table is the old one's data."""

import gzip
import shlex
from datetime import datetime

import polars as pl
import pytest

from negrec import cli
from negrec.data.columns import Columns
from negrec.data.tables import load

CSV = (
    "uid,sku,ts,stars,what\n"
    "anna b,x,2024-01-02T03:04:05.25Z,4,view\n"
    "ü,y,2024-01-03,,view\n"
    "anna b,y,2024-01-02T03:04:05.25Z,2,view\n"
    "007,x,2024-01-02 03:04:05,5,buy\n"
)


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.csv").write_text(CSV)

    def run(*words):
        code = cli.main(["data", "convert", *words])
        return code, *capsys.readouterr()

    return run


def data(path, columns=None, **settings):
    return load(None, str(path), columns or Columns(), "cache", ".", **settings)


def test_the_new_table_is_the_same_data(convert, tmp_path):
    code, out, _ = convert("my.csv", "user=uid", "item=sku", "-o", "my.parquet")
    assert code == 0
    assert out.splitlines() == [
        "read 3 users, 2 items, 4 interactions",
        "wrote my.parquet: 4 rows, 0.0 MiB, timestamps in milliseconds",
        "negrec train my.parquet",
    ]
    table = pl.read_parquet("my.parquet")
    assert table.to_dict(as_series=False) == {
        "user_id": ["anna b", "ü", "anna b", "007"],
        "item_id": ["x", "y", "y", "x"],
        "timestamp": [1704164645250, 1704240000000, 1704164645250, 1704164645000],
        "rating": [4.0, None, 2.0, 5.0],
    }
    own = Columns("uid", "sku")
    assert data("my.parquet").hash == data("my.csv", own).hash
    assert data("my.parquet", min_rating=1).hash == data("my.csv", own, min_rating=1).hash
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_what_is_left_out(convert):
    words = ("my.csv", "item=sku", "event=what", "events=view", "min_rating=3", "-o", "l.parquet")
    _, out, _ = convert(*words)
    assert "read 3 users, 2 items, 4 interactions; dropped 1 of other events, 2 below min_" in out
    assert pl.read_parquet("l.parquet")["item_id"].to_list() == ["x"]
    assert convert("my.csv", "item=sku", "rating=null", "timestamp=null", "-o", "n.parquet")[0] == 0
    assert pl.read_parquet("n.parquet").columns == ["user_id", "item_id"]


@pytest.mark.parametrize(
    ("times", "written"),
    [
        (["1704164645", "1704164646"], [1704164645, 1704164646]),
        (["1704164645000", "1704164646000"], [1704164645, 1704164646]),
        (["1704164645001", "1704164646000"], [1704164645001, 1704164646000]),
        (["1704164645000001", "1704164646000000"], [1704164645000001, 1704164646000000]),
        (["7", "9"], [7, 9]),
        # 500 ms would be read as 500 seconds.
        (
            ["1970-01-01T00:00:00.5", "1970-01-02"],
            [datetime(1970, 1, 1, 0, 0, 0, 500_000), datetime(1970, 1, 2)],
        ),
    ],
)
def test_times_lose_nothing_and_are_read_back(convert, tmp_path, times, written):
    (tmp_path / "t.csv").write_text(f"user,item,timestamp\n1,8,{times[0]}\n1,9,{times[1]}\n")
    assert convert("t.csv", "-o", "t.parquet")[0] == 0
    assert pl.read_parquet("t.parquet")["timestamp"].to_list() == written
    assert pl.read_parquet("t.parquet")["user_id"].to_list() == [1, 1]
    assert data("t.parquet").hash == data("t.csv").hash


def test_many_rows_of_many_kinds_keep_their_order(convert, tmp_path):
    n = 120_000  # written piece by piece
    rows = "".join(f"{i % 7},{i},{i % 5},{i % 3}\n" for i in range(n))
    text = f"user,item,position,timestamp\n{rows}"
    (tmp_path / "many.csv.gz").write_bytes(gzip.compress(text.encode()))
    convert("many.csv.gz", "-o", "many.parquet")
    assert pl.read_parquet("many.parquet")["item_id"].to_list() == list(range(n))
    assert data("many.parquet").hash == data("many.csv.gz").hash


def test_the_next_command_can_be_pasted(convert):
    _, out, _ = convert("my.csv", "item=sku", "-o", "my new.parquet")
    assert shlex.split(out.splitlines()[-1]) == ["negrec", "train", "my new.parquet"]


def test_a_file_that_is_there_stays(convert, tmp_path):
    (tmp_path / "my.parquet").write_text("mine")
    code, _, error = convert("my.csv", "item=sku", "-o", "my.parquet")
    assert code == 2
    assert "there is my.parquet already: give another name, or force=true" in error
    assert (tmp_path / "my.parquet").read_text() == "mine"
    assert convert("my.csv", "item=sku", "force=true", "-o", "my.parquet")[0] == 0
    assert len(pl.read_parquet("my.parquet")) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "n.parquet"], "no table: negrec data convert my.csv -o my.parquet"),
        (["my.csv", "my.csv", "-o", "n.parquet"], "several tables"),
        (["my.csv"], "-o my.parquet is missing"),
        (["my.csv", "-o"], "-o needs the name"),
        (["my.csv", "-o", "n.csv"], "must end in .parquet"),
        (["my.csv", "-x", "-o", "n.parquet"], "has no -x"),
        (["my.csv", "usr=a", "-o", "n.parquet"], "has no usr=: it has user, item, timestamp, pos"),
        (["my.csv", "user=uid", "user=sku", "-o", "n.parquet"], "user is given twice"),
        (["my.csv", "item=sku", "force=yes", "-o", "n.parquet"], "force must be true or false"),
        (["my.csv", "item=sku", "min_rating=x", "-o", "n.parquet"], "min_rating must be a number"),
        (["my.csv", "item=null", "-o", "n.parquet"], "every table needs a column of items"),
        (
            ["my.csv", "item=sku", "timestamp=what", "-o", "n.parquet"],
            "row 1 and 3 more: 'view' is",
        ),
        (["my.csv", "item=sku", "event=what", "events=no", "-o", "n.parquet"], "no row has 'no'"),
        (
            ["my.csv", "item=sku", "min_rating=9", "-o", "n.parquet"],
            "nothing is left of its 4 rows",
        ),
        (["no.csv", "-o", "n.parquet"], "there is no file no.csv"),
        (["my.csv", "item=sku", "-o", "no/n.parquet"], "no/n.parquet cannot be written"),
    ],
)
def test_what_cannot_be_meant(convert, tmp_path, words, message):
    before = sorted(tmp_path.iterdir())
    code, _, error = convert(*words)
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) <= 2  # the columns as they were read, and the error
    assert sorted(tmp_path.iterdir()) == before
