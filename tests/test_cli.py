"""The command line, with a stand-in for the run itself; tests/test_packaging.py trains for real."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

import negrec
from negrec import cli, identity
from negrec.commandline import configuration, train
from negrec.commandline.typed import Typed, parsed, quoted
from negrec.errors import InputError
from negrec.world import World


@dataclass
class Job:
    """What one call of ``experiment.run`` was given."""

    cfg: dict
    folder: Path
    overrides: list[str]
    choices: dict[str, str]


@dataclass
class Commands:
    """Types commands and keeps what they came to."""

    capsys: pytest.CaptureFixture[str]
    jobs: list[Job] = field(default_factory=list)
    raises: dict[int, Exception] = field(default_factory=dict)  # by seed
    code: int = 0
    out: str = ""
    err: str = ""

    def __call__(self, *arguments: str) -> int:
        self.jobs.clear()
        self.code = cli.main(arguments)
        self.out, self.err = self.capsys.readouterr()
        return self.code

    def refusal(self, *arguments: str) -> str:
        """The one line that a refused command says."""
        assert self(*arguments) == 2
        assert not self.jobs
        assert "Traceback" not in self.out + self.err
        (line,) = self.err.strip().splitlines()
        return line.removeprefix("negrec: ")

    def sweep(self, *arguments: str) -> int:
        """The command with ``-m``, without the forecast and the store that runs would want."""
        return self("train", "-m", *arguments, "sweep.probe=0", "tracking=none")

    def run(
        self,
        cfg: DictConfig,
        folder: Path,
        overrides: list[str],
        sweep: str | None,
        choices: dict[str, str],
        world: World | None = None,
    ) -> SimpleNamespace:
        assert world is None
        if cfg.seed in self.raises:
            raise self.raises[cfg.seed]
        instantiate(cfg.loss)
        resolved = OmegaConf.to_container(cfg, resolve=True)
        self.jobs.append(Job(resolved, folder, overrides, choices))
        found = {"run_id": f"id{len(self.jobs)}", "key": key(cfg, None), "status": "FINISHED"}
        write(folder / "run.json", json.dumps(found | {"config": {"trainer.metric": "hr_5"}}))
        results = {"metrics": {"best/value": float(cfg.seed), "cost/seconds": 1.0}}
        write(folder / "results.json", json.dumps(results))
        return SimpleNamespace(fit=SimpleNamespace(best_value=float(cfg.seed)))


def key(cfg: DictConfig, interactions: None) -> str:
    return identity.digest(identity.part_of_the_result(cfg))


@pytest.fixture
def negrec_(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    untouched_logging: None,
) -> Commands:
    """The command line in an empty folder, its runs recorded in place of done."""
    commands = Commands(capsys)
    experiment = ModuleType("negrec.experiment")
    experiment.run, experiment.key = commands.run, key
    experiment.read = lambda cfg: None
    experiment.alone_in = lambda folder, wait: nullcontext()
    monkeypatch.setattr(train, "show", lambda result, cfg: None)
    monkeypatch.setitem(sys.modules, "negrec.experiment", experiment)
    monkeypatch.setattr(negrec, "experiment", experiment, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["negrec"])
    for variable in ("HYDRA_FULL_ERROR", "NEGREC_CONF_DIR"):
        monkeypatch.delenv(variable, raising=False)
    return commands


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# ---- verbs


def test_help_lists_every_verb_and_imports_nothing_heavy():
    code = (
        "import sys; from negrec.cli import main; main(['--help']);"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=configuration.conf_dir().parent,
    )
    for verb in cli.VERBS:
        assert f"\n  {verb} " in done.stdout
    heavy = {"torch", "mlflow", "numpy", "polars", "hydra", "omegaconf", "rich"}
    assert not heavy & set(done.stderr.split())


def test_no_verb_imports_mlflow_or_matplotlib_before_it_needs_them():
    modules = sorted({verb.target.partition(":")[0] for verb in cli.VERBS.values()})
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(modules) <= set(done.stdout.split())
    assert not {"mlflow", "matplotlib"} & set(done.stdout.split())


def test_a_training_comes_to_its_first_step_without_what_it_needs_later(tmp_path: Path):
    # With MLflow as the tracker, which a process of its own imports.
    code = """
