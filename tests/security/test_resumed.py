"""A folder that somebody sent: it says what was typed, and chooses no code, whoever opens it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import polars as pl
import pytest

from negrec import cli
from negrec.errors import InputError
from negrec.sweeping.tuning import Tuned
from negrec.tracking.mlflow import _artifact_location
from negrec.tracking.runs import find_run
from tests import logs

SMALL = [
    *("tracking=none", "dataset.users=60", "dataset.items=30", "trainer.max_epochs=1"),
    *("trainer.batch_size=32", "trainer.threads=1", "trainer.progress=false", "model.dim=8"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of the working directory with one finished run in it."""
    folder = tmp_path_factory.mktemp("sent")
    with pytest.MonkeyPatch.context() as patch, logs.untouched():
        patch.chdir(folder)
        patch.setenv("NEGREC_CACHE_DIR", str(folder / "cache"))
        assert cli.main(["train", *SMALL]) == 0
    return folder


@pytest.fixture
def sent(trained, tmp_path, monkeypatch, untouched_logging):
    """A copy of that run, in the working directory; its folder."""
    shutil.copytree(trained, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("NEGREC_CACHE_DIR", str(tmp_path / "here" / "cache"))
    monkeypatch.setenv("CANARY", str(tmp_path / "ran"))
    return next(Path("multirun").rglob("run.json")).parent


def altered(folder: Path, **changes: object) -> dict[str, object]:
    record = json.loads((folder / "run.json").read_text())
    record.update(changes)
    (folder / "run.json").write_text(json.dumps(record))
    return record


TOUCH = "{_target_: subprocess.check_call, args: [touch, ${oc.env:CANARY}]}"
HOSTILE = [
    f"+evil={TOUCH}",
    "+evil._target_=os.system",
    "++model._target_=os.system",
    "+evil={a: {_target_: os.system}}",
    # The same without the word.
    """+evil='${oc.decode:"{_targ${x}: os.system}"}'""",
    "+evil='${oc.create:${oc.decode:${oc.env:CANARY}}}'",
    "+evil=${oc.env:PATH}",
    "+evil='${${x}:y}'",
    # Configuration that lies in the folder itself.
    "hydra.searchpath=[file://multirun]",
    "+hydra.searchpath=[file://multirun]",
    "hydra/launcher=joblib",
    "+hydra/launcher=joblib",
    "hydra.run.dir=/tmp/elsewhere",
    "model=../multirun/evil",
    "model=/tmp/evil",
    "loss='../multirun/evil'",
    "+experiment=../../evil",
]


@pytest.mark.parametrize("override", HOSTILE)
def test_saved_overrides_choose_no_code(sent, tmp_path, capsys, override):
    record = altered(sent, status="KILLED")
    run = record["run_id"]
    altered(sent, overrides=[*record["overrides"], override])
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["train", f"run={run}"]) == 2
    assert "may not choose code" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert sorted(tmp_path.rglob("*")) == before


def test_keys_of_other_folders(sent, capsys):
    # A folder of options that lies in the run: ../ in a key in place of a value.
    record = altered(sent)
    (sent / "model").mkdir()
    (sent / "model" / "evil.yaml").write_text("_target_: os.system\n")
    for key in (f"../{sent}/model", f"{sent.absolute()}/model", "..model"):
        altered(sent, overrides=[*record["overrides"], f"+{key}=evil"])
        assert cli.main(["train", f"run={record['run_id']}"]) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_nothing_else_in_the_folder_is_configuration(sent, capsys):
    # What Hydra or negrec wrote of the configuration is for people.
    evil = "model:\n  _target_: subprocess.check_call\n  args: [touch, ran]\n"
    (sent / "config.yaml").write_text(evil)
    (sent / ".hydra").mkdir(exist_ok=True)
    (sent / ".hydra" / "config.yaml").write_text(evil)
    (sent / ".hydra" / "overrides.yaml").write_text("- +evil._target_=os.system\n")
    record = altered(sent, choices={"model": "../../evil"})
    words = ["trainer.max_epochs=2"]
    assert cli.main(["train", f"run={record['run_id']}", *words]) == 0
    assert not Path("ran").exists()
    assert "evil" not in (sent / "config.yaml").read_text()


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["CANARY"],)


