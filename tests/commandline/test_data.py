import re

import polars as pl
import pytest

from negrec import cli
from negrec.commandline import data
from tests.data.server import served

CSV = b"1,7,4,100\n1,8,5,50\n2,7,3,10\n"
TINY = """
_target_: negrec.data.tables.load
name: tiny
path: tiny.parquet
columns:
  _target_: negrec.data.columns.Columns
  user: user_id
  item: item_id
  timestamp: timestamp
  position: position
  rating: null
source:
  _target_: negrec.data.tables.Source
  url: URL
  checksum: null
  reader:
    _target_: negrec.data.sources.delimited.Delimited
    columns: {user_id: 0, item_id: 1, rating: 2, timestamp: 3}
    ids: number
  preparation: all of it
  licence: free - as air
  citation: Z 2020
  counts: {_target_: negrec.data.interactions.Counts, users: 2, items: 2, interactions: 3}
"""


@pytest.fixture
def site():
    with served(**{"tiny.csv": CSV}) as found:
        yield found


@pytest.fixture
def conf(site, tmp_path, monkeypatch):
    """A folder of options with the data set ``tiny``, which lies at the site."""
    folder = tmp_path / "conf" / "dataset"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(TINY.replace("URL", f"{site.url}/tiny.csv"))
    monkeypatch.setenv("NEGREC_CONF_DIR", str(tmp_path / "conf"))
    monkeypatch.setenv("NEGREC_DATA_DIR", str(tmp_path / "data"))
    return folder


def run(capsys, *words):
    code = cli.main(["data", *words])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_a_word_that_is_no_subcommand(capsys):
    code, _, err = run(capsys, "fetsh")
    assert (code, err) == (
        2,
        "negrec: negrec data has no 'fetsh': did you mean fetch? (negrec data --help)\n",
    )
    assert "there are list, fetch, stats, convert" in run(capsys, "xyz")[2]


def test_the_page_names_every_subcommand(capsys):
    for words in ((), ("--help",)):
        code, out, _ = run(capsys, *words)
        assert code == 0
        assert re.findall(r"^  (\w+)  +[a-z]", out, re.M)[:4] == list(data.SUBCOMMANDS)


@pytest.mark.parametrize("verb", ["list", "fetch"])
def test_help(capsys, verb):
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert out.startswith(f"usage: negrec data {verb} ")


def cells(line):
    return re.split(r" +", line.strip())


