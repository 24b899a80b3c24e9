import polars as pl
import pytest

from negrec.data.sources import python_literals
from negrec.data.sources.python_literals import PythonLiterals

LAYOUT = PythonLiterals(
    {"user_id": "username", "item_id": "product_id", "timestamp": "date"}, "text", "%Y-%m-%d"
)


def scan(tmp_path, text):
    (tmp_path / "file").write_text(text, encoding="utf-8")
    return LAYOUT.scan(tmp_path / "file")


def line(user, item, date, more=""):
    more = f"'hours': 5.0{more}, 'product_id': {item!r}"
    return f"{{u'username': u{user!r}, 'date': {date!r}, {more}}}\n"


def test_dictionaries_as_python_writes_them(tmp_path):
    text = line("it's", "0070", "1970-01-02", r", 'text': u'a\u00e4 \'quoted\''")
    text += line("b", "725280", "1970-01-11", ", 'early': True, 'found': None, 'x': (1, [2])")
    assert scan(tmp_path, text).collect().rows() == [
        ("it's", "0070", 86_400),
        ("b", "725280", 864_000),
    ]


def test_a_key_that_is_not_there_is_a_missing_value(tmp_path):
    found = scan(tmp_path, "{'product_id': '1', 'date': '1970-01-01'}\n").collect()
    assert found.rows() == [(None, "1", 0)]


@pytest.mark.parametrize(
    "text",
    [
        "{'username': __import__('pathlib').Path('made').touch()}",
        "__import__('pathlib').Path('made').touch()",
        "{'username': [x for x in (1,)]}",
        "exec('1')",
        "[1, 2]",
        "{'username': 'a'",
        "<html>",
        "(" * 100_000,
    ],
)
def test_anything_but_a_literal_dictionary_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    good = line("a", "1", "1970-01-01")
    with pytest.raises(pl.exceptions.PolarsError, match="line 2 is no dictionary"):
        scan(tmp_path, good + text + "\n").collect()
    assert not (tmp_path / "made").exists()


def test_batches_and_what_a_query_pushes_down(tmp_path, monkeypatch):
    monkeypatch.setattr(python_literals, "_BATCH", 2)
    table = scan(tmp_path, "".join(line(f"u{i}", str(i), "1970-01-01") for i in range(5)))
    everything = table.collect()
    assert everything["user_id"].to_list() == ["u0", "u1", "u2", "u3", "u4"]
    assert table.select("item_id").collect()["item_id"].to_list() == ["0", "1", "2", "3", "4"]
    assert table.head(3).collect().equals(everything.head(3))
    chosen = pl.col("item_id").is_in(["1", "4"])
    assert table.filter(chosen).collect().equals(everything.filter(chosen))
