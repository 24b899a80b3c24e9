"""``negrec choose``: real runs on tiny data, and what a command may not say."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from negrec import cli, experiment, identity
from negrec.commandline import choose, configuration
from negrec.commandline.candidates import Candidate, composed, listed, read_candidates
from negrec.errors import InputError
from negrec.sweeping.halving import Choice, Judgement, Round
from negrec.training.interruption import InterruptedRunError

SMALL = (
    *("dataset.users=60", "dataset.items=80", "trainer.threads=1", "trainer.batch_size=16"),
    *("tracking=none", "diagnostics=none", "trainer.max_epochs=2", "model.dim=8"),
)
TWO = ("sampler=in_batch,adaptive", "k=5", "pool=20", "seeds=2", "budget=2h")


class Choose:
    """One ``negrec choose`` after the other, in an empty folder."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys = capsys
        self.calls: list[tuple[str, int, bool]] = []
        self.interrupt_at = -1
        self.out = self.err = ""
        run = experiment.run

        def watched(cfg, folder, *words, test=True, world=None):
            if len(self.calls) == self.interrupt_at:
                raise InterruptedRunError(15)
            self.calls.append((folder.name, cfg.trainer.max_epochs, test))
            return run(cfg, folder, *words, test=test)

        monkeypatch.setattr(experiment, "run", watched)

    def __call__(self, *words: str) -> int:
        self.calls.clear()
        code = choose.main([*SMALL, *words])
        self.out, self.err = self.capsys.readouterr()
        return code

    @property
    def folder(self) -> Path:
        (folder,) = Path("multirun").iterdir()
        return folder


@pytest.fixture
def negrec_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Choose]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEGREC_CONF_DIR", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    return Choose(capsys, monkeypatch)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figures take longer than all trainings here."""
    monkeypatch.setattr(choose, "write_report", lambda plan: None)


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_bytes())


def test_from_a_command_to_a_setting_that_trains(
    negrec_choose: Choose, capsys, untouched_logging: None
):
    assert negrec_choose(*TWO) == 0
    folder, out = negrec_choose.folder, negrec_choose.out
    assert out.startswith("split=global_temporal, since there are timestamps\n")
    # Two candidates are one round: a probe, then all epochs with both seeds; then the only tests.
    assert [call for call in negrec_choose.calls if not call[2]] == [
        *(("in_batch-s0", 1, False), ("adaptive-s0", 1, False)),
        *(("in_batch-s0", 2, False), ("adaptive-s0", 2, False)),
        *(("in_batch-s1", 2, False), ("adaptive-s1", 2, False)),
    ]
    tests = [name for name, _, test in negrec_choose.calls if test]
    assert sorted(tests) == ["adaptive-s0", "adaptive-s1", "in_batch-s0", "in_batch-s1"]
    values = {
        cell: [results(folder / f"{cell}-s{s}")["metrics"]["best/value"] for s in (0, 1)]
        for cell in ("in_batch", "adaptive")
    }
    best = max(values, key=lambda cell: sum(values[cell]))
    assert f"Use {best}: valid/ndcg_10 {sum(values[best]) / 2:.4f} ± " in out
    assert " (2 seeds, 2 epochs), " in out
    # The command that is printed trains that run again, bit for bit.
    command = shlex.split(re.search(r"^train it: negrec (.*)$", out, re.MULTILINE)[1])
    assert command[0] == "train"
    assert cli.main([*command, f"hydra.run.dir={folder.parent}/again"]) == 0
    again, run = folder.parent / "again", folder / f"{best}-s0"
    assert results(again)["metrics"]["best/value"] == values[best][0]
    configs = [json.loads((f / "run.json").read_bytes())["config"] for f in (again, run)]
    assert configs[0] == configs[1]
    assert (folder / "report" / "report.html").exists()
    assert json.loads((folder / "choose.json").read_bytes())["chosen"] == best