def test_the_list(capsys, conf, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ml-1m.parquet").write_bytes(b"")
    code, out, _ = run(capsys, "list")
    assert code == 0
    rows = {line.split()[0]: cells(line) for line in out.splitlines() if line.strip()}
    wanted = ["ml-1m", "6,040", "3,706", "1,000,209", "yes", "yes", "grouplens.org"]
    assert rows["ml-1m"][:7] == wanted
    assert rows["beauty"][:6] == ["beauty", "22,363", "12,101", "198,502", "yes", "no"]
    assert rows["tiny"] == ["tiny", "2", "2", "3", "yes", "no", "127.0.0.1", "free"]
    assert rows["yambda"][1:4] == ["?", "?", "?"]
    assert rows["retailrocket"][6:8] == ["kaggle.com", "*"]  # needs one's own download
    assert "synthetic" not in rows
    assert "file" not in rows
    # A pipe gets whole lines, and a terminal of 100 columns has room for them.
    assert max(map(len, out.splitlines())) <= 100


def test_the_list_in_a_narrow_terminal(capsys, conf, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    monkeypatch.setenv("COLUMNS", "80")
    out = re.sub(r"\x1b\[[0-9;]*m", "", run(capsys, "list")[1])
    lines = [line.rstrip() for line in out.splitlines()]
    assert "…" not in out
    assert max(map(len, lines)) <= 80
    at = next(n for n, line in enumerate(lines) if line.startswith("retailrocket "))
    assert cells(lines[at]) == ["retailrocket", "1,407,580", "235,061", "2,756,101", "yes", "no"]
    assert lines[at + 1] == "  kaggle.com *, CC BY-NC-SA 4.0"


def test_fetch(capsys, conf, tmp_path, site):
    code, out, err = run(capsys, "fetch", "tiny")
    assert (code, err) == (0, "")
    path = tmp_path / "data" / "tiny.parquet"
    assert f"{path}: 2 users, 2 items, 3 interactions" in out
    assert "licence: free - as air" in out
    assert "cite: Z 2020" in out
    assert "sha256 of what came: " in out
    assert pl.read_parquet(path)["item_id"].to_list() == [8, 7, 7]
    # The archive is needed no more.
    kept = {file.name for file in (tmp_path / "data").rglob("*") if file.suffix != ".lock"}
    assert kept == {".downloads", "tiny.parquet", "tiny.source.json"}
    code, out, _ = run(capsys, "fetch", "tiny")
    assert (code, len(site.asked)) == (0, 1)
    assert "is there already" in out
    site.files["/tiny.csv"] = CSV + b"2,8,1,11\n"
    code, out, err = run(capsys, "fetch", "tiny", "force=true")
    assert (code, len(site.asked)) == (0, 2)
    assert err == (
        "negrec: warning: tiny holds 2 users, 2 items, 4 interactions, and should hold 2 users, "
        "2 items, 3 interactions: its owners changed it, or it was prepared in another way\n"
    )


def test_training_without_the_file_says_how_to_fetch_it(
    capsys, conf, tmp_path, site, untouched_logging, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = (f"paths.data_dir={tmp_path / 'other'}",)
    assert cli.main(["train", "dataset=tiny", "tracking=none", *words]) == 2
    said = capsys.readouterr().err
    assert f"`negrec data fetch tiny {words[0]}` downloads {site.url}/tiny.csv" in said
    assert run(capsys, "fetch", "tiny", *words)[0] == 0
    assert (tmp_path / "other" / "tiny.parquet").exists()


def test_a_file_that_one_has(capsys, conf, tmp_path, site):
    (tmp_path / "mine.csv").write_bytes(CSV)
    code, out, _ = run(capsys, "fetch", "tiny", f"from={tmp_path / 'mine.csv'}")
    assert (code, site.asked) == (0, [])
    assert "2 users, 2 items, 3 interactions" in out
    assert (tmp_path / "mine.csv").read_bytes() == CSV  # it is the user's
    code, _, err = run(capsys, "fetch", "tiny", "force=true", "from=none.csv")
    assert (code, err) == (2, "negrec: from=none.csv: there is no such file\n")


def test_one_archive_for_two(capsys, conf, site):
    text = (conf / "tiny.yaml").read_text()
    (conf / "tiny2.yaml").write_text(text.replace("tiny.parquet", "tiny2.parquet"))
    assert run(capsys, "fetch", "tiny", "tiny2")[0] == 0
    assert len(site.asked) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], None),
        (["paths.data_dir=x"], "name a data set: negrec data fetch NAME"),
        (["tinny"], "there is no data set 'tinny': did you mean tiny? (negrec data list)"),
        (["synthetic"], "there is no data set 'synthetic': "),
        (["tiny", "to=x"], "negrec data fetch has no to=: it has from, force, paths.data_dir"),
        (["tiny", "--now"], "negrec data fetch has no --now"),
        (["tiny", "force=1"], "force=1 must be true or false"),
        (["tiny", "force=true", "force=true"], "force is given twice"),
        (["tiny", "beauty", "from=x"], "from=x is one data set's: name one, not tiny, beauty"),
        (["tiny", "retailrocket"], "retailrocket needs your own download: https://www.kaggle.com"),
        (["yelp"], "then negrec data fetch yelp from=FILE"),
        (["yambda"], "yambda needs your own download: https://huggingface.co"),
    ],
)
def test_bad_words(capsys, conf, site, tmp_path, words, said):
    code, _, err = run(capsys, "fetch", *words)
    assert site.asked == []  # judged before anything is downloaded
    assert not (tmp_path / "data").exists()
    if said is None:
        assert code == 0
        return
    assert code == 2
    assert err.count("\n") == 1
    assert said in err


def test_a_server_without_the_file(capsys, conf, site):
    site.files.clear()
    code, _, err = run(capsys, "fetch", "tiny")
    assert code == 2
    assert re.fullmatch(r"negrec: http://\S+/tiny.csv: the server answers 404 .*from=FILE\n", err)


def test_an_option_of_ones_own_that_cannot_be_read(capsys, conf):
    text = (conf / "tiny.yaml").read_text()
    (conf / "bad.yaml").write_text(text.replace("delimited.Delimited", "nowhere.Nobody"))
    code, _, err = run(capsys, "list")
    assert code == 2
    assert "dataset/bad" in err
    assert err.count("\n") == 1
