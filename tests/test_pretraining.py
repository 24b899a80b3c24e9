"""S3-Rec's two phases, and any run that starts from another."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from negrec import experiment
from negrec.commandline import shorthand
from negrec.commandline.configuration import conf_dir
from negrec.commandline.typed import Typed
from negrec.errors import InputError
from negrec.reporting import runs
from negrec.training.checkpoint import Checkpoints, load
from negrec.training.interruption import InterruptedRunError
from negrec.training.warm_start import warm_start
from tests import toy

SMALL = [
    *("tracking=none", "diagnostics=none", "trainer.threads=1", "trainer.progress=false"),
    *("model.dim=8", "model.blocks=1", "model.heads=1", "trainer.max_epochs=2"),
    *("max_length=8", "trainer.batch_size=16"),
]
PRE = ["objective=s3rec_pretrain", "trainer.max_epochs=2"]
BOTH = ["experiment=s3rec", "split=leave_one_out", "pretraining.trainer.max_epochs=2"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a table of clicks and one of attributes."""
    folder = tmp_path_factory.mktemp("world")
    rows = [(u, i) for u, items in enumerate(toy.random_histories(60, 30, 9, 1)) for i in items]
    clicks = pl.DataFrame(rows, schema=["user", "item"], orient="row")
    clicks.write_csv(folder / "clicks.csv")
    items = pl.DataFrame({"item": range(1, 31)})
    items.with_columns(attribute=pl.col("item") % 4).write_csv(folder / "attrs.csv")
    return folder


def config(world, *overrides):
    words = [
        *overrides,
        *(word for word in SMALL if word.split("=")[0] not in {w.split("=")[0] for w in overrides}),
        f"paths.cache_dir={world / 'cache'}",
        f"paths.runs_dir={world}",
    ]
    own = ["dataset=file", f"dataset.path={world / 'clicks.csv'}"]
    own += [f"dataset.attributes={world / 'attrs.csv'}", "model=s3rec"]
    given = {word.split("=")[0] for word in words}
    words = [*(word for word in own if word.split("=")[0] not in given), *words]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", words), words


def run(world, folder, *overrides):
    cfg, words = config(world, *overrides)
    folder.mkdir(exist_ok=True)
    return experiment.run(cfg, folder, words)


@pytest.fixture(scope="module")
def pretrained(world):
    return run(world, world / "pretrained", *PRE)


def record(folder):
    return json.loads((folder / "run.json").read_text())


def weights(folder, part="model"):
    return load(Checkpoints(folder / "checkpoint").best).part(part)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def results(folder):
    return json.loads((folder / "results.json").read_text())["metrics"]


def metrics(folder):
    return {k: value for k, value in results(folder).items() if not k.startswith("cost/")}


def test_pre_training_measures_nothing(pretrained):
    assert pretrained.measured is None
    assert record(pretrained.folder)["status"] == "FINISHED"
    assert metrics(pretrained.folder) == {"best/epoch": 1, "best/value": None}
    assert not (pretrained.folder / "ranks.parquet").exists()
    events = (pretrained.folder / "events.jsonl").read_text()
    for name in ("aap", "mip", "map", "sp"):
        assert f"train/loss_{name}" in events
    assert "valid/" not in events
    found = runs.read(pretrained.folder)
    assert (found.epochs, found.best_epoch, found.converged) == (2, 2, True)


@pytest.mark.parametrize("by", ["id", "folder"])
def test_a_run_starts_from_the_weights_of_another(world, pretrained, tmp_path, by):
    source = pretrained.run_id if by == "id" else pretrained.folder
    made = run(world, tmp_path / "run", f"init_from={source}", "trainer.max_epochs=0")
    assert made.fit.epochs == 0
    cfg, _ = config(world, f"init_from={source}")
    parts = experiment.build(cfg)
    assert not same(parts.model.state_dict(), weights(pretrained.folder))
    hashes = {"data_hash": parts.interactions.hash, "split_hash": parts.split.hash}
    warm_start(parts.model, str(source), world, hashes)
    assert same(parts.model.state_dict(), weights(pretrained.folder))


