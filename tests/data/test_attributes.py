import logging

import polars as pl
import pytest

from negrec.data.attributes import read
from negrec.data.columns import Columns
from negrec.data.splits.leave_one_out import LeaveOneOut
from negrec.data.tables import load
from negrec.errors import InputError

OWN = Columns("u", "sku", None, None, None)
IDS = pl.Series("id", ["a", "b", "c"])


def table(folder, name="attrs.csv", **columns):
    frame = pl.DataFrame(columns)
    path = folder / name
    frame.write_csv(path) if name.endswith("csv") else frame.write_parquet(path)
    return path


def pairs(found):
    return list(zip(found.item.tolist(), found.attribute.tolist(), strict=True))


@pytest.mark.parametrize("item", ["sku", "item_id", "item"])
@pytest.mark.parametrize("name", ["attrs.csv", "attrs.parquet"])
def test_pairs_are_indexed_sorted_and_held_once(tmp_path, item, name):
    rows = {item: ["c", "a", "a", "c", "c"], "attribute": ["red", "red", "blue", "red", "green"]}
    found = read(table(tmp_path, name, **rows), OWN, IDS)
    # blue 0, green 1, red 2.
    assert found.ids.to_list() == ["blue", "green", "red"]
    assert pairs(found) == [(0, 0), (0, 2), (2, 1), (2, 2)]


def test_numbers_and_texts_are_compared_as_written(tmp_path):
    found = read(table(tmp_path, item=["10", "7"], attribute=[5, 4]), OWN, pl.Series("id", [7, 10]))
    assert pairs(found) == [(0, 0), (1, 1)]


def test_items_outside_the_data_are_counted_and_left_out(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = table(tmp_path, item=["a", "x", "x", "y"], attribute=[1, 1, 9, 2])
    found = read(path, OWN, IDS)
    assert pairs(found) == [(0, 0)]
    assert found.ids.to_list() == ["1"]
    assert [r.message for r in caplog.records] == [
        f"attributes: 2 items of {path} are not in the data"
    ]


def test_the_hash_is_of_the_attributes_alone(tmp_path):
    one = {"item": ["a", "b"], "attribute": ["p", "q"]}
    first = read(table(tmp_path, **one), OWN, IDS).hash
    turned = {"item": ["b", "a"], "attribute": ["q", "p"]}
    assert read(table(tmp_path, "z.parquet", **turned), OWN, IDS).hash == first
    others = [
        {"item": ["a", "b"], "attribute": ["p", "p"]},
        {"item": ["a", "c"], "attribute": ["p", "q"]},
        {"item": ["a", "b"], "attribute": ["p", "r"]},
    ]
    hashes = {read(table(tmp_path, **rows), OWN, IDS).hash for rows in others}
    assert len({first, *hashes}) == 4


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"thing": ["a"], "attribute": [1]},
            "has no column sku or item_id or item: its columns are thing, attribute",
        ),
        ({"item": ["a"], "brand": [1]}, "has no column attribute: its columns are item, brand"),
        ({"item": [], "attribute": []}, "has no row with an item and an attribute"),
        ({"item": ["a", "b"], "attribute": ["", None]}, "has no row with an item and an attribute"),
        ({"item": ["x"], "attribute": [1]}, "no item of .* is in the data: .* such as x, .* a, b"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, columns, message):
    with pytest.raises(InputError, match=message):
        read(table(tmp_path, **columns), OWN, IDS)


@pytest.fixture
def clicks(tmp_path):
    users = [1, 1, 1, 1, 2, 2, 2]
    items = ["a", "b", "c", "d", "b", "a", "e"]
    pl.DataFrame({"u": users, "sku": items}).write_csv(tmp_path / "clicks.csv")
    return tmp_path


def loaded(folder, attributes):
    path = None if attributes is None else str(folder / attributes)
    return load(None, str(folder / "clicks.csv"), OWN, folder / "cache", folder, attributes=path)


def test_they_come_with_the_data_and_leave_its_hash_alone(clicks):
    table(clicks, item=["a", "e"], attribute=[1, 2])
    without, with_ = loaded(clicks, None), loaded(clicks, "attrs.csv")
    assert without.attributes is None
    assert pairs(with_.attributes) == [(0, 0), (4, 1)]
    assert with_.hash == without.hash
    table(clicks, item=["a", "e"], attribute=[2, 2])
    assert pairs(loaded(clicks, "attrs.csv").attributes) == [(0, 0), (4, 0)]  # not the old ones


def test_a_file_that_was_asked_for_must_be_there(clicks):
    with pytest.raises(InputError, match=r"^dataset\.attributes: there is no file"):
        loaded(clicks, "missing.csv")


def test_a_split_numbers_them_over_its_catalogue(clicks):
    # a and b are learnt from; c, d and e, with attribute 1, are held out.
    table(clicks, item=["a", "b", "b", "d", "e"], attribute=[3, 2, 3, 1, 3])
    data = loaded(clicks, "attrs.csv")
    every = LeaveOneOut()(data, 5, 0).info.attributes
    assert (every.values.tolist(), every.offsets.tolist()) == ([2, 1, 2, 0, 2], [0, 1, 3, 3, 4, 5])
    learnt = LeaveOneOut(catalogue="train")(data, 5, 0).info
    assert learnt.n_items == 2
    assert learnt.attributes.values.tolist() == [1, 0, 1]
    assert learnt.attributes.offsets.tolist() == [0, 1, 3]
    assert LeaveOneOut()(loaded(clicks, None), 5, 0).info.attributes is None
