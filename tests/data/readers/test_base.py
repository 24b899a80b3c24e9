import polars as pl
import pytest

from negrec.data.readers.base import ROW, scan
from negrec.errors import InputError


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.CSV"])
def test_the_format_follows_the_name(tmp_path, name):
    path = tmp_path / name
    frame = pl.DataFrame({"user": ["a", "b"], "item": ["c", "d"]})
    frame.write_parquet(path) if name.endswith("parquet") else frame.write_csv(path)
    assert scan(path).collect().rows() == [(1, "a", "c"), (2, "b", "d")]
    assert scan(path).collect_schema().names() == [ROW, "user", "item"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.csv", None, "there is no file .*missing.csv: give the path"),
        ("t.csv", b"", "t.csv is empty"),
        ("t.parquet", b"", "t.parquet is empty"),
        ("t.xlsx", b"x", r"t.xlsx: its name must end in one of .parquet, .csv"),
        ("t.parquet", b"user,item\n1,2\n", "t.parquet cannot be read: .*; check that the file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        scan(path)
    assert "\n" not in str(caught.value)