def test_a_resumed_run_does_not_start_again(world, pretrained, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(pretrained.folder, source)
    whole = run(world, tmp_path / "whole", f"init_from={source}", "trainer.max_epochs=4")
    run(world, tmp_path / "run", f"init_from={source}")
    shutil.rmtree(source)  # it is not looked at again
    longer = run(world, tmp_path / "run", f"init_from={source}", "trainer.max_epochs=4")
    assert metrics(longer.folder) == metrics(whole.folder)
    cold = run(world, tmp_path / "cold", "trainer.max_epochs=4")
    assert metrics(cold.folder) != metrics(whole.folder)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.dim=4"], r"another model: scorer.weight is \(30, 8\) there and \(30, 4\) here"),
        (["model.hides=false"], "another model: input.hidden is only there: choose the same"),
        (["max_length=5"], r"encoder.positions.weight is \(8, 8\) there and \(5, 8\) here"),
        (["dataset.min_interactions=3"], "on another data .* its items are others, or it has"),
        (["split.validation_users=3"], "on another split .* learnt from what is held out here"),
        (["init_from=nobody"], r"^init_from=nobody: no such run in"),
    ],
)
def test_what_cannot_be_started_from(world, pretrained, tmp_path, overrides, message):
    words = [f"init_from={pretrained.run_id}", "split=leave_one_out", *overrides]
    words = list({word.split("=")[0]: word for word in words}.values())  # the later wins
    with pytest.raises(InputError, match=message):
        run(world, tmp_path / "run", *words)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_run_that_is_not_finished_is_no_start(world, pretrained, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(pretrained.folder, source)
    (source / "run.json").write_text(json.dumps({**record(source), "status": "KILLED"}))
    why = rf"source is not finished \(KILLED\): `negrec train run={pretrained.run_id}` goes on"
    with pytest.raises(InputError, match=why):
        run(world, tmp_path / "run", f"init_from={source}")
    assert list((tmp_path / "run").iterdir()) == []


def test_weights_come_from_one_place(world, pretrained, tmp_path):
    with pytest.raises(InputError, match=r"init_from=\w+ and pretraining both say"):
        run(world, tmp_path / "run", *BOTH, f"init_from='{pretrained.run_id}'")
    assert list((tmp_path / "run").iterdir()) == []


def test_the_key_depends_on_the_attributes_and_the_data_hash_does_not(world, tmp_path):
    def about(folder):
        cfg, _ = config(world, f"dataset.attributes={folder / 'attrs.csv'}")
        data = experiment.read(cfg)
        # The path is a setting, and counts as one: the same here.
        cfg.dataset.attributes = "attrs.csv"
        return experiment.key(cfg, data), data.hash

    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(world / "attrs.csv", tmp_path)
    pl.DataFrame({"item": [1, 2], "attribute": [1, 2]}).write_csv(other / "attrs.csv")
    assert about(tmp_path) == about(world)
    assert about(other)[0] != about(world)[0]
    assert about(other)[1] == about(world)[1]


def test_a_run_does_not_go_on_with_other_attributes(world, tmp_path):
    table = tmp_path / "attrs.csv"
    shutil.copy(world / "attrs.csv", table)
    words = [*PRE, f"dataset.attributes={table}"]
    made = run(world, tmp_path / "run", *words)
    assert record(made.folder)["attributes_hash"]
    pl.DataFrame({"item": [1, 2], "attribute": [1, 2]}).write_csv(table)
    with pytest.raises(InputError, match=r"trained on other data \(attributes_hash"):
        run(world, tmp_path / "run", *words)


def test_what_is_refused_writes_nothing(world, tmp_path):
    folder = tmp_path / "run"
    for words, message in (
        ([*PRE, "dataset.attributes=null"], "dataset.attributes=FILE"),
        ([*BOTH, "dataset.attributes=null"], "dataset.attributes=FILE"),
        ([*PRE, "model=sasrec"], "use model=s3rec"),
        ([*BOTH, "model.hides=false"], "use model=s3rec"),
    ):
        with pytest.raises(Exception, match=message):
            run(world, folder, *words)
        assert list(folder.iterdir()) == []


def test_the_run_before_is_laid_over_this_one(world):
    cfg, _ = config(world, *BOTH)
    before = experiment.pretraining(cfg)
    assert before.pretraining is None
    # A part takes the place of another, a setting that of another.
    assert before.objective == cfg.pretraining.objective
    assert (before.trainer.metric, before.trainer.max_epochs) == (None, 2)
    assert before.trainer.optimizer == cfg.trainer.optimizer
    assert before.model == cfg.model
    assert cfg.objective._target_.endswith("Ranking")  # itself it is what it was
    OmegaConf.resolve(before)


def test_both_phases_are_one_run_and_the_parts_by_hand_give_the_same(world, tmp_path):
    both = run(world, tmp_path / "both", *BOTH)
    place = both.folder / "pretraining"
    assert record(place)["status"] == record(both.folder)["status"] == "FINISHED"
    assert record(place)["run_id"] != both.run_id
    settings = ["sampler.exclude=history", "evaluation.seen=zero", "trainer.metric=ndcg_20"]
    settings += ["trainer.patience=10", "split=leave_one_out"]
    first = run(world, tmp_path / "first", *PRE, "split=leave_one_out")
    assert same(weights(place), weights(first.folder))
    assert same(weights(place, "objective"), weights(first.folder, "objective"))
    second = run(world, tmp_path / "second", *settings, f"init_from={first.folder}")
    assert metrics(second.folder) == metrics(both.folder)
    before = results(place)["cost/seconds"]
    assert results(both.folder)["cost/seconds"] == pytest.approx(before + both.fit.seconds)
    assert results(both.folder)["cost/seconds_to_best"] > before > 0
    found = runs.find(tmp_path, ["both"])
    assert [r.run_id for r in found.finished] == [both.run_id]  # the pre-training is no run of it


def cut_off(monkeypatch, phase, after):
    """Makes the trainer stop after some steps of a phase."""
    from negrec.training import trainer

    step = trainer._Run.step
    done = []

    def cut(self, *args):
        if (self.trainer.metric is None) == (phase == "pretraining"):
            done.append(1)
            if len(done) == after:
                self.save_last()
                raise InterruptedRunError(2)
        return step(self, *args)

    monkeypatch.setattr(trainer._Run, "step", cut)


@pytest.mark.parametrize("phase", ["pretraining", "fine-tuning"])
def test_a_run_cut_off_in_either_phase_goes_on(world, tmp_path, phase):
    whole = run(world, tmp_path / "whole", *BOTH)
    folder = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        cut_off(patch, phase, after=3)
        with pytest.raises(InterruptedRunError):
            run(world, folder, *BOTH)
    assert record(folder)["status"] == "KILLED"
    done = phase == "fine-tuning"
    assert record(folder / "pretraining")["status"] == ("FINISHED" if done else "KILLED")
    assert [r.run_id for r in [runs.read(folder)]] == [record(folder)["run_id"]]
    ids = record(folder)["run_id"], record(folder / "pretraining")["run_id"]
    written = (folder / "pretraining" / "events.jsonl").stat().st_mtime_ns
    run(world, folder, *BOTH)
    assert (record(folder)["run_id"], record(folder / "pretraining")["run_id"]) == ids
    assert metrics(folder) == metrics(whole.folder)
    same_file = (folder / "pretraining" / "events.jsonl").stat().st_mtime_ns == written
    assert same_file == done  # what is done is not done again


def test_the_run_of_a_pre_training_goes_on_with_the_run_around_it(tmp_path):
    outer, inner = tmp_path / "run", tmp_path / "run" / "pretraining"
    inner.mkdir(parents=True)
    for folder, name in ((outer, "aaaaaaaa"), (inner, "bbbbbbbb")):
        text = json.dumps({"run_id": name, "overrides": ["seed=3"]})
        (folder / "run.json").write_text(text)
    found = shorthand.resumed(Typed((), ("run=bbbbbbbb", f"paths.runs_dir={tmp_path}")))
    assert f"hydra.run.dir='{outer}'" in found.words
    assert Path(outer).is_dir()
