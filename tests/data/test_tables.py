import logging
from dataclasses import replace

import polars as pl
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from negrec.commandline.configuration import conf_dir
from negrec.data import tables
from negrec.data.columns import Columns
from negrec.data.interactions import Counts
from negrec.data.splits.leave_one_out import LeaveOneOut
from negrec.data.tables import Source, load
from negrec.errors import InputError
from tests.data import made

NAMED = ["beauty", "ml-100k", "ml-1m", "ml-1m-sasrec", "sports", "toys", "yelp"]
SOURCE = Source("https://example.org/z.zip", "all rows", "free", "Z 2020", Counts(2, 2, 3), core=2)
OWN = Columns("u", "i", "t", None, None)


@pytest.fixture
def clicks(tmp_path):
    frame = pl.DataFrame({"u": [1, 1, 2], "i": [7, 8, 7], "t": [1, 2, 3]})
    frame.write_parquet(tmp_path / "z.parquet")
    return tmp_path


def read(folder, path="z.parquet", columns=OWN, source=SOURCE, **rules):
    return load("z", path, columns, folder / "cache", folder, source, **rules)


def test_a_named_data_set(clicks, caplog):
    data = read(clicks)
    assert made.own_ids(data) == [(1, 7, 1), (1, 8, 2), (2, 7, 3)]
    assert data.cleaning.core == 2  # the file went through it
    assert not caplog.records


def test_a_second_run_starts_from_the_cache(clicks, monkeypatch):
    first = read(clicks)
    monkeypatch.delattr(tables, "clean")
    again = read(clicks)
    assert (again.hash, made.own_ids(again)) == (first.hash, made.own_ids(first))


def test_other_settings_are_another_entry(clicks):
    assert read(clicks).n_users == 2
    assert read(clicks, min_interactions=1).cleaning.core == 1
    other = read(clicks, columns=replace(OWN, timestamp=None))
    assert other.timestamp is None


def test_another_content_is_another_entry(clicks):
    read(clicks)
    pl.DataFrame({"u": [1, 1], "i": [7, 8], "t": [1, 2]}).write_parquet(clicks / "z.parquet")
    assert read(clicks).n_interactions == 2


def test_counts_that_differ_are_told(clicks, caplog):
    read(clicks, source=replace(SOURCE, counts=Counts(2, 2, 4)))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "holds 2 users, 2 items, 3 interactions, and z should hold" in record.getMessage()
    assert "2 users, 2 items, 4 interactions" in record.getMessage()


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    line = str(caught.value)
    assert line.startswith(f"dataset=z: there is no file {tmp_path}/z.parquet: download https://ex")
    for part in ("all rows", "columns u, i, t", "paths.data_dir=", "NEGREC_DATA_DIR"):
        assert part in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("header", "columns"), [("user,item,ts", Columns()), ("a,b,c", Columns("a", "b", "c"))]
)
def test_a_table_of_ones_own(tmp_path, header, columns):
    path = tmp_path / "clicks.csv"
    path.write_text(f"{header}\nanna,007,2024-01-02\nbo,x y,2024-01-03\n")
    data = read(tmp_path, str(path), columns, source=None)
    assert made.own_ids(data) == [("anna", "007", 1704153600), ("bo", "x y", 1704240000)]
    assert data.name == "z"


def test_the_hash_is_of_the_data_not_of_the_file(clicks):
    pl.read_parquet(clicks / "z.parquet").write_csv(clicks / "z.csv")
    text = load("y", str(clicks / "z.csv"), OWN, clicks / "cache", clicks)
    assert text.hash == read(clicks).hash


def loaded(name, folder, cache):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [f"dataset={name}"])
    return instantiate(cfg.dataset, cache_dir=cache, data_dir=folder)


@pytest.mark.parametrize("name", NAMED)
def test_every_named_set_says_where_it_comes_from(tmp_path, name):
    with pytest.raises(
        Exception, match=rf"dataset={name}: there is no file .*`negrec data fetch {name} "
    ):
        loaded(name, tmp_path, tmp_path)


@pytest.mark.parametrize("name", NAMED)
def test_real_files(real_data, tmp_path, name, caplog):
    if not (real_data / f"{name}.parquet").exists():
        pytest.skip(f"no {name}.parquet in NEGREC_DATA_DIR")
    data = loaded(name, real_data, tmp_path)
    assert not caplog.records  # the counts are those of the yaml
    file = pl.read_parquet(real_data / f"{name}.parquet")
    order = [c for c in ("user_id", "timestamp", "position") if c in file.columns]
    expected = file.sort(*order, maintain_order=True)
    assert data.user_ids.gather(data.user).equals(expected["user_id"], check_names=False)
    assert data.item_ids.gather(data.item).equals(expected["item_id"], check_names=False)
    repeats = len(file) - file.select("user_id", "item_id").n_unique()
    assert data.cleaning.repeats == repeats
    assert (repeats == 11_830) if name == "yelp" else (repeats == 0)


def test_beauty_left_one_out(real_data, tmp_path):
    if not (real_data / "beauty.parquet").exists():
        pytest.skip("no beauty.parquet in NEGREC_DATA_DIR")
    data = loaded("beauty", real_data, tmp_path)
    split = LeaveOneOut()(data, 50, 0)
    # 198,502 interactions, two of each of 22,363 users held out.
    assert len(split.train.values) == 198_502 - 2 * 22_363
    assert len(split.valid) == len(split.test) == 22_363
    file = pl.read_parquet(real_data / "beauty.parquet")
    last = file.sort("user_id", "position").group_by("user_id", maintain_order=True).last()
    # Ids of the file are 1, 2, 3, ...: those of the catalogue.
    assert split.test.target.tolist() == last["item_id"].to_list()
