import gzip

import pytest

from negrec.data.readers.base import scan

LINES = b'{"user": "007", "item": 1}\n\n{"item": 2.5, "user": 7, "more": null}\n'


@pytest.mark.parametrize(("ending", "pack"), [("jsonl", bytes), ("ndjson.gz", gzip.compress)])
def test_every_value_is_the_text_that_stands_there(tmp_path, ending, pack):
    path = tmp_path / f"t.{ending}"
    path.write_bytes(pack(LINES))
    # By name, whatever their order; a name that a line lacks is missing there.
    table = scan(path).collect().select("user", "item", "more")
    assert table.rows() == [("007", "1", None), ("7", "2.5", None)]