import sys
from negrec.cli import main
from negrec.training import trainer
step = trainer._Run.step
def first(self, *arguments):
    outcome = step(self, *arguments)
    print("at the first step:", *sys.modules, flush=True)
    trainer._Run.step = step
    return outcome
trainer._Run.step = first
words = ["dataset.users=60", "dataset.items=80", "trainer.max_epochs=1", "trainer.threads=1"]
sys.exit(main(["train", *words]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("at the first step:")]
    modules = set(line.split())
    assert {"negrec.experiment", "negrec.tracking.mlflow", "torch", "polars"} <= modules
    late = {"mlflow", "matplotlib", "pandas", "requests", "scipy", "sqlalchemy", "torch._dynamo"}
    assert not late & modules


def test_version(negrec_: Commands):
    assert negrec_("--version") == 0
    assert negrec_.out == f"negrec {negrec.__version__}\n"


@pytest.mark.parametrize(
    ("word", "says"), [("trian", "train"), ("sampler=genni", "train"), ("xyz", "there are train")]
)
def test_an_unknown_verb_names_near_ones(negrec_: Commands, word: str, says: str):
    assert says in negrec_.refusal(word)


def test_every_verb_exists():
    for verb in cli.VERBS.values():
        module, function = verb.target.split(":")
        assert callable(getattr(__import__(module, fromlist=[function]), function))


# ---- Hydra behind the verb


def test_a_run_gets_its_configuration_folder_and_overrides(negrec_: Commands):
    assert negrec_("train", "sampler=genni", "alpha=0.5", "seed=3") == 0
    (job,) = negrec_.jobs
    assert job.cfg["sampler"]["alpha"] == 0.5
    assert job.overrides == ["sampler=genni", "alpha=0.5", "seed=3"]
    assert job.folder.parent.parent == Path.cwd() / "multirun"
    assert "_synthetic-sasrec-genni-bce-s3_" in job.folder.name
    assert not set(job.folder.name) & set('<>:"/\\|?*')
    assert (job.folder / "train.log").exists()


def test_two_runs_have_two_folders(negrec_: Commands):
    folders = set()
    for _ in range(2):
        negrec_("train")
        folders.add(negrec_.jobs[0].folder)
    assert len(folders) == 2


def test_flags_may_stand_anywhere(negrec_: Commands):
    words = ["sampler=uniform,popularity", "sweep.probe=0", "tracking=none"]
    assert negrec_("train", *words, "-m", "seed=range(2)") == 0
    assert [(j.cfg["seed"], j.cfg["k"]) for j in negrec_.jobs] == [(0, 1), (1, 1)] * 2


def test_glob_sweeps_over_every_sampler(negrec_: Commands):
    assert negrec_.sweep("sampler=glob(*)") == 0
    options = {file.stem for file in (configuration.conf_dir() / "sampler").glob("*.yaml")}
    assert {job.overrides[0] for job in negrec_.jobs} == {f"sampler={name}" for name in options}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--help"], "sampler: adaptive, adaptive_in_batch, "),
        (["--hydra-help"], "--multirun"),
        (["--cfg", "job", "-p", "sampler"], "_target_: negrec.samplers.uniform.Uniform"),
        (["--info", "searchpath"], "main"),
        (["--shell-completion", "install=bash"], "complete -o nospace"),
    ],
)
def test_hydras_own_flags(negrec_: Commands, arguments: list[str], says: str):
    assert negrec_("train", *arguments) == 0
    assert says in negrec_.out
    assert not negrec_.jobs


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("negrec t", "train"),
        ("negrec ", " ".join(cli.VERBS)),
        ("negrec train sampler=g", "sampler=genni"),
        ("negrec train trainer.max_e", "trainer.max_epochs="),
        ("negrec ui --po", ""),
    ],
)
def test_completion(negrec_: Commands, monkeypatch: pytest.MonkeyPatch, line: str, says: str):
    monkeypatch.setenv("COMP_LINE", line)
    assert negrec_("-sc", "query=bash") == 0
    assert negrec_.out.strip() == says


