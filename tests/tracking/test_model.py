"""Runs that leave their model in a real store."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from negrec import cli
from negrec.commandline.served import load
from negrec.serving.bundle import Bundle, UnwritableError
from negrec.tracking import model
from negrec.tracking.base import Tracker
from negrec.tracking.mlflow import MLflowTracker, Progress
from negrec.tracking.sync import sync
from tests import logs
from tests.serving.test_bundle import IDS, bundle
from tests.tracking.stores import Store

SMALL = [
    *("dataset.users=120", "dataset.items=40", "trainer.max_epochs=1", "trainer.threads=1"),
    *("trainer.progress=false", "model.dim=16", "diagnostics=none"),
]
MODELS = "select name, status, source_run_id from logged_models"
LINKS = "select count(*) from inputs where destination_type = 'MODEL_OUTPUT'"

pytestmark = [  # MLflow's own
    pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*loader strategy is deprecated:DeprecationWarning"),
]


@pytest.fixture
def store(migrated, tmp_path) -> Store:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return Store(tmp_path / "mlflow.db")


@pytest.fixture
def tracked(store, tmp_path):
    """A tracker at work, and its run's folder."""
    folder = tmp_path / "run"
    folder.mkdir()
    tracker = MLflowTracker(folder, "abcd1234", uri=store.uri)
    tracker.start({"a": 1}, {"negrec.run_id": "abcd1234", "negrec.dataset": "toy"})
    return tracker, folder


@pytest.fixture(scope="module")
def trained(migrated, tmp_path_factory):
    """A run that was trained with the default of `tracking.model`, its folder and its store."""
    home = tmp_path_factory.mktemp("model")
    shutil.copy(migrated, home / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch, logs.untouched():
        patch.chdir(home)
        patch.setenv("NEGREC_CACHE_DIR", str(home / "cache"))
        assert cli.main(["train", *SMALL, "tracking.uri=sqlite:///mlflow.db"]) == 0
    (record,) = home.glob("multirun/*/*/run.json")
    return record.parent, Store(home / "mlflow.db")


def test_a_runs_model_is_in_the_store_and_loads_from_there(trained, monkeypatch, tmp_path):
    import pandas as pd

    folder, store = trained
    run = Progress.read(folder).mlflow_run
    assert Progress.read(folder).trouble == ""
    ((name, _, source),) = store.rows(MODELS)
    assert (name, source) == ("model", run)
    assert store.rows(LINKS) == [(1,)]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.chdir(tmp_path)
    from mlflow.pyfunc import load_model

    ((model_id,),) = store.rows("select model_id from logged_models")
    items = load(folder / "model").predict(pd.DataFrame({"history": [[1, 2]]}))["items"][0]
    assert len(items) == 10
    for uri in (f"runs:/{run}/model", f"models:/{model_id}"):
        loaded = load_model(uri)
        assert loaded.metadata.signature.inputs.input_names() == ["history", "user"]
        assert loaded.metadata.flavors["python_function"]["loader_module"].startswith("negrec.")
        asked = pd.DataFrame({"history": [[1, 2]]})
        assert loaded.predict(asked)["items"][0] == items
    ((place,),) = store.rows("select artifact_location from logged_models")
    files = [path.name for path in Path(place.removeprefix("file://")).rglob("*") if path.is_file()]
    assert "weights.safetensors" in files
    assert not [name for name in files if name.endswith((".pkl", ".py", ".pt", ".bin"))]


class CutOff(MlflowClient):
    def log_model_artifacts(self, *_):
        raise ConnectionError("gone")


def test_what_is_sent_twice_or_cut_off_is_stored_once(store, tmp_path):
    client = MlflowClient(store.uri)
    experiment = client.create_experiment("e", artifact_location=(tmp_path / "mlruns").as_uri())
    run = client.create_run(experiment, tags={"negrec.dataset": "toy"}).info.run_id
    bundle().write(tmp_path / "bundle")

    def statuses():
        return [found.status.value for found in client.search_logged_models([experiment])]

    with pytest.raises(ConnectionError):
        model.log(CutOff(store.uri), run, tmp_path / "bundle")
    assert statuses() == ["PENDING"]
    for one in (client, CutOff(store.uri)):  # the second has nothing left to send
        model.log(one, run, tmp_path / "bundle")
        assert statuses() == ["READY"]
    assert store.rows(LINKS) == [(1,)]
    tags = dict(store.rows("select tag_key, tag_value from logged_model_tags"))
    assert tags["negrec.dataset"] == "toy"
    # Another model of the same run, as one that is trained longer has, is another.
    bundle(run_id="longer").write(tmp_path / "bundle")
    model.log(client, run, tmp_path / "bundle")
    assert statuses() == ["READY", "READY"]
    # And what is no bundle makes none.
    (tmp_path / "bundle" / "bundle.json").write_text("{")
    with pytest.raises(ValueError, match="Expecting"):
        model.log(client, run, tmp_path / "bundle")
    assert statuses() == ["READY", "READY"]


def test_a_model_that_cannot_be_sent_costs_nothing_else(tracked, store, caplog):
    tracker, folder = tracked
    bundle().write(folder / "model")
    whole = (folder / "model" / "bundle.json").read_text()
    (folder / "model" / "bundle.json").write_text("{")
    tracker.log({"test/hr_10": 0.5})
    (folder / "results.json").write_text("{}")
    tracker.artifact(folder / "results.json")
    tracker.model(folder / "model")
    tracker.finish("FINISHED")
    assert store.statuses() == ["FINISHED"]
    assert store.metrics("test/hr_10") == [(0, 0.5)]
    assert "negrec sync run=abcd1234" in caplog.text
    assert list((store.path.parent / "mlruns").rglob("results.json"))
    (folder / "model" / "bundle.json").write_text(whole)
    assert sync(folder).complete
    assert len(store.rows(MODELS)) == 1


def test_a_run_survives_a_model_that_cannot_be_written(
    migrated, tmp_path, monkeypatch, capsys, untouched_logging
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEGREC_CACHE_DIR", str(tmp_path / "cache"))

    def full(self: Bundle, folder: Path) -> None:
        raise UnwritableError(f"{folder}: no space left on device")

    monkeypatch.setattr(Bundle, "write", full)
    monkeypatch.setattr(Tracker, "stores_model", lambda self, in_sweep: True)
    assert cli.main(["train", *SMALL, "tracking=none"]) == 0
    assert "the model is not stored" in capsys.readouterr().out
    (record,) = tmp_path.glob("multirun/*/*/run.json")
    assert json.loads(record.read_text())["status"] == "FINISHED"


@pytest.mark.parametrize(
    ("setting", "alone", "in_sweep"),
    [("auto", True, False), (True, True, True), (False, False, False)],
)
def test_whose_model_is_stored(setting, alone, in_sweep, tmp_path):
    tracker = MLflowTracker(tmp_path, "name", model=setting)
    assert tracker.stores_model(in_sweep=False) == alone
    assert tracker.stores_model(in_sweep=True) == in_sweep
    assert not Tracker(tmp_path, "name").stores_model(in_sweep=False)


def test_what_lies_outside_of_the_run_is_no_model_of_it(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="it must lie inside the run folder"):
        Tracker(tmp_path / "run", "name").model(tmp_path / "other")


def test_the_example_is_one_of_the_owners_own(tmp_path):
    bundle().write(tmp_path / "bundle")
    model.save(tmp_path / "bundle", tmp_path / "model")
    example = json.loads((tmp_path / "model" / "input_example.json").read_text())["inputs"]
    assert example == {"columns": ["history"], "data": [[IDS[:-4:-1]]]}
