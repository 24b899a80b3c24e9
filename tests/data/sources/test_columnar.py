import polars as pl

from negrec.data.sources.columnar import Columnar


def test_named_columns_of_a_parquet_file(tmp_path):
    frame = pl.DataFrame(
        {"uid": [10, 20], "timestamp": [5, 0], "item_id": [7, 8], "is_organic": [1, 0]},
        schema_overrides={"uid": pl.UInt32, "timestamp": pl.UInt32},
    )
    frame.write_parquet(tmp_path / "listens.parquet")
    layout = Columnar({"user_id": "uid", "item_id": "item_id", "timestamp": "timestamp"}, "number")
    found = layout.scan(tmp_path / "listens.parquet").collect()
    assert found.rows() == [(10, 7, 5), (20, 8, 0)]
    assert found.schema == dict.fromkeys(("user_id", "item_id", "timestamp"), pl.Int64)
