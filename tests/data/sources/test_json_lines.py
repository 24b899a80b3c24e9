import json

import polars as pl
import pytest

from negrec.data.sources.json_lines import JsonLines

AMAZON = {
    "user_id": "reviewerID",
    "item_id": "asin",
    "rating": "overall",
    "timestamp": "unixReviewTime",
}


def rows(layout, tmp_path, *objects):
    (tmp_path / "file").write_text("".join(json.dumps(each) + "\n" for each in objects))
    return layout.scan(tmp_path / "file").collect()


def test_named_fields_of_larger_objects(tmp_path):
    first = {"reviewerID": "A1", "asin": "0001", "reviewerName": 'a "b"', "helpful": [0, 1]}
    second = {"unixReviewTime": 2, "overall": 4, "asin": "B2", "reviewerID": "Ä", "more": {"x": 1}}
    found = rows(JsonLines(AMAZON, "text"), tmp_path, first | {"overall": 5.0}, second)
    # A field that an object lacks is a missing value.
    assert found.rows() == [("A1", "0001", 5.0, None), ("Ä", "B2", 4.0, 2)]


def test_written_times_become_seconds(tmp_path):
    layout = JsonLines(
        {"user_id": "u", "item_id": "b", "timestamp": "date"}, "text", "%Y-%m-%d %H:%M:%S"
    )
    found = rows(layout, tmp_path, {"u": "x", "b": "y", "date": "1970-01-02 00:00:05"})
    assert found["timestamp"].to_list() == [86_405]


def test_a_line_that_is_no_json(tmp_path):
    (tmp_path / "file").write_text("<html>\n")
    with pytest.raises(pl.exceptions.PolarsError):
        JsonLines(AMAZON, "text").scan(tmp_path / "file").collect()