def test_the_metric_reaches_hydra(monkeypatch: pytest.MonkeyPatch, negrec_: Commands):
    # A sweeper reads what the task returns; `seed` stands for the metric here.
    from negrec.commandline import train

    returned = []
    task = train.task
    monkeypatch.setattr(train, "task", lambda cfg: returned.append(task(cfg)))
    assert negrec_("train", "seed=4") == 0
    assert returned == [4.0]


# ---- short names


@pytest.mark.parametrize("arguments", [["alpha=2.5"], ["sampler=popularity", "alpha=2.5"]])
def test_a_short_name_of_another_part(negrec_: Commands, arguments: list[str]):
    chosen = "popularity" if len(arguments) == 2 else "uniform"
    line = negrec_.refusal("train", *arguments)
    assert f"alpha is a setting of sampler=genni, and this is sampler={chosen}" in line


@pytest.mark.parametrize("loss", ["bce", "bpr"])  # with a constructor of its own, and without
def test_a_setting_that_a_loss_does_not_have(negrec_: Commands, loss: str):
    line = negrec_.refusal("train", f"loss={loss}", "+loss.colour=red")
    assert line.startswith("loss: ")
    assert "unexpected keyword argument 'colour'" in line


@pytest.mark.parametrize("word", ["+experiment=strng", "experiment=strng"])
def test_an_experiment_that_does_not_exist(negrec_: Commands, word: str):
    line = negrec_.refusal("train", word)
    assert line.startswith("there is no experiment=strng, did you mean strong?")


def test_a_run_is_told_what_was_chosen(negrec_: Commands):
    assert negrec_("train", "sampler=inverse_popularity", "loss=softmax") == 0
    (job,) = negrec_.jobs
    chosen = {group: job.choices[group] for group in ("sampler", "loss", "sampler/false_negatives")}
    # softmax implies the full catalogue, but what is typed stands.
    assert chosen == {
        "sampler": "inverse_popularity",
        "loss": "softmax",
        "sampler/false_negatives": "none",
    }
    assert negrec_("train", "loss=softmax") == 0
    assert negrec_.jobs[0].choices["sampler"] == "full"


def test_a_setting_of_an_option_that_was_left_out(negrec_: Commands):
    line = negrec_.refusal("train", "false_negatives.m=3")
    assert "false_negatives.m is a setting of sampler/false_negatives=" in line
    assert "and this is sampler/false_negatives=none" in line


def test_the_part_may_be_chosen_by_an_experiment(negrec_: Commands, tmp_path: Path):
    header = "# @package _global_\ndefaults:\n  - override /sampler: "
    write(tmp_path / "mine/experiment/a.yaml", header + "popularity\n")
    write(tmp_path / "mine/experiment/b.yaml", header + "genni\nalpha: 1\n")
    mine = ["--config-dir", "mine"]
    line = negrec_.refusal("train", *mine, "+experiment=a", "alpha=2")
    # The experiment that sets alpha is not what owns it.
    assert "alpha is a setting of sampler=genni, and this is sampler=popularity" in line
    assert negrec_("train", *mine, "+experiment=b", "alpha=2") == 0
    assert negrec_("train", *mine, "experiment=b", "alpha=2") == 0


def test_an_experiment_sets_top_level_keys(negrec_: Commands, tmp_path: Path):
    write(tmp_path / "mine/experiment/long.yaml", "# @package _global_\nmax_length: 200\nseed: 5\n")
    assert negrec_("train", "--config-dir=mine", "experiment=long") == 0
    assert (negrec_.jobs[0].cfg["max_length"], negrec_.jobs[0].cfg["seed"]) == (200, 5)
    assert negrec_("train", "--config-dir=mine", "experiment=long", "seed=1") == 0
    assert negrec_.jobs[0].cfg["seed"] == 1


def test_a_sweep_is_refused_before_its_first_job(negrec_: Commands):
    line = negrec_.refusal("train", "-m", "sampler=genni,uniform", "alpha=2.5")
    assert "this is sampler=uniform" in line


# ---- folders of the user


