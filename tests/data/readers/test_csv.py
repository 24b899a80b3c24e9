import gzip

import polars as pl
import pytest

from negrec.data.readers.base import ROW, scan, unreadable
from negrec.errors import InputError

PLAIN = 'user,item\n007,x y\nä,"p,q"\n'


def rows(path):
    return scan(path).collect().rows()


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        PLAIN.rstrip("\n").encode(),
        PLAIN.encode("utf-8-sig"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("user,item", "user;item").replace("7,", "7;").replace("ä,", "ä;").encode(),
        PLAIN.replace("user,item", "user\titem").replace("7,", "7\t").replace("ä,", "ä\t").encode(),
    ],
)
def test_ids_stand_as_they_are_written(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    assert rows(tmp_path / "t.csv") == [(1, "007", "x y"), (2, "ä", "p,q")]


def test_gzip(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(PLAIN.encode()))
    assert rows(tmp_path / "t.csv.gz") == [(1, "007", "x y"), (2, "ä", "p,q")]


@pytest.mark.parametrize(("packed", "pack"), [("", bytes), (".gz", gzip.compress)])
def test_the_line_with_too_many_values_is_named(tmp_path, packed, pack):
    path = tmp_path / f"t.csv{packed}"
    path.write_bytes(pack('user,item\na,"b\nc,d"\n\ne,f,g\nh,i,j\n'.encode("utf-8-sig")))
    with pytest.raises(pl.exceptions.PolarsError) as raised:
        scan(path).collect()
    # As an editor counts them: the second row spans two lines.
    assert f"t.csv{packed}, line 5: it has more values than there are columns" in str(
        unreadable(path, raised.value)
    )


def test_empty_lines_are_skipped_and_counted(tmp_path):
    (tmp_path / "t.csv").write_text("user,item\na,b\n\nc,d\n\n")
    assert rows(tmp_path / "t.csv") == [(1, "a", "b"), (3, "c", "d")]


def test_a_name_may_hold_quotes(tmp_path):
    (tmp_path / "t.csv").write_text('user,"the ""item"""\na,b\n')
    assert scan(tmp_path / "t.csv").collect().to_dicts() == [
        {ROW: 1, "user": "a", 'the "item"': "b"}
    ]


def test_a_quoted_field_may_span_lines(tmp_path):
    (tmp_path / "t.csv").write_text('user,item\na,"b\nc"\n')
    assert rows(tmp_path / "t.csv") == [(1, "a", "b\nc")]
    assert scan(tmp_path / "t.csv").collect_schema().names()[0] == ROW


def test_two_columns_of_one_name(tmp_path):
    (tmp_path / "t.csv").write_text("user,item,item\na,b,c\n")
    with pytest.raises(InputError, match="two columns are named 'item'"):
        scan(tmp_path / "t.csv")


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_last_line_cut_short(tmp_path, end):
    (tmp_path / "t.csv").write_text(f"user,item,time\na,b,1\nc,d{end}")
    with pytest.raises(InputError, match=r"t.csv: the last line has 2 of 3 fields \('c,d'\)"):
        scan(tmp_path / "t.csv")
