import logging

import polars as pl
import pytest

from negrec import identity
from negrec.commandline import configuration
from negrec.data.columns import Columns
from negrec.data.names import read
from negrec.data.tables import load
from negrec.errors import InputError

OWN = Columns("u", "sku", None, None, None)
IDS = pl.Series("id", [7, 9, 10])


def table(folder, text):
    path = folder / "names.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("item", ["sku", "item_id", "item"])
@pytest.mark.parametrize("name", ["name", "Title", "item_name", "movie title"])
def test_each_item_gets_its_first_name(tmp_path, item, name, caplog):
    caplog.set_level(logging.INFO)
    path = table(tmp_path, f"price,{name},{item}\n1,Soap ,10\n2,Salt,8\n3,,9\n4,Soup,10\n5,,\n")
    assert read(path, OWN, IDS).to_list() == [None, None, "Soap"]
    assert [r.message for r in caplog.records] == [f"2 items have no name in {path}"]


def test_a_name_before_a_description(tmp_path):
    path = table(tmp_path, "item,description,title\n7,long,short\n")
    assert read(path, OWN, IDS).to_list() == ["short", None, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "thing,name\n7,a\n",
            r"names\.csv has no column sku or item_id or item: its columns are thi",
        ),
        ("item,brand\n7,a\n", "has no column name or title: its columns are item, brand"),
        (
            "item,name\n6,a\n",
            "no item of .* is in the data: its column item has ids such as 6, the",
        ),
        ("item,name\n7,\n", "no item of .* is in the data"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(InputError, match=r"^dataset\.items: .*" + message) as caught:
        read(table(tmp_path, text), OWN, IDS)
    assert "\n" not in str(caught.value)


def test_they_come_with_the_data_and_leave_its_hash_alone(tmp_path):
    (tmp_path / "clicks.csv").write_text("u,sku\n1,7\n1,9\n2,10\n")

    def loaded(items):
        path = str(tmp_path / "clicks.csv")
        return load(None, path, OWN, tmp_path / "cache", tmp_path, items=items)

    without, named = loaded(None), loaded(str(table(tmp_path, "item,name\n9,Salt\n")))
    assert without.names is None
    assert named.names.to_list() == [None, "Salt", None]
    assert named.hash == without.hash
    with pytest.raises(InputError, match=r"^dataset\.items: there is no file"):
        loaded(str(tmp_path / "missing.csv"))


def test_they_are_no_part_of_what_a_run_is():
    def parts(*words):
        with configuration.opened(None):
            return identity.part_of_the_result(configuration.composed(words))

    file = ("dataset=file", "dataset.path=clicks.csv")
    assert parts(*file, "dataset.items=names.csv") == parts(*file)
    # A number of items, of synthetic data, is.
    assert parts("dataset.items=300") != parts("dataset.items=400")
    assert parts(*file, "dataset.events=[view]") != parts(*file)