def test_user_folders_add_and_replace(
    negrec_: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path / "one/sampler/uniform.yaml", "_target_: one.Uniform\n")
    write(tmp_path / "two/sampler/uniform.yaml", "_target_: two.Uniform\n")
    write(tmp_path / "two/sampler/mine.yaml", "_target_: two.Mine\nwarmth: 3\n")
    monkeypatch.setenv("NEGREC_CONF_DIR", f"one{os.pathsep}two")
    assert negrec_("train") == 0
    assert negrec_.jobs[0].cfg["sampler"] == {"_target_": "one.Uniform"}
    assert negrec_("train", "sampler=mine") == 0
    assert negrec_.jobs[0].cfg["sampler"]["_target_"] == "two.Mine"
    assert " mine, mixed," in (negrec_("train", "--help"), negrec_.out)[1]
    line = negrec_.refusal("train", "sampler.warmth=2")
    assert "sampler.warmth is a setting of sampler=mine, and this is sampler=uniform" in line


def test_a_user_folder_that_does_not_exist(
    negrec_: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("NEGREC_CONF_DIR", "nowhere")
    assert f"NEGREC_CONF_DIR names {tmp_path / 'nowhere'}" in negrec_.refusal("train")


# ---- bad input


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sampler=geni"], "there is no sampler=geni, did you mean genni?"),
        (["trainer=fast"], "there is no trainer=fast (trainer can be default)"),
        (["trainer.max_epoch=3"], "there is no key trainer.max_epoch: did you mean trainer.max_"),
        (["epochs=3"], "or trainer.max_epochs or"),
        (["samplr=genni"], "there is no key samplr: did you mean sampler"),
        (["seed=1", "sampler=genni", "seed=2"], "seed is given twice, seed=1 and seed=2"),
        (["+seed=1", "seed=2"], "seed is given twice, +seed=1 and seed=2"),
        (["seed=1,2"], "seed=1,2 names several values: add -m"),
        (["seed=[1"], "cannot read 'seed=[1'"),
        (["clicks"], "'clicks' is neither KEY=VALUE nor a file"),
        (["clicks.csv"], "there is no file clicks.csv"),
        (["seed=${nowhere}"], "Interpolation key 'nowhere' not found"),
        (["max_length=???"], "max_length has no value: add max_length=..."),
        (["loss.negatives=all"], "loss: negatives must be sum or mean, got 'all'"),
        (["+loss.colour=red"], "loss: BCE.__init__() got an unexpected keyword argument 'colour'"),
        (["loss._target_=nowhere.Loss"], "loss: _target_ cannot be loaded: No module named 'now"),
        (["~nothing"], "Could not delete from config. 'nothing' does not exist."),
        (["--config-dir", "nowhere"], "nowhere' not found"),
        (["--config-name", "nothing"], "nothing"),
        (["run=12345678"], "run=12345678: no such run"),
        (["-m", "run=12345678"], "leave out -m"),
    ],
)
def test_bad_input_is_one_line(negrec_: Commands, tmp_path: Path, arguments: list[str], says: str):
    assert says in negrec_.refusal("train", *arguments)
    assert not list(tmp_path.rglob("*.log")), "a refused run leaves no folder behind"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gamma: 1\nk: 2\ngamma: 3\n", "sampler/broken.yaml, line 3: found duplicate key gamma"),
        ("gamma: [1\nk: 2\n", "sampler/broken.yaml, line 2: expected"),
    ],
)
def test_a_broken_file(negrec_: Commands, tmp_path: Path, text: str, says: str):
    write(tmp_path / "mine/sampler/broken.yaml", text)
    assert says in negrec_.refusal("train", "--config-dir", "mine", "sampler=broken")


@pytest.fixture
def part(negrec_: Commands, monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], list[str]]:
    """A part that raises when the experiment calls it, as words that choose it."""

    def build(cfg: DictConfig, *_: object, **__: object) -> None:
        # `_partial_` parts are called by the experiment, not by `instantiate`.
        instantiate(cfg.objective)("info", "sequences")

    def choose(error: Exception) -> list[str]:
        def refuse(*_: object, **__: object) -> None:
            raise error

        module = ModuleType("refusing")
        module.part = refuse
        monkeypatch.setitem(sys.modules, "refusing", module)
        return [
            "objective._target_=refusing.part",
            "~objective.sampler",
            "~objective.loss",
        ]

    monkeypatch.setattr(negrec.experiment, "run", build)
    return choose