def test_interrupted_twice_and_typed_again(negrec_choose: Choose, tmp_path: Path, no_report: None):
    words = (*TWO[:-2], "seeds=1", "budget=2h")
    assert negrec_choose(*words, f"paths.runs_dir={tmp_path}/whole") == 0
    whole, seen = list(negrec_choose.calls), []
    assert len(whole) == 2 + 2 + 2  # probe, round, tests
    for stop in (3, 2):  # before the second candidate's second epoch; before its test
        negrec_choose.interrupt_at = stop
        assert negrec_choose(*words) == 128 + 15
        seen += negrec_choose.calls
        assert "interrupted, and saved; `negrec choose dataset.users=60" in negrec_choose.err
    negrec_choose.interrupt_at = -1
    assert negrec_choose(*words) == 0
    assert "going on after " in negrec_choose.out
    assert seen + negrec_choose.calls == whole
    folder = negrec_choose.folder
    for run in folder.glob("*-s*"):
        (same,) = (tmp_path / "whole").glob(f"*/{run.name}")
        for metric in ("best/value", "test/ndcg_10", "test/hr_10"):
            assert results(run)["metrics"][metric] == results(same)["metrics"][metric]
    # A finished choice stays, whatever the budget; the command alone is the newer one.
    sentence = re.search(r"^Use .*", negrec_choose.out, re.MULTILINE)[0]
    saved = json.loads((folder / "choose.json").read_bytes())
    assert negrec_choose(*words[:-1], "budget=4h") == 0
    assert negrec_choose.calls == []
    assert sentence in negrec_choose.out
    assert "finished within a budget of 2 h" in negrec_choose.out
    again = json.loads((folder / "choose.json").read_bytes())
    assert {**saved, "command": ""} == {**again, "command": ""}


def test_a_refused_candidate_is_dropped_with_its_reason(negrec_choose: Choose, no_report: None):
    words = ("sampler=in_batch,adaptive,popularity", "k=5", "pool=20", "seeds=1", "budget=2h")
    assert negrec_choose(*words, "loss=sampled_softmax", "loss.log_q=refined") == 0
    (line,) = [x for x in negrec_choose.out.splitlines() if "dropped adaptive-sampled" in x]
    assert "density" in line
    assert not (negrec_choose.folder / "adaptive-sampled_softmax-s0" / "run.json").exists()
    tested = {name for name, _, test in negrec_choose.calls if test}
    assert tested == {"in_batch-sampled_softmax-s0", "popularity-sampled_softmax-s0"}


def test_all_refused(negrec_choose: Choose):
    words = ("sampler=adaptive,genni", "loss=sampled_softmax", "loss.log_q=refined", "k=5")
    with pytest.raises(InputError, match="no candidate can be trained; adaptive-sampled_soft"):
        negrec_choose(*words)


def test_a_budget_too_small_says_which_works(negrec_choose: Choose, no_report: None):
    with pytest.raises(
        InputError, match=r"0\.0 s is too small for one epoch of each of 2"
    ) as refused:
        negrec_choose(*TWO[:-2], "seeds=1", "budget=0.001s")
    needed = re.search(r"give budget=(\d+)s or more", str(refused.value))[1]
    assert len(negrec_choose.calls) == 1
    assert negrec_choose(*TWO[:-2], "seeds=1", f"budget={int(needed) + 600}s") == 0
    assert ("in_batch-s0", 1, False) not in negrec_choose.calls  # it was kept


