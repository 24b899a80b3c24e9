import polars as pl
import pytest

from negrec.data.readers.base import ROW, scan
from negrec.errors import InputError


def test_types_stay(tmp_path):
    frame = pl.DataFrame({"user": [5, 6], "item": ["007", "b"]})
    frame.write_parquet(tmp_path / "t.parquet")
    assert scan(tmp_path / "t.parquet").collect().drop(ROW).equals(frame)


def test_a_file_cut_short(tmp_path):
    path = tmp_path / "t.parquet"
    pl.DataFrame({"user": [5, 6]}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"t\.parquet cannot be read"):
        scan(path)
