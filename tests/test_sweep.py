"""``negrec train -m`` with real, small runs."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from negrec import cli
from negrec.sweeping import jobs
from tests.tracking.stores import Store, free_port

SMALL = [
    "dataset.users=200",
    "dataset.items=100",
    "trainer.max_epochs=1",
    "trainer.threads=1",
    "trainer.batch_size=64",
    "model.blocks=1",
    "model.dim=8",
    "diagnostics=none",
]


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys, untouched_logging):
    """Types a sweep in an empty folder; the code, and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["negrec"])
    monkeypatch.delenv("NEGREC_CONF_DIR", raising=False)

    def typed(*words: str) -> tuple[int, str]:
        code = cli.main(["train", "-m", *_small(words), "tracking=none", *words])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return typed


def folders(root: Path = Path("multirun")) -> list[Path]:
    """Of all jobs."""
    return sorted(path.parent for path in root.glob("*/*/.hydra"))


def written(folder: Path) -> int:
    return (folder / "results.json").stat().st_mtime_ns


def _small(words: Sequence[str]) -> list[str]:
    """The settings of small runs, without those that are given, or are of other data."""
    own = {word.partition("=")[0] for word in words}
    other = any(word.endswith(".csv") for word in words)
    small = [word for word in SMALL if word.partition("=")[0] not in own]
    return [word for word in small if not (other and word.startswith("dataset."))]