BAD = {
    ("budget=soon",): "budget: 'soon' is no span of time: write it as 90s, 30m, 8h, 2d or 1h30m",
    ("budget=1h", "budget=2h"): "budget is given twice: keep one of them",
    ("seeds=0",): "seeds must be a whole number of at least 1, got seeds=0",
    ("seeds=a",): "seeds must be a whole number of at least 1, got seeds=a",
    ("--multirun",): "choose has no --multirun (negrec choose --help); options of your own are",
    ("run=abc",): "choose has no run=: choose compares settings, and goes on when its own command",
    ("+experiment=strong",): "choose has no +experiment=: candidates set sampler and loss",
    ("sampler=genny",): "there is no sampler=genny, did you mean genni? (sampler can be adaptive",
    ("loss=bcee",): "there is no loss=bcee, did you mean bce or gbce? (loss can",
    ("dataset=beuaty",): "there is no dataset=beuaty, did you mean beauty?",
    ("sampler=genni",): "there is one candidate, genni: name more with sampler=A,B or loss=C,D",
    ("seed=1,2",): "seed=1,2: only sampler and loss take several",
    ("alfa=0.5", "sampler=genni"): "there is no key alfa: did you mean alpha?",
    ("nofile.csv",): "there is no file nofile.csv",
    (
        "trainer.schedule=linear",
        "sampler=genni,srns",
    ): "trainer.schedule=linear depends on the last epoch",
    (
        "model=popularity",
        "sampler=genni,srns",
    ): "no candidate can be trained; genni: this model has",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line(negrec_choose: Choose, words: tuple[str, ...]):
    line = BAD[words].replace("no +experiment=", "no experiment=")
    popularity = words[0] == "model=popularity"
    small = [word for word in SMALL if not (popularity and word.startswith("model"))]
    with pytest.raises(InputError) as refused:
        choose.main([*small, *words])
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)
    if not popularity:
        assert not Path("multirun").exists()


def test_a_folder_of_something_else_is_left_alone(negrec_choose: Choose, tmp_path: Path):
    (tmp_path / "multirun" / "mine").mkdir(parents=True)
    (tmp_path / "multirun" / "mine" / "thesis.txt").write_text("42")
    with pytest.raises(InputError, match=r"mine holds something else: choose another sweep\.name"):
        negrec_choose(*TWO, "sweep.name=mine")
    negrec_choose.interrupt_at = 0
    assert negrec_choose(*TWO, "sweep.name=other") == 128 + 15
    with pytest.raises(InputError, match=r"other holds another choice, `negrec choose .*seeds=2"):
        negrec_choose(*TWO, "sweep.name=other", "seed=7")


# ---- candidates


def candidates(*words: str) -> dict[str, Candidate]:
    asked = choose.understood(words)
    with configuration.opened():
        return composed(listed(read_candidates(), asked.samplers, asked.losses), asked.rest)


@pytest.fixture
def no_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEGREC_CONF_DIR", raising=False)


def test_the_shipped_candidates_go_together(no_folders: None):
    found = candidates("dataset.users=80", "dataset.items=400", "trainer.threads=1")
    assert set(found) >= {
        *("uniform", "strong", "popularity", "in_batch", "mixed", "adaptive", "adaptive_mixed"),
        "genni",
    }
    for candidate in found.values():
        experiment.build(candidate.cfg)
    with configuration.opened():
        strong = configuration.composed(["experiment=strong", "dataset.users=80"])
        ours = configuration.composed([*found["strong"].words, "dataset.items=1000"])
    assert identity.part_of_the_result(strong) == {
        **identity.part_of_the_result(ours),
        "trainer.threads": "auto",
    }


def test_what_is_typed_wins_where_it_is_known(no_folders: None):
    found = candidates("sampler=uniform,popularity,genni", "k=7", "gamma=0.5", "seed=3")
    assert {cell: made.cfg.k for cell, made in found.items()} == {
        **{"uniform": 7, "strong": 7, "popularity": 7, "genni": 7}
    }
    assert found["popularity"].cfg.gamma == 0.5
    assert "gamma=0.5" not in found["uniform"].words
    # Once each: a run that goes on refuses a key that is set twice.
    assert [w for w in found["strong"].words if w.startswith("k=")] == ["k=7"]


def test_losses_replace_a_candidates_own_with_its_settings(no_folders: None):
    found = candidates("sampler=in_batch,genni", "loss=bce,sampled_softmax")
    assert {cell: made.choices["loss"] for cell, made in found.items()} == {
        "in_batch-bce": "bce",
        "in_batch-sampled_softmax": "sampled_softmax",
        "genni-bce": "bce",
        "genni-sampled_softmax": "sampled_softmax",
    }
    assert found["in_batch-bce"].cfg.loss.log_q == "none"
    assert found["in_batch-sampled_softmax"].cfg.loss.log_q == "refined"
    assert found["genni-sampled_softmax"].cfg.loss.log_q == "none"