def test_a_part_that_refuses_its_run_time_facts(negrec_: Commands, part):
    words = part(ValueError("k must be below the catalogue's 3 items, got 9"))
    line = negrec_.refusal("train", *words)
    assert line == "objective: k must be below the catalogue's 3 items, got 9"


def test_a_part_that_names_itself_is_named_once(negrec_: Commands, part):
    words = part(ValueError("objective duorec does not go with targets MaskedItem: why"))
    line = negrec_.refusal("train", *words)
    assert line == "objective duorec does not go with targets MaskedItem: why"


@pytest.mark.parametrize("error", [TypeError("a slip in the part"), KeyError("another")])
def test_a_bug_in_a_part_shows_where_it_is(negrec_: Commands, part, error: Exception):
    assert negrec_("train", *part(error)) == 1
    assert "in refuse" in negrec_.err


def test_a_run_folder_that_cannot_be_written(negrec_: Commands, tmp_path: Path):
    # A file stands where the folder should be: that stops root too.
    write(tmp_path / "occupied", "")
    line = negrec_.refusal("train", "paths.runs_dir=occupied")
    assert line.startswith("cannot write to ")
    assert "occupied" in line
    assert "paths.runs_dir=FOLDER" in line


def test_input_errors_of_a_run(negrec_: Commands):
    negrec_.raises[0] = InputError("clicks.csv has no column\nnamed user")
    assert negrec_.refusal("train") == "clicks.csv has no column named user"


@pytest.mark.parametrize("error", [KeyError("our mistake"), ValueError("in the training loop")])
def test_a_bug_shows_where_it_is(negrec_: Commands, error: Exception):
    negrec_.raises[0] = error
    assert negrec_("train") == 1
    assert "Traceback" in negrec_.err
    assert "in run" in negrec_.err


