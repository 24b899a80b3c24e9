"""``negrec bench``: what is measured, shown and saved."""

import csv
import re
from pathlib import Path

import pytest

from negrec import cli
from negrec.commandline import bench
from negrec.commandline.configuration import conf_dir, opened

SMALL = ("dataset.users=60", "dataset.items=80", "trainer.threads=1", "trainer.batch_size=16")


class Bench:
    """One ``negrec bench`` after the other, in an empty folder."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.out = ""

    def __call__(self, *words: str) -> dict[tuple[str, str], dict[str, str]]:
        """The rows of bench.csv by (sampler, loss)."""
        assert cli.main(["bench", *SMALL, "steps=2", "rounds=2", *words]) == 0
        self.out = self.capsys.readouterr().out
        folder = Path(re.search(r"bench\.png are in (.*)", self.out)[1])
        assert (folder / "bench.png").read_bytes().startswith(b"\x89PNG")
        with (folder / "bench.csv").open() as file:
            return {(row["sampler"], row["loss"]): row for row in csv.DictReader(file)}

    def refusal(self, *words: str) -> str:
        assert cli.main(["bench", *words]) == 2
        out, err = self.capsys.readouterr()
        assert "Traceback" not in out + err
        (line,) = err.strip().splitlines()
        return line.removeprefix("negrec: ")


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Bench:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEGREC_CONF_DIR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return Bench(capsys)


def test_pairs_that_are_refused_stand_with_their_reason(measured: Bench, tmp_path: Path):
    rows = measured("sampler=uniform,adaptive", "loss=bce,softmax", "pool=10")
    assert list(rows) == [
        ("uniform", "bce"),
        ("uniform", "softmax"),
        ("adaptive", "bce"),
        ("adaptive", "softmax"),
    ]
    for sampler in ("uniform", "adaptive"):
        assert rows[sampler, "bce"]["refused"] == ""
        assert rows[sampler, "softmax"]["seconds_per_1000_queries"] == ""
        assert rows[sampler, "softmax"]["refused"].startswith("it reads the whole catalogue")
    # Its own baseline, exactly.
    assert float(rows["uniform", "bce"]["times_baseline"]) == 1
    assert measured.out.count("refused: ") == 2
    assert "uniform   bce" in re.sub(" {3,}", "   ", measured.out)
    (folder,) = tmp_path.glob("multirun/*/*")
    assert sorted(file.name for file in folder.iterdir()) == ["bench.csv", "bench.png"]
    assert list(tmp_path.iterdir()) == [tmp_path / "multirun"]


def test_numbers_of_a_row(measured: Bench):
    rows = measured("sampler=uniform", "loss=bce")
    (row,) = rows.values()
    least, middle, most = (float(row[k]) for k in ("least", "seconds_per_1000_queries", "most"))
    assert 0 < least <= middle <= most
    assert middle == pytest.approx((least + most) / 2, rel=1e-4)  # the median of two rounds
    assert 0 <= float(row["sampler_share"]) < 1
    assert float(row["peak_mb"]) > 50


def test_another_k_is_compared_with_k_1(measured: Bench):
    rows = measured("sampler=uniform", "k=40")
    assert list(rows) == [("uniform, k=1", "bce"), ("uniform", "bce")]
    assert float(rows["uniform, k=1", "bce"]["times_baseline"]) == 1
    assert "uniform, k=1" in measured.out


def test_a_sampler_of_the_users(measured: Bench, tmp_path: Path, monkeypatch):
    (tmp_path / "slow_sampler.py").write_text(
        "import time\n"
        "from negrec.samplers.uniform import Uniform\n"
        "class Slow(Uniform):\n"
        "    def draw(self, rows, generator):\n"
        "        time.sleep(0.1)\n"
        "        return super().draw(rows, generator)\n"
    )
    (tmp_path / "mine/sampler").mkdir(parents=True)
    (tmp_path / "mine/sampler/slow.yaml").write_text(
        "_target_: slow_sampler.Slow\n_partial_: true\nk: 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("NEGREC_CONF_DIR", "mine")
    slow = measured("sampler=slow")["slow", "bce"]
    # A small step takes some 10 ms, and this one 100 ms more.
    assert float(slow["sampler_share"]) > 0.6
    assert float(slow["times_baseline"]) > 2


def test_where_no_peak_can_be_forgotten_a_fresh_process_tells(measured: Bench, monkeypatch):
    monkeypatch.setattr("negrec.training.cost._forget_peak", lambda: False)
    monkeypatch.setattr(bench, "_in_a_fresh_process", lambda words, steps: 123.0)
    rows = measured("sampler=uniform")
    assert float(rows["uniform", "bce"]["peak_mb"]) == 123


@pytest.mark.slow
def test_a_fresh_process_trains_the_pair(measured: Bench):
    words = ["sampler=uniform", "loss=bce", *SMALL]
    assert 100 < bench._in_a_fresh_process(words, 1) < 4_000


# ---- which pairs


def cells(*words: str):
    plan = bench.planned(words)
    with opened() as loader:
        return bench.Composer(plan, loader).cells()


def options(group: str) -> set[str]:
    return {file.stem for file in (conf_dir() / group).glob("*.yaml")}


def test_every_sampler_with_bce_and_every_loss_with_what_fits(measured: Bench):
    _, found = cells()
    assert [c.sampler for (c, *_) in found if c.loss == "bce"] == sorted(options("sampler"))
    others = {some[0].loss: [c.sampler for c in some] for some in found if some[0].loss != "bce"}
    assert set(others) == options("loss") - {"bce"}
    assert set(map(tuple, others.values())) == {("uniform", "full")}


def test_softmax_is_measured_with_the_full_catalogue(measured: Bench):
    rows = measured("loss=softmax")
    assert list(rows) == [("uniform, k=1", "bce"), ("full", "softmax")]
    assert rows["full", "softmax"]["refused"] == ""


def test_a_key_goes_to_the_pairs_that_know_it(measured: Bench):
    baseline, found = cells("sampler=uniform,genni,full", "k=7", "alpha=1.5", "model.dim=32")
    ((uniform,), (genni,), (full,)) = found
    assert (uniform.cfg.sampler.k, genni.cfg.sampler.k) == (7, 7)
    assert genni.cfg.sampler.alpha == 1.5
    assert "k" not in full.cfg.sampler
    assert {cell.cfg.model.dim for cell in (baseline, uniform, genni, full)} == {32}
    assert (baseline.cfg.sampler.k, baseline.cfg.loss._target_) == (1, "negrec.losses.bce.BCE")


def test_the_baseline_is_plain(measured: Bench):
    words = ("sampler/false_negatives=reverse", "objective=ranking_with_teacher", "mining_start=0")
    baseline, ((cell,),) = cells("sampler=uniform", "k=100", "dataset.users=70", *words)
    assert cell.cfg.false_negatives.start == 0
    assert baseline.cfg.false_negatives is None
    assert baseline.cfg.objective._target_.endswith(".Ranking")
    assert baseline.cfg.dataset.users == 70


def test_steps_are_shared_out_over_the_rounds():
    assert bench.Plan(None, None, [], steps=30, rounds=3).steps_of_a_round == 10
    assert bench.Plan(None, None, [], steps=7, rounds=3).steps_of_a_round == 3


# ---- bad input


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sampler=geni"], "there is no sampler=geni, did you mean genni? (sampler can be adapt"),
        (["sampler=uniform,geni"], "there is no sampler=geni, did you mean genni?"),
        (["loss=cross"], "there is no loss=cross (loss can be bce, bpr,"),
        (["sampler.colour=red"], "there is no key sampler.colour"),
        (["alpha=2", "sampler=uniform"], "alpha is a setting of sampler=genni, and this is samp"),
        (["k=0", "sampler=uniform"], "k must be at least 1, got 0"),
        (["model.dim=7", "sampler=uniform"], "heads must divide dim"),
        (["model=popularity", "sampler=uniform"], "has nothing to train"),
        (
            ["sampler/false_negatives=track", "sampler=uniform"],
            "mining_start=plateau does not come",
        ),
        (["steps=0"], "steps must be a whole number of at least 1, got steps=0"),
        (["rounds=some"], "rounds must be a whole number of at least 1, got rounds=some"),
        (["steps=1", "steps=2"], "steps is given twice"),
        (["seed=1,2"], "seed=1,2: only sampler and loss take several"),
        (["run=abc"], "leave out run="),
        (["dataset=file"], "dataset.path has no value"),
        (["clicks.csv"], "there is no file clicks.csv"),
        (["--multirun"], "bench has no --multirun"),
    ],
)
def test_bad_input_is_one_line(measured: Bench, tmp_path: Path, words: list[str], says: str):
    small = () if "dataset=file" in words else SMALL
    assert says in measured.refusal(*small, *words)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_help(measured: Bench):
    assert cli.main(["bench", "--help"]) == 0
    assert "negrec bench clicks.csv" in measured.capsys.readouterr().out
