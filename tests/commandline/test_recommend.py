"""``negrec recommend`` on small runs that were really trained."""

import json
import random
import re
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from negrec import cli
from negrec.commandline import recommend as module
from negrec.commandline.trained import trained
from negrec.serving.recommender import Recommender
from tests import logs

SMALL = [
    *("tracking=none", "diagnostics=none", "trainer.max_epochs=1", "trainer.batch_size=32"),
    *("trainer.threads=1", "trainer.progress=false", "max_length=5"),
]
N_USERS = 40
ITEMS = [f'it"em, {n:02}' for n in range(30)]


def clicks():
    """User -> items in order, in text that CSV has to quote; "late" comes at the end only."""
    generator = random.Random(0)
    found = {f"user {n}": generator.sample(ITEMS, generator.randint(4, 9)) for n in range(N_USERS)}
    return found | {"short": ITEMS[:2], "user 5": [*ITEMS[:8], "late"]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Ids of finished runs by name; the test stands in their folder."""
    folder = tmp_path_factory.mktemp("recommend")
    rows = [(u, i, 10**9 + t) for u, items in clicks().items() for t, i in enumerate(items)]
    table = pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row")
    table.sample(fraction=1, shuffle=True, seed=1).write_csv(folder / "clicks.csv")
    with pytest.MonkeyPatch.context() as patch, logs.untouched():
        patch.chdir(folder)
        patch.setenv("NEGREC_CACHE_DIR", str(folder / "cache"))
        found = {}
        for name, words in {
            "sasrec": ["model.dim=8", "split=leave_one_out"],
            "teacher": [
                *("model.dim=8", "split=leave_one_out", "evaluation.seen=keep"),
                *("objective=ranking_with_teacher", "mining_start=0"),
            ],
            "mf": ["model=mf", "split=leave_one_out"],
            "markov": ["model=markov", "split=leave_one_out"],
            "popularity": ["model=popularity", "split.fractions=[0.6,0.2,0.2]"],
        }.items():
            assert cli.main(["train", "clicks.csv", *SMALL, *words]) == 0
            new = max(Path("multirun").rglob("run.json"), key=lambda path: path.stat().st_mtime_ns)
            found[name] = json.loads(new.read_text())["run_id"]
        yield folder, found


@pytest.fixture
def recommend(runs, monkeypatch, capsys, untouched_logging):
    """Types the verb for a run, by its name; the exit code, what was printed, what was said."""
    folder, ids = runs
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NEGREC_CACHE_DIR", str(folder / "cache"))
    monkeypatch.setenv("COLUMNS", "100")

    def typed(name, *words):
        capsys.readouterr()
        code = cli.main(["recommend", f"run={ids[name]}", *words])
        return code, *capsys.readouterr()

    typed.ids = ids
    return typed


def test_everybody_gets_unseen_items_in_the_order_of_their_scores(recommend, tmp_path):
    code, out, _ = recommend("sasrec", "top=4", "-o", str(tmp_path / "recs.parquet"))
    assert code == 0
    assert "users: 41, " in out
    assert "wrote 164 rows" in out
    table = pl.read_parquet(tmp_path / "recs.parquet")
    assert table.columns == ["user", "rank", "item", "score"]
    assert table["user"].unique(maintain_order=True).to_list() == sorted(clicks())
    for (user,), part in table.group_by("user"):
        assert part["rank"].to_list() == [1, 2, 3, 4]
        assert part["score"].is_sorted(descending=True)
        # Held-out items are history too.
        assert not set(part["item"]) & set(clicks()[user])
        assert set(part["item"]) <= {*ITEMS, "late"}
    assert list(tmp_path.iterdir()) == [tmp_path / "recs.parquet"]


@pytest.mark.parametrize("name", ["sasrec", "teacher", "mf", "markov", "popularity"])
def test_any_model_says_what_it_says_alone(recommend, tmp_path, name):
    code, *_ = recommend(name, "top=5", "seen=keep", f"out={tmp_path / 'recs.parquet'}")
    assert code == 0
    table = pl.read_parquet(tmp_path / "recs.parquet")
    run = trained(recommend.ids[name])
    data, split = run.parts.interactions, run.parts.split
    alone = Recommender(run.model, split.info, data.item_ids.gather(split.catalogue), data.user_ids)
    users = pl.Series(list(clicks()))
    read = alone.read(users, pl.Series(list(clicks().values())))
    items, scores = alone.top(read, 5, "keep")
    expected = alone.frame(users, items, scores)
    assert_frame_equal(table.sort("user", "rank"), expected.sort("user", "rank"), abs_tol=1e-5)


def test_the_model_is_the_one_that_was_tested(recommend):
    run = trained(recommend.ids["teacher"])
    assert run.model is not run.parts.model


def test_seen_items_are_treated_as_in_the_measurement_unless_it_is_said(recommend):
    assert "seen=keep" in recommend("teacher")[1]
    assert "seen=filter" in recommend("teacher", "seen=filter")[1]
    assert "seen=filter" in recommend("sasrec")[1]


def test_items_outside_the_catalogue_are_skipped(recommend):
    out = recommend("popularity")[1]  # global_temporal: the catalogue is that of training
    assert "items skipped, which the model does not know: 1\n" in out


def test_parts_of_the_people_at_a_time(recommend, tmp_path, monkeypatch):
    recommend("sasrec", "-o", str(tmp_path / "whole.parquet"))
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    recommend("sasrec", "-o", str(tmp_path / "parts.parquet"))
    whole, parts = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("whole", "parts"))
    assert len(whole) > 7 * 20
    assert_frame_equal(whole, parts, abs_tol=1e-5)


def test_some_users_in_the_order_of_the_file(recommend, tmp_path):
    ids, table = tmp_path / "ids.txt", tmp_path / "recs.csv"
    ids.write_text("user 7\r\nuser 3\n\nnobody\nuser 7\n", encoding="utf-8-sig")
    code, out, _ = recommend("sasrec", f"users={ids}", "top=2", "-o", str(table))
    assert code == 0
    assert "more than once, and given one list each: 1 (user 7)" in out
    assert "left out, since not in clicks: 1 (nobody)" in out
    assert pl.read_csv(table)["user"].to_list() == ["user 7"] * 2 + ["user 3"] * 2


@pytest.mark.parametrize("columns", [["anything"], ["n", "user"]])
def test_users_in_a_table(recommend, tmp_path, columns):
    rows = {name: ["user 1", "user 2"] for name in columns} | {"n": [1, 2]}
    pl.DataFrame({name: rows[name] for name in columns}).write_parquet(tmp_path / "ids.parquet")
    code, out, _ = recommend("sasrec", f"users={tmp_path / 'ids.parquet'}")
    assert code == 0
    assert "users: 2, " in out


def test_histories_of_others(recommend, tmp_path):
    rows = [
        ("new", ITEMS[1], 5),
        ("new", ITEMS[0], 2),
        ("user 1", "no item", 1),
        ("b", ITEMS[3], 1),
    ]
    table = tmp_path / "histories.parquet"
    pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row").write_parquet(table)
    words = [f"histories={table}", "top=20", "-o", str(tmp_path / "recs.parquet")]
    code, out, _ = recommend("sasrec", *words)
    assert code == 0
    assert "users: 3, with 3 items in all" in out
    assert "items skipped, which the model does not know: 1\n" in out
    assert "users without a known item: 1; " in out
    found = pl.read_parquet(tmp_path / "recs.parquet")
    run = trained(recommend.ids["sasrec"])
    data = run.parts.interactions
    alone = Recommender(run.model, run.parts.split.info, data.item_ids, data.user_ids)
    read = alone.read(None, pl.Series([[ITEMS[0], ITEMS[1]], []]))
    items, _ = alone.top(read, 20)
    for row, user in enumerate(["new", "user 1"]):
        assert found.filter(user=user)["item"].to_list() == alone.own(items[row]).to_list()
    popular = run.parts.split.info.counts.sort(descending=True).values[:20]
    assert found.filter(user="user 1")["score"].to_list() == popular.tolist()


def test_one_history_of_one_item_with_other_columns(recommend, tmp_path):
    (tmp_path / "one.csv").write_text("who;what\nx;'\n".replace("'", ITEMS[4].replace('"', "")))
    words = [f"histories={tmp_path / 'one.csv'}"]
    code, _, err = recommend("sasrec", *words)
    assert code == 2
    assert "name it with user=NAME" in err
    code, out, _ = recommend("sasrec", *words, "user=who", "item=what")
    assert code == 0
    assert "users without a known item: 1; " in out


def test_a_model_of_users_says_whom_it_does_not_know(recommend, tmp_path):
    table = pl.DataFrame({"user": ["user 1", "new"], "item": ITEMS[:2]})
    table.write_csv(tmp_path / "histories.csv")
    _, out, _ = recommend("mf", f"histories={tmp_path / 'histories.csv'}")
    assert (
        "users of whom this model, which reads no histories, learnt nothing: 1; each gets the most "
        "popular items, with how often training shows them as scores\n"
    ) in out


def test_ten_lists_for_the_eye(recommend):
    code, out, _ = recommend("sasrec", "top=3")
    assert code == 0
    shown = [user for user in sorted(clicks()) if f"  {user}  " in out]
    assert shown == sorted(clicks())[:10]
    assert clicks()[shown[0]][-1] in out
    assert "-o recs.parquet writes the lists of all 41 users" in out


def test_names_beside_the_ids(recommend, tmp_path):
    names = tmp_path / "names.csv"
    pl.DataFrame({"item": ITEMS, "name": [f"[the] {n}" for n in range(30)]}).write_csv(names)
    words = [f"dataset.items={names}", "users=" + str(tmp_path / "ids.txt")]
    (tmp_path / "ids.txt").write_text("user 5\n")
    code, out, _ = recommend("sasrec", *words)
    assert code == 0
    assert f"[the] 7 ({ITEMS[7]})" in out  # of the history, in which "late" has no name
    assert "  late  " in out
    assert recommend("sasrec", *words, "-o", str(tmp_path / "recs.csv"))[0] == 0
    table = pl.read_csv(tmp_path / "recs.csv")
    assert table.columns == ["user", "rank", "item", "score", "name"]
    assert table["name"].to_list() == [f"[the] {ITEMS.index(item)}" for item in table["item"]]


def test_a_long_name_leaves_each_score_beside_its_item(recommend, tmp_path):
    names, recs = tmp_path / "names.csv", tmp_path / "recs.csv"
    long = [f"{n} {'a long name ' * 20}" for n in range(31)]
    pl.DataFrame({"item": [*ITEMS, "late"], "name": long}).write_csv(names)
    (tmp_path / "ids.txt").write_text("user 7\n")
    words = [f"users={tmp_path / 'ids.txt'}", f"dataset.items={names}", "top=8"]
    _, out, _ = recommend("sasrec", *words)
    assert recommend("sasrec", *words, "-o", str(recs))[0] == 0
    table = pl.read_csv(recs)
    # A line that ends in a score begins the name that it is of; names begin with their number.
    beside = [re.findall(r"(\d+) a long", line) for line in re.findall(r".*\.\d{3} *$", out, re.M)]
    assert [found[-1] for found in beside] == [name.split()[0] for name in table["name"]]


def test_a_file_is_not_replaced_unless_it_is_said(recommend, tmp_path):
    out = tmp_path / "recs.csv"
    out.write_text("mine")
    code, _, err = recommend("sasrec", "-o", str(out))
    assert (code, out.read_text()) == (2, "mine")
    assert "exists: choose another name, or add force=true" in err
    assert recommend("sasrec", "-o", str(out), "force=true")[0] == 0
    assert len(pl.read_csv(out)) == 41 * 20


def test_nothing_half_written_is_left(recommend, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    made = Recommender.frame
    calls = []

    def failing(*given):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return made(*given)

    monkeypatch.setattr(Recommender, "frame", failing)
    code, _, err = recommend("sasrec", "-o", str(tmp_path / "recs.parquet"))
    assert code == 2
    assert "recs.parquet cannot be written" in err
    assert "No space left on device" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["top=0"], "top=0 must be a whole number from 1"),
        (["top=ten"], "top=ten must be a whole number from 1"),
        (["seen=zero"], "seen=zero must be filter or keep"),
        (["force=yes"], "force=yes must be true or false"),
        (["top=1", "top=2"], "top is given twice"),
        (["-o"], "-o wants a name: -o recs.parquet"),
        (["-o", "recs.xlsx"], "recs.xlsx: its name must end in one of .parquet, .csv"),
        (["-o", "no/recs.csv"], "there is no folder no"),
        (["users="], "users= wants the name of a file"),
        (["users=none.txt"], "there is no file none.txt"),
        (["users=none.csv"], "there is no file none.csv"),
        (["histories=none.csv"], "there is no file none.csv"),
        (["modle=1"], "there is no key modle: did you mean model?"),
        (["model.dim=16"], "was trained with model.dim=8, and this is model.dim=16"),
        (["seed=1"], "was trained with seed=0, and this is seed=1"),
    ],
)
def test_refusals(recommend, words, line):
    code, out, err = recommend("sasrec", *words)
    assert (code, out) == (2, "")
    assert line in err
    assert err.count("\n") == 1


def test_a_list_is_no_longer_than_the_catalogue(recommend, tmp_path):
    # Lists of that length would not fit into any memory.
    code, out, _ = recommend("sasrec", f"top={10**18}", "seen=keep", "-o", str(tmp_path / "r.csv"))
    assert code == 0
    assert "top 31 of 31 items" in out
    assert len(pl.read_csv(tmp_path / "r.csv")) == 41 * 31


def test_a_file_without_users_is_refused(recommend, tmp_path):
    (tmp_path / "ids.txt").write_text("\n \n")
    code, _, err = recommend("sasrec", f"users={tmp_path / 'ids.txt'}")
    assert (code, err.count("\n")) == (2, 1)
    assert "ids.txt holds no user" in err


def test_nobody_known_is_refused(recommend, tmp_path):
    (tmp_path / "ids.txt").write_text("x\ny\n")
    code, _, err = recommend("sasrec", f"users={tmp_path / 'ids.txt'}")
    assert code == 2
    assert "none of its 2 users is in clicks, whose ids look like short, user 0, user 1" in err


def test_the_help_page(recommend, capsys):
    assert cli.main(["recommend", "--help"]) == 0
    out = capsys.readouterr().out
    assert "run=ID" in out
    assert "the same as -o FILE" in out