def test_a_sampler_without_a_candidate_becomes_one(no_folders: None):
    assert candidates("sampler=srns,uniform")["srns"].words == (
        "sampler=srns",
        "loss=sampled_softmax",
    )


def test_users_add_replace_and_leave_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = tmp_path / "conf"
    own.mkdir()
    (own / "choose.yaml").write_text("mine: [sampler=uniform, k=3]\ngenni: null\nuniform: [k=9]\n")
    monkeypatch.setenv("NEGREC_CONF_DIR", str(own))
    found = read_candidates()
    assert found["mine"] == ["sampler=uniform", "k=3"]
    assert found["uniform"] == ["k=9"]
    assert "genni" not in found
    assert "strong" in found


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- sampler=uniform\n", "choose.yaml must hold a list of overrides for each name"),
        ("mine: sampler=uniform\n", "mine must be a list such as [sampler=uniform, k=5]"),
        ("../mine: [k=3]\n", "'../mine' must consist of letters, digits, _, - and ."),
    ],
)
def test_a_users_file_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: str
):
    (tmp_path / "choose.yaml").write_text(text)
    monkeypatch.setenv("NEGREC_CONF_DIR", str(tmp_path))
    with pytest.raises(InputError, match=re.escape(line)):
        read_candidates()


# ---- the split


@pytest.mark.parametrize(
    ("columns", "split"), [(("user", "item", "time"), "global_temporal"), (("user", "item"), None)]
)
def test_an_own_table_is_split_by_its_times(
    negrec_choose: Choose, tmp_path: Path, columns: tuple[str, ...], split: str | None
):
    n = 400
    table = {"user": [i % 20 for i in range(n)], "item": [i * i % 37 for i in range(n)]}
    pl.DataFrame({**table, "time": range(n)}).select(columns).write_parquet("clicks.parquet")
    rest = [word for word in SMALL if not word.startswith("dataset")]
    found = choose.planned(choose.understood([*rest, *TWO, "clicks.parquet"]))
    expected = split or "leave_one_out"
    assert {made.choices["split"] for made in found.candidates.values()} == {expected}
    typed = choose.understood([*rest, *TWO, "clicks.parquet", "split=leave_one_out"])
    assert choose.planned(typed).cfg.split._target_.endswith("LeaveOneOut")


def test_other_data_is_another_choice(negrec_choose: Choose):
    folders = {
        choose.planned(choose.understood([*SMALL, *TWO, *more])).folder
        for more in ((), ("dataset.seed=1",), ("seed=1",))
    }
    assert len(folders) == 3
    same = choose.planned(choose.understood([*SMALL, *TWO[:-1], "budget=9h"])).folder
    assert same in folders


# ---- what is written


def plan_and_choice(*words: str) -> tuple[choose.Plan, Choice]:
    plan = choose.planned(choose.understood([*SMALL, *words]))
    last = Judgement(Round(1, 2, (0,), ()), {}, 0.0, (), {})
    return plan, Choice(next(iter(plan.candidates)), (), (), last)


def test_chosen_yaml_holds_the_setting_and_the_command_the_rest(negrec_choose: Choose):
    plan, choice = plan_and_choice(
        *("sampler=in_batch,adaptive", "k=5", "sampler/false_negatives=track", "seed=4"),
        *("trainer.optimizer.lr=1e-4", "+trainer.optimizer.eps=1e-9", "sweep.name='a b'"),
    )
    assert choose.chosen_yaml(plan, choice).splitlines()[2:] == [
        "defaults:",
        "- override /sampler: in_batch",
        "- override /loss: sampled_softmax",
        "- override /sampler/false_negatives: track",
        "- override /split: global_temporal",
        "",
        "loss:",
        "  log_q: refined",
        "trainer:",
        "  batch_size: 16",
        "  max_epochs: 2",
        "  optimizer:",
        "    lr: 0.0001",
        "    eps: 1.0e-09",
        "model:",
        "  dim: 8",
        "k: 5",
    ]
    assert choose.command(plan, choice) == (
        "negrec train tracking=none diagnostics=none dataset.users=60 dataset.items=80 "
        "trainer.threads=1 seed=4 "
        "+experiment=chosen --config-dir 'multirun/a b'"
    )