def test_a_pickle_in_place_of_a_checkpoint(sent, tmp_path, capsys):
    run = altered(sent)["run_id"]
    content = pickle.dumps(Bomb())
    for name in ("best", "last", "previous", "fresh"):
        (sent / "checkpoint" / f"{name}.safetensors").write_bytes(content)
    assert cli.main(["inspect", f"run={run}", "user=1"]) == 2
    altered(sent, status="KILLED")
    assert cli.main(["train", f"run={run}"]) == 2
    assert cli.main(["train", *SMALL, f"init_from={sent}"]) == 2
    assert not (tmp_path / "ran").exists()
    assert "Traceback" not in capsys.readouterr().err
    pickle.loads(content)  # the bomb is a real one
    assert (tmp_path / "ran").exists()


def test_names_do_not_steer_the_terminal(tmp_path, monkeypatch, capsys, untouched_logging):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEGREC_CACHE_DIR", str(tmp_path / "cache"))
    names = ["\x1b[2Jwiped", "\x1b]0;title\x07", "[red]not red[/red]", "[/]", "a$b$c", "‮gnp.exe"]
    rows = [(user, names[(user + at) % 6], at) for user in range(12) for at in range(5)]
    users = pl.Series([f"\x1b[31m{user}" for user, _, _ in rows])
    table = pl.DataFrame(
        {"user": users, "item": [item for _, item, _ in rows], "timestamp": [t for *_, t in rows]}
    )
    table.write_parquet("clicks.parquet")
    words = [word for word in SMALL if not word.startswith("dataset.")]
    assert cli.main(["train", "clicks.parquet", "split=leave_one_out", *words]) == 0
    run = json.loads(next(Path("multirun").rglob("run.json")).read_text())["run_id"]
    assert cli.main(["inspect", f"run={run}", "user=\x1b[31m3"]) == 0
    assert cli.main(["inspect", f"run={run}", "user=nobody"]) == 2
    assert cli.main(["recommend", f"run={run}"]) == 0
    out, err = capsys.readouterr()
    for text in (out, err):
        assert not set(text) & {"\x1b", "\x07", "‮"}
    assert "\\x1b[2Jwiped" in out
    assert "[red]not red[/red]" in out  # no markup


def test_an_id_of_a_folder_does_not_either(tmp_path):
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "run.json").write_text(json.dumps({"run_id": "\x1b[2Ja1234567\r\n"}))
    with pytest.raises(InputError) as error:
        find_run("a1234567", tmp_path)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("dataset", "sampler", "values"),
    [
        ("../experiment", "strong", {"k": 1}),
        ("beauty", "../../x", {"k": 1}),
        ("/tmp", "x", {"k": 1}),
        ("beauty", "uniform", {"k": [{"_target_": "os.system"}]}),
        ("beauty", "uniform", {"k": {"_target_": "os.system"}}),
        ("beauty", "uniform", {"k": "${oc.env:HOME}"}),
    ],
)
def test_tuned_files_hold_plain_values_in_their_folder(tmp_path, dataset, sampler, values):
    found = Tuned(dataset, sampler, values, "ndcg_10", 0.1, 3, 3)
    with pytest.raises(InputError, match="nothing is written"):
        found.write(tmp_path / "conf", "sweep")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("experiment", ["..", ".", "../../x", "/etc", "a/../../b"])
def test_an_experiment_keeps_its_artifacts_below_the_root(tmp_path, experiment):
    location = _artifact_location("sqlite:///x.db", str(tmp_path / "mlruns"), experiment)
    assert location is not None
    place = Path(location.removeprefix("file://")).resolve()
    assert place.parent == tmp_path / "mlruns"
