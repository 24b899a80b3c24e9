import re

import polars as pl
import pytest

from negrec.data.readers.base import ROW, scan, unreadable
from negrec.errors import InputError


def test_types_stay(tmp_path):
    frame = pl.DataFrame({"user": [5, 6], "item": ["007", "b"]})
    frame.write_parquet(tmp_path / "t.parquet")
    assert scan(tmp_path / "t.parquet").collect().drop(ROW).equals(frame)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            pl.DataFrame({"user": [5], "item": pl.Series([6], dtype=pl.Int32)}),
            "column item: .*Int32",
        ),
        (pl.DataFrame({"user": [5]}), "column item"),
    ],
)
def test_files_of_a_folder_that_do_not_fit(tmp_path, other, said):
    pl.DataFrame({"user": [5], "item": [6]}).write_parquet(tmp_path / "a.parquet")
    other.write_parquet(tmp_path / "b.parquet")
    table = scan(tmp_path)
    with pytest.raises(pl.exceptions.PolarsError) as raised:
        table.collect()
    line = str(unreadable(tmp_path, raised.value))
    assert re.search(said, line)
    assert line.endswith(
        "; check that its files are complete and all have the same columns of the same types"
    )
    assert "hint" not in line
    assert "missing_columns" not in line


def test_a_file_cut_short(tmp_path):
    path = tmp_path / "t.parquet"
    pl.DataFrame({"user": [5, 6]}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"t\.parquet cannot be read"):
        scan(path)