def process(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A sweep in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "negrec", "train", "-m", *_small(words), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


# ---- what runs


def test_a_sweep_says_what_will_run_before_it_does(sweep):
    code, said = sweep("sampler=uniform,genni", "seed=range(3)", "sweep.dry_run=true")
    assert code == 0
    assert "6 jobs to run, one after the other: about" in said
    assert "sampler=genni" in said
    assert not Path("multirun").exists()


def test_jobs_have_folders_that_say_what_they_are(sweep):
    code, said = sweep("sampler=uniform,genni", "seed=0,1", "sweep.probe=0")
    assert code == 0
    names = [re.sub(r"_[0-9a-f]{8}$", "", folder.name) for folder in folders()]
    assert names == [f"synthetic-sasrec-{s}-bce-s{n}" for s in ("genni", "uniform") for n in (0, 1)]
    (root,) = Path("multirun").iterdir()
    assert root.name.startswith("synthetic_sampler-seed_")
    assert f"negrec report sweep={root.name}" in said
    record = json.loads((folders()[0] / "run.json").read_text())
    assert record["sweep"] == root.name
    assert not any("sweep." in word for word in record["overrides"])


def test_jobs_that_differ_in_any_key_have_folders_of_their_own(sweep):
    code, _ = sweep("sampler=genni", "alpha=1,2", "sweep.probe=0")
    assert code == 0
    assert len(folders()) == 2


def test_the_same_command_does_nothing_twice(sweep):
    words = ["sampler=uniform,popularity", "seed=0,1", "sweep.probe=0"]
    sweep(*words)
    before = {folder: written(folder) for folder in folders()}
    code, said = sweep(*words)
    assert code == 0
    assert "all jobs are done" in said
    assert {folder: written(folder) for folder in folders()} == before


def test_a_sweep_is_reported_and_rescored(sweep, capsys):
    sweep("sampler=uniform,popularity", "seed=0,1", "sweep.name=mine", "sweep.probe=0")
    assert Path("multirun/mine/events.jsonl").exists()  # of the sweep, which is no run
    assert cli.main(["report", "sweep=mine", "format=md"]) == 0
    page = Path("multirun/mine/report/report.md").read_text()
    assert "uniform" in page
    assert "popularity" in page
    assert cli.main(["rescore", "sweep=mine", "cutoffs=3"]) == 0
    assert "uniform" in Path("multirun/mine/rescore.csv").read_text()


def test_a_named_sweep_grows(sweep):
    sweep("seed=0,1", "sweep.name=mine", "sweep.probe=0")
    before = {folder: written(folder) for folder in folders()}
    code, said = sweep("seed=range(3)", "k=1", "sweep.name=mine", "sweep.probe=0")
    assert code == 0
    assert "1 jobs to run, without a forecast" in said
    assert len(folders()) == 3
    assert {folder: written(folder) for folder in before} == before


def test_a_parallel_sweep_is_the_same_sweep(sweep):
    sweep("seed=0,1", "sweep.name=one", "sweep.probe=0")
    code, _ = sweep("seed=0,1", "sweep.name=two", "sweep.probe=0", "hydra/launcher=joblib")
    assert code == 0
    values = [
        [json.loads((f / "results.json").read_text())["metrics"]["best/value"] for f in found]
        for found in (folders(Path("multirun"))[:2], folders(Path("multirun"))[2:])
    ]
    assert values[0] == values[1]


@pytest.mark.slow
def test_ray_alone_and_an_existing_cluster(tmp_path):
    pytest.importorskip("ray", reason="negrec[ray] is missing")
    program = str(Path(sys.executable).with_name("ray"))
    quiet = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    words = ["seed=0,1", "sweep.probe=0", "tracking=none", "hydra/launcher=ray"]
    alone = process(tmp_path, *words, "sweep.name=alone", RAY_AUTH_MODE="disabled")
    assert alone.returncode == 0, alone.stderr
    port = free_port()
    start = [program, "start", "--head", f"--port={port}", "--num-cpus=2"]
    start += ["--include-dashboard=false", "--disable-usage-stats"]
    # Elsewhere: its workers do not know the folder that the sweep is typed in.
    subprocess.run(start, env=quiet, check=True, capture_output=True, cwd=tmp_path.parent)
    try:
        address = f"hydra.launcher.ray.init.address=127.0.0.1:{port}"
        there = process(tmp_path, *words, address, "sweep.name=there", RAY_AUTH_MODE="disabled")
    finally:
        subprocess.run([program, "stop"], env=quiet, check=True, capture_output=True)
    assert there.returncode == 0, there.stderr
    assert "2 finished" in alone.stdout
    assert "2 finished" in there.stdout


def test_submitit_as_on_slurm(tmp_path):
    pytest.importorskip("submitit", reason="negrec[slurm] is missing")
    words = ["seed=0,1", "sweep.probe=0", "tracking=none", "hydra/launcher=submitit_local"]
    done = process(tmp_path, *words, "trainer.threads=auto")
    assert done.returncode == 0, done.stderr
    assert "2 finished" in done.stdout
    for folder in folders(tmp_path / "multirun"):
        assert "CPU threads 1" in (folder / "train.log").read_text()


# ---- what fails


def test_a_job_that_fails_takes_no_other_with_it(sweep):
    words = ["loss=bce,softmax", "sampler=uniform", "sweep.probe=0"]
    code, said = sweep(*words)
    assert code == 1
    assert "1 finished, 1 failed" in said
    assert "failed: objective: loss Softmax does not go with sampler Uniform" in said
    repeat = re.search(r"^ +(negrec train .*loss=softmax.*)$", said, re.MULTILINE)
    assert "sampler=uniform" in repeat[1]
    assert "sweep." not in repeat[1]
    assert "Traceback" not in said


def test_a_worker_without_the_folder_that_was_typed_in_says_so(sweep, monkeypatch):
    # As on another machine of a cluster, which does not share the file system.
    def chdir(path: str) -> None:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(os, "chdir", chdir)
    code, said = sweep("seed=0,1", "sweep.probe=0")
    assert code == 1
    assert "0 finished, 2 failed" in said
    assert "No such file or directory" in said
    assert "Traceback" not in said


def test_what_failed_is_tried_again_unless_told_otherwise(sweep):
    words = ["trainer.optimizer.lr=1e-3,1e38", "sweep.probe=0", "sweep.name=mine"]
    for retry, tried in (("failed", True), ("none", False), ("failed", True)):
        before = {f: (f / "failure.json").stat().st_mtime_ns for f in folders() if _failed(f)}
        code, said = sweep(*words, f"sweep.retry={retry}")
        assert code == 1
        assert "1 finished, 1 failed" in said
        (bad,) = [f for f in folders() if _failed(f)]
        if before:
            assert ((bad / "failure.json").stat().st_mtime_ns != before[bad]) == tried
    assert len(list(Path("multirun/mine/superseded").iterdir())) == 1


def _failed(folder: Path) -> bool:
    return jobs.look(folder).status == "FAILED"


def test_a_worker_that_is_killed_costs_its_own_job_only(sweep, tmp_path, monkeypatch):
    # A sampler that kills its process, as the kernel does when memory is out.
    (tmp_path / "mine/sampler").mkdir(parents=True)
    (tmp_path / "mine/sampler/deadly.yaml").write_text(
        "_target_: deadly.Deadly\n_partial_: true\nk: 1\nshare: query\nexclude: target\n"
    )
    (tmp_path / "deadly.py").write_text(
        "import os, signal\n"
        "from negrec.samplers.uniform import Uniform\n"
        "class Deadly(Uniform):\n"
        "    def draw(self, rows, generator):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    words = ["sampler=uniform,deadly", "seed=0,1", "sweep.probe=0", "tracking=none"]
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    done = process(
        tmp_path,
        *words,
        "hydra/launcher=joblib",
        PYTHONPATH=paths,
        NEGREC_CONF_DIR=str(tmp_path / "mine"),
    )
    assert done.returncode == 1, done.stderr
    assert "2 finished, 2 failed" in done.stdout
    assert "its process died" in done.stdout


def test_what_is_finished_survives_that_its_data_is_out_of_reach(sweep, tmp_path):
    (tmp_path / "clicks.csv").write_text(
        "user,item\n" + "".join(f"u{n % 7},i{n % 5}\n" for n in range(70))
    )
    words = ["clicks.csv", "seed=0,1", "sweep.probe=0", f"paths.cache_dir={tmp_path / 'cache'}"]
    assert sweep(*words)[0] == 0
    before = {folder: written(folder) for folder in folders()}
    (tmp_path / "clicks.csv").rename(tmp_path / "away.csv")
    sweep(*words)
    (tmp_path / "away.csv").rename(tmp_path / "clicks.csv")
    assert sweep(*words)[0] == 0
    assert {folder: written(folder) for folder in folders()} == before


def test_two_people_who_type_the_same_share_the_work(tmp_path):
    words = ["seed=range(4)", "sweep.probe=0", "tracking=none", "sweep.name=mine"]
    command = [sys.executable, "-m", "negrec", "train", "-m", *_small(words), *words]
    both = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process_ in both:
        said, _ = process_.communicate()
        assert process_.returncode == 0
        assert "4 finished" in said
    assert len(folders(tmp_path / "multirun")) == 4
    assert not list(tmp_path.glob("multirun/mine/*/failure.json"))


def test_the_first_training_of_the_process_is_in_no_forecast(sweep, monkeypatch):
    from negrec.commandline import forecasting
    from negrec.sweeping.forecast import Forecast

    probed = []

    def probe(cfg, steps, threads):
        model = cfg.model._target_.rpartition(".")[2]
        probed.append((model, steps))
        return Forecast(0.0, 1.0, 1, disk=0.0 if model == "Popularity" else 1.0)

    monkeypatch.setattr(forecasting, "probe", probe)
    cli.main(["train", "-m", "model=popularity,mf,gru4rec", "tracking=none", "sweep.dry_run=true"])
    # The ranker trains nothing: what training does once would be booked on MF.
    assert probed == [
        *(("Popularity", 1), ("Popularity", 30)),
        *(("MF", 1), ("MF", 30)),
        ("GRU4Rec", 30),
    ]


# ---- budgets


def test_a_budget_cuts_seeds_and_stands_when_the_command_is_typed_again(sweep, monkeypatch):
    from negrec.commandline import forecasting
    from negrec.sweeping.forecast import Forecast

    # One epoch takes 10 s: of 5 seeds 3 fit into 35 s.
    made = Forecast(start=0.0, epoch=10.0, epochs=1, disk=0.0)
    monkeypatch.setattr(forecasting, "probe", lambda cfg, steps, threads: made)
    words = ["seed=range(5)", "sweep.budget=35s"]
    for _ in range(2):
        code, said = sweep(*words)
        assert code == 0
        assert "for sweep.budget=35s: 3 seeds of each cell" in said
        assert len(folders()) == 3
        # A second forecast that says otherwise does not change what was decided.
        monkeypatch.setattr(
            forecasting, "probe", lambda cfg, steps, threads: Forecast(0.0, 1.0, 1, 0.0)
        )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sweep.budget=soon"], "no span of time"),
        (["sweep.budget=0.01s"], "is too small: one epoch of 1 cells"),
        (["sweep.name=a/b"], "make a folder's name"),
        (["sweep.budget=1h", "sweep.probe=0"], "sweep.budget wants a forecast"),
        (["hydra/launcher=ray"], "pip install 'negrec[ray]'"),
        (["sweep.retry=some"], "sweep.retry must be failed, all or none, got some"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(sweep, monkeypatch, words, says):
    from negrec.commandline import plan

    monkeypatch.setattr(plan, "find_spec", lambda name: None)
    code, said = sweep("seed=0,1", *words)
    assert code == 2
    assert says in said
    assert not Path("multirun").exists()


def test_a_folder_of_something_else_is_refused(sweep):
    Path("multirun/mine").mkdir(parents=True)
    Path("multirun/mine/thesis.tex").write_text("")
    code, said = sweep("seed=0,1", "sweep.name=mine")
    assert code == 2
    assert "no sweep's: choose another sweep.name" in said


# ---- tuning


def test_a_tuning_sweep_writes_values_that_later_runs_take(sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("NEGREC_CONF_DIR", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    rates = "trainer.optimizer.lr=1e-5,1e-2"
    words = ["sampler=genni", "alpha=0.5,2", rates, "seed=0,1", "sweep.probe=0", "sweep.tune=true"]
    code, said = sweep(*words)
    assert code == 0
    assert "synthetic genni: the best of 4 settings is alpha=" in said
    means: dict[tuple[float, float], float] = {}
    for folder in folders():
        config = json.loads((folder / "run.json").read_text())["config"]
        setting = (config["alpha"], config["trainer.optimizer.lr"])
        value = json.loads((folder / "results.json").read_text())["metrics"]["best/value"]
        means[setting] = means.get(setting, 0) + value / 2
    alpha, rate = max(means, key=means.__getitem__)
    code, _ = sweep("sampler=genni", "sweep.name=after", "sweep.probe=0")
    assert code == 0
    (after,) = [f for f in folders() if f.parent.name == "after"]
    record = json.loads((after / "run.json").read_text())
    assert (record["config"]["alpha"], record["config"]["trainer.optimizer.lr"]) == (alpha, rate)
    assert record["trials"] == 4


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["loss=bce,bpr"], "loss is a part"),
        (["seed=0,1"], "has nothing to tune"),
        (["k=1,2", "trainer.metric=hr_1,hr_10"], "trainer.metric changes what is measured"),
    ],
)
def test_what_cannot_be_tuned(sweep, words, says):
    code, said = sweep(*words, "sweep.tune=true")
    assert code == 2
    assert says in said


def test_optuna_searches_and_goes_on_when_typed_again(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="negrec[optuna] is missing")
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "sampler=genni"]
    words += ["alpha=interval(0.5,4)", "sweep.probe=0", "tracking=none"]
    assert process(tmp_path, *words).returncode == 0
    before = {folder: written(folder) for folder in folders(tmp_path / "multirun")}
    assert len(before) == 4
    done = process(tmp_path, *words)
    assert done.returncode == 0
    assert "4 finished" in done.stdout
    assert {folder: written(folder) for folder in folders(tmp_path / "multirun")} == before


# ---- what ends it


def test_an_interrupted_sweep_says_how_to_go_on(sweep, monkeypatch):
    from negrec import experiment
    from negrec.training.interruption import InterruptedRunError

    def run(cfg, *arguments):
        if cfg.seed == 1:
            raise InterruptedRunError(15)
        return whole(cfg, *arguments)

    whole = experiment.run
    monkeypatch.setattr(experiment, "run", run)
    code, said = sweep("seed=0,1,2", "sweep.probe=0")
    assert code == 143
    assert "1 finished, 2 not done" in said
    assert "the same command goes on where it stopped" in said


@pytest.mark.slow
def test_a_sweep_that_is_killed_twice_ends_with_every_job_done_once(tmp_path, migrated):
    """SIGKILL at random moments: 12 finished children of one parent, none twice."""
    store = Store(Path(shutil.copy(migrated, tmp_path / "mlflow.db")))
    words = ["sampler=uniform,popularity", "seed=range(6)", "sweep.probe=0", "sweep.name=mine"]
    words += [f"tracking.uri={store.uri}", "trainer.max_epochs=3", "hydra/launcher=joblib"]
    command = [sys.executable, "-m", "negrec", "train", "-m", *_small(words), *words]
    seeded = random.Random(4)
    done = [0]
    for _ in range(2):
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True
        )
        # The next job at the earliest, so that both kills find a sweep at work.
        while len(list(tmp_path.glob("multirun/mine/*/results.json"))) <= done[-1]:
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(seeded.uniform(0, 2))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done.append(len(list(tmp_path.glob("multirun/mine/*/results.json"))))
    assert done[1] < 12
    last = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stdout + last.stderr
    assert "12 finished" in last.stdout

    statuses = dict(store.rows("select run_uuid, status from runs"))
    parents = dict(store.rows("select run_uuid, value from tags where key = 'mlflow.parentRunId'"))
    (parent,) = {*statuses} - {*parents}
    assert set(parents.values()) == {parent}
    assert [*statuses.values()] == ["FINISHED"] * 13
    keys = store.rows("select distinct value from tags where key = 'negrec.key'")
    assert len(parents) == len(keys) == 12
    assert store.metrics("sweep/finished") == [(0, 12.0)]
