import polars as pl
import pytest

from negrec.data.sources.delimited import Delimited

FOUR = {"user_id": 0, "item_id": 1, "rating": 2, "timestamp": 3}


def rows(layout, tmp_path, text):
    (tmp_path / "file").write_text(text)
    return layout.scan(tmp_path / "file").collect()


@pytest.mark.parametrize("separator", [",", "\t", "::", ":"])
def test_places(tmp_path, separator):
    text = "1,10,3.5,978300760\n2,7,4,978300761\n".replace(",", separator)
    found = rows(Delimited(FOUR, "number", separator=separator), tmp_path, text)
    assert found.rows() == [(1, 10, 3.5, 978300760), (2, 7, 4.0, 978300761)]
    assert found.schema == {
        "user_id": pl.Int64,
        "item_id": pl.Int64,
        "rating": pl.Float32,
        "timestamp": pl.Int64,
    }


def test_names_in_another_order_and_a_column_of_events(tmp_path):
    columns = {"user_id": "visitorid", "item_id": "itemid", "timestamp": "timestamp"}
    text = "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n"
    found = rows(Delimited({**columns, "event": "event"}, "number", header=True), tmp_path, text)
    assert found.rows() == [(257597, 355908, 1433221332117, "view")]


def test_text_stays_as_it_is(tmp_path):
    # Items of Amazon's are books' numbers as well: 0205616461 is no 205616461.
    found = rows(Delimited(FOUR, "text"), tmp_path, 'A"1,0205616461,5.0,1369699200\n')
    assert found.rows() == [('A"1', "0205616461", 5.0, 1369699200)]


def test_written_times_become_seconds(tmp_path):
    layout = Delimited(
        {"user_id": 0, "timestamp": 1, "item_id": 4},
        "number",
        time="%Y-%m-%dT%H:%M:%SZ",
        separator="\t",
    )
    text = "0\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t22847\n"
    found = rows(layout, tmp_path, text)
    # 14,901 days from 1970 to 2010-10-19, and 86,127 seconds of that day.
    assert found.select("user_id", "item_id", "timestamp").rows() == [
        (0, 22847, 14_901 * 86_400 + 86_127)
    ]


@pytest.mark.parametrize("text", ["1,2\n", "<html>no</html>\n", "anna,2,3,4\n"])
def test_another_layout_is_an_error(tmp_path, text):
    with pytest.raises(pl.exceptions.PolarsError):
        rows(Delimited(FOUR, "number"), tmp_path, text)


def test_a_separator_of_several_signs():
    with pytest.raises(ValueError, match=r"one sign, perhaps repeated: ', '"):
        Delimited(FOUR, "number", separator=", ")