def test_full_errors_on_request(negrec_: Commands, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert negrec_("train", "sampler=geni") == 2
    assert "MissingConfigException" in negrec_.err


def test_ctrl_c(negrec_: Commands, monkeypatch: pytest.MonkeyPatch):
    def run(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(negrec.experiment, "run", run)
    assert negrec_("train") == 130


# ---- a table of one's own


@pytest.mark.parametrize(
    ("header", "split"),
    [("user,item,timestamp", "global_temporal"), ("user,item", "leave_one_out")],
)
@pytest.mark.parametrize("typed", ["my clicks.csv", "dataset=file dataset.path='my clicks.csv'"])
def test_a_table(negrec_: Commands, tmp_path: Path, header: str, split: str, typed: str):
    row = "a,b,1700000000\n"[: None if "timestamp" in header else 4].rstrip(",\n")
    write(tmp_path / "my clicks.csv", f"{header}\n{row}\n{row}\n")
    words = typed.split(" ", 1) if typed.startswith("dataset") else [typed]
    assert negrec_("train", *words) == 0
    (job,) = negrec_.jobs
    assert job.cfg["dataset"]["path"] == "my clicks.csv"
    class_name = split.title().replace("_", "")
    assert job.cfg["split"]["_target_"].endswith(f".{class_name}")
    assert "dataset.columns.user=" in negrec_.out


def test_a_split_that_was_chosen_stays(negrec_: Commands, tmp_path: Path):
    write(tmp_path / "clicks.csv", "user,item,timestamp\na,b,1700000000\n")
    header = "# @package _global_\ndefaults:\n  - override /split: leave_one_out\n"
    write(tmp_path / "mine/experiment/old.yaml", header)
    by_hand = ["clicks.csv", "split=leave_one_out"]
    by_experiment = ["clicks.csv", "--config-dir", "mine", "experiment=old"]
    for words in (by_hand, by_experiment):
        assert negrec_("train", *words) == 0
        assert "LeaveOneOut" in negrec_.jobs[0].cfg["split"]["_target_"]


def test_a_shown_configuration_is_nothing_but_that(negrec_: Commands, tmp_path: Path):
    write(tmp_path / "clicks.csv", "user,item\na,b\n")
    assert negrec_("train", "clicks.csv", "--cfg", "job") == 0
    assert OmegaConf.create(negrec_.out)["dataset"]["path"] == "clicks.csv"
    assert "correct it" in negrec_.err
    assert "correct it" not in negrec_.out


def test_a_password_is_not_typed(negrec_: Commands):
    said = negrec_.refusal("train", "tracking.uri=http://ann:sesame@127.0.0.1:5000")
    assert "MLFLOW_TRACKING_URI" in said
    assert "sesame" not in said
    assert negrec_("train", "tracking.uri=http://127.0.0.1:5000") == 0


def test_a_password_in_the_environment_is_written_nowhere(
    negrec_: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:sesame@127.0.0.1:5000")
    for arguments in (["train"], ["train", "-m", "seed=0,1", "sweep.probe=0"]):
        assert negrec_(*arguments) == 0
        assert negrec_.jobs[0].cfg["tracking"]["uri"].endswith("sesame@127.0.0.1:5000")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "multirun.yaml" for path in written)
    assert not [path for path in written if b"sesame" in path.read_bytes()]


def test_a_table_and_another_data_set(negrec_: Commands, tmp_path: Path):
    write(tmp_path / "clicks.csv", "user,item\na,b\n")
    line = negrec_.refusal("train", "clicks.csv", "dataset=beauty")
    assert "clicks.csv stands for dataset=file, and dataset=beauty is given too" in line


# ---- going on with a run


@pytest.fixture
def saved(negrec_: Commands):
    """A run that was started with some overrides, and its id."""

    def save(*overrides: str) -> Path:
        folder = Path("multirun/2026-01-01/10-00-00_synthetic-genni-s1_000001")
        write(folder / "run.json", json.dumps({"run_id": "0badcafe", "overrides": list(overrides)}))
        return folder

    return save


def test_resume_types_the_old_command_again(negrec_: Commands, saved):
    folder = saved("sampler=genni", "alpha=2", "seed=1")
    assert negrec_("train", "run=0badcafe", "trainer.max_epochs=9", "alpha=3") == 0
    (job,) = negrec_.jobs
    assert job.folder == folder.absolute()
    assert job.overrides == ["sampler=genni", "seed=1", "trainer.max_epochs=9", "alpha=3"]
    assert job.cfg["sampler"]["alpha"] == 3


@pytest.mark.parametrize(
    "override",
    [
        "loss._target_=os.system",
        "+extra={_target_: os.system}",
        "sampler=../../evil",
        "hydra.searchpath=[file:///tmp]",
        "hydra/launcher=evil",
    ],
)
def test_a_runs_folder_chooses_no_code(negrec_: Commands, saved, override: str):
    saved("seed=1", override)
    line = negrec_.refusal("train", "run=0badcafe")
    assert f"saved with {override}, and a run's folder may not choose code" in line


def test_a_target_that_is_typed_again_is_the_persons_own(negrec_: Commands, saved):
    saved("loss._target_=os.system")
    target = "loss._target_=negrec.losses.bce.BCE"
    assert negrec_("train", "run=0badcafe", target) == 0
    assert negrec_.jobs[0].overrides == [target]


def test_a_refused_resume_leaves_the_run_alone(negrec_: Commands, saved):
    folder = saved("seed=1")
    write(folder / "train.log", "before\n")
    negrec_.raises[1] = InputError("cannot go on")
    assert "cannot go on" in negrec_.refusal("train", "run=0badcafe")
    assert (folder / "train.log").read_text().startswith("before\n")
    assert (folder / "run.json").exists()


# ---- words


@pytest.mark.parametrize(
    "text", ["a b", "it's", "a,b", "C:\\data\\x.csv", "ends\\", "\\'", "day=1/[x](y).csv", "é"]
)
def test_quoted_texts_come_back(text: str):
    (override,) = parsed([f"dataset.path={quoted(text)}"])
    assert override.value() == text


def test_flags_and_words_are_told_apart():
    typed = Typed.of(["a=1", "-m", "--config-dir", "mine", "b=2", "-i", "searchpath", "-c", "job"])
    assert typed.words == ("a=1", "b=2")
    assert typed.multirun
    assert typed.flag("--config-dir") == "mine"
    assert typed.flag("--config-name") is None
    assert Typed.of(["-i", "a=1"]).words == ("a=1",)  # -i may stand alone
