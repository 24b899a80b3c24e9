"""``negrec export`` on a run that was really trained on a table with ids of its owner's."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import polars as pl
import pytest

from negrec import cli
from negrec.commandline.served import load
from negrec.errors import InputError
from tests import logs
from tests.serving.models import written
from tests.tracking.stores import free_port, until

SMALL = [
    *("tracking=none", "trainer.max_epochs=2", "trainer.batch_size=32", "trainer.threads=1"),
    *("trainer.progress=false", "max_length=10"),
]
TOP = 10
OWN = [f"sku {n:02}/ü" for n in range(40)]


def clicks() -> pl.DataFrame:
    """60 people who walk through the catalogue, each from another item on."""
    rows = [
        (f"u{user}", OWN[(7 * user + step * (1 + user % 3)) % 40], step)
        for user in range(60)
        for step in range(6 + user % 9)
    ]
    return pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row")


# Histories of one item, of several, of more than the model reads, and with an unknown item.
HISTORIES = {
    "a": [OWN[3]],
    "b": [OWN[5], OWN[6], OWN[7]],
    "c": [OWN[n % 40] for n in range(0, 42, 3)],
    "d": ["nothing", OWN[9], OWN[30]],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a table, runs on it by name, and what `negrec recommend` says."""
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch, logs.untouched():
        patch.chdir(folder)
        patch.setenv("NEGREC_CACHE_DIR", str(folder / "cache"))
        clicks().write_csv("clicks.csv")
        runs = {}
        for name, words in {"sasrec": ["model.dim=16"], "markov": ["model=markov"]}.items():
            command = ["train", "clicks.csv", "split=leave_one_out", *SMALL, *words]
            assert cli.main(command) == 0
            new = max(Path("multirun").rglob("run.json"), key=lambda path: path.stat().st_mtime_ns)
            runs[name] = json.loads(new.read_text())["run_id"]
        people = [(who, item, n) for who, row in HISTORIES.items() for n, item in enumerate(row)]
        schema = ["user", "item", "timestamp"]
        pl.DataFrame(people, schema=schema, orient="row").write_parquet("people.parquet")
        yield folder, runs


@pytest.fixture
def negrec(home, monkeypatch, capsys, untouched_logging):
    """Types a verb in the folder; the exit code, what was printed, what was said."""
    monkeypatch.chdir(home[0])
    monkeypatch.setenv("NEGREC_CACHE_DIR", str(home[0] / "cache"))

    def typed(*words):
        capsys.readouterr()
        code = cli.main([*words])
        return code, *capsys.readouterr()

    return typed


@pytest.fixture
def recommended(home, negrec):
    """The lists that `negrec recommend` gives for the histories, by run."""

    def of(name):
        command = ["recommend", f"run={home[1][name]}", "histories=people.parquet", f"top={TOP}"]
        code, _, err = negrec(*command, "-o", "recs.parquet", "force=true")
        assert (code, err) == (0, "")
        lists = pl.read_parquet("recs.parquet").sort("user", "rank")
        return {
            who: (rows["item"].to_list(), rows["score"].to_list())
            for (who,), rows in lists.group_by("user")
        }

    return of


WITHOUT_NEGREC = """
import json, os, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("negrec", "mlflow", "hydra"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
sys.path[:] = [path for path in sys.path if os.path.realpath(path) != os.path.realpath({root!r})]
try:
    import negrec
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("negrec is here")
code = {code!r}
for history in {histories!r}:
    exec(code.replace("history = ids[:3]", "history = " + repr(history)))
"""


@pytest.mark.parametrize("format_", ["torch", "onnx"])
def test_the_readme_of_an_export_recommends_the_same_without_negrec(
    home, negrec, recommended, format_, tmp_path
):
    if format_ == "onnx":
        pytest.importorskip("onnxruntime")
    out = tmp_path / "exported"
    code, said, err = negrec(
        "export", f"run={home[1]['sasrec']}", f"format={format_}", "-o", str(out)
    )
    assert (code, err) == (0, "")
    assert str(out / "README.md") in said
    assert written(tmp_path) == {"exported", *(f"exported/{name}" for name in written(out))}
    (lines,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    assert "history = ids[:3]" in lines
    script = WITHOUT_NEGREC.format(
        root=str(Path(cli.__file__).parents[1]), code=lines, histories=list(HISTORIES.values())
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=out, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = [eval(line) for line in done.stdout.splitlines()]
    for found, (items, scores) in zip(printed, recommended("sasrec").values(), strict=False):
        assert [item for item, _ in found] == items
        assert [score for _, score in found] == pytest.approx(scores, abs=1e-4)
    assert len(printed) == len(HISTORIES)


@pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning")  # of MLflow's own, at import
@pytest.mark.parametrize("name", ["sasrec", "markov"])
def test_an_mlflow_model_recommends_the_same(home, negrec, recommended, name, tmp_path):
    import pandas as pd
    from mlflow.pyfunc import load_model

    out = tmp_path / "model"
    code, said, err = negrec("export", f"run={home[1][name]}", "format=mlflow", "-o", str(out))
    assert (code, err) == (0, "")
    assert f"mlflow models serve -m {out}" in said
    assert not [path for path in out.rglob("*") if path.suffix in (".pkl", ".py", ".pt")]
    model = load_model(str(out))
    want = recommended(name)
    asked = pd.DataFrame({"history": [HISTORIES[who] for who in want], "user": list(want)})
    answer = model.predict(asked, params={"top": TOP})
    for row, (items, scores) in zip(answer.itertuples(), want.values(), strict=True):
        assert row.items == items
        assert row.scores == pytest.approx(scores, abs=1e-5)
    (kept,) = model.predict(asked[:1], params={"top": 40, "seen": "keep"})["items"]
    (left,) = model.predict(asked[:1], params={"top": 40})["items"]
    assert set(kept) - set(left) == set(HISTORIES[next(iter(want))]) & set(OWN)
    assert len(kept) == 40
    # The example in the folder is one that the model takes.
    example = json.loads((out / "serving_input_example.json").read_text())["dataframe_split"]
    assert len(model.predict(pd.DataFrame(**example))["items"][0]) == 10


@pytest.mark.slow
def test_a_server_answers_over_http(home, negrec, recommended, tmp_path):
    out, port = tmp_path / "model", free_port()
    assert negrec("export", f"run={home[1]['sasrec']}", "format=mlflow", f"out={out}")[0] == 0
    want = recommended("sasrec")
    address = f"http://127.0.0.1:{port}"
    environment = {name: value for name, value in os.environ.items() if "NEGREC" not in name}
    command = ["models", "serve", "-m", str(out), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command],
            cwd=tmp_path,
            env={**environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:

        def ready() -> bool:
            assert server.poll() is None, (tmp_path / "log").read_text()
            try:
                with urllib.request.urlopen(f"{address}/ping", timeout=5) as answer:
                    return answer.status == 200
            except OSError:
                return False

        until(ready, 120)
        body = {
            "dataframe_records": [{"history": HISTORIES[who]} for who in want],
            "params": {"top": TOP},
        }
        request = urllib.request.Request(
            f"{address}/invocations",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            predictions = json.loads(answer.read())["predictions"]
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
    assert [row["items"] for row in predictions] == [items for items, _ in want.values()]
    for row, (_, scores) in zip(predictions, want.values(), strict=True):
        assert row["scores"] == pytest.approx(scores, abs=1e-5)


def test_a_model_without_an_encoder_is_refused_and_nothing_is_written(home, negrec, tmp_path):
    code, out, err = negrec("export", f"run={home[1]['markov']}", "-o", str(tmp_path / "x"))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "format=mlflow" in err
    assert written(tmp_path) == set()


def test_a_folder_that_exists_is_replaced_when_told_and_only_if_it_is_an_export(
    home, negrec, tmp_path
):
    words = ["export", f"run={home[1]['markov']}", "format=mlflow", "-o", str(tmp_path / "own")]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("years of work")
    code, _, err = negrec(*words)
    assert (code, "add force=true" in err) == (2, True)
    code, _, err = negrec(*words, "force=true")
    assert (code, "is no export" in err) == (2, True)
    assert written(tmp_path) == {"own", "own/thesis.txt"}
    words[-1] = str(tmp_path / "export")
    assert negrec(*words)[0] == 0
    (tmp_path / "export" / "stale").write_text("")
    assert negrec(*words)[0] == 2
    assert (tmp_path / "export" / "stale").exists()
    assert negrec(*words, "force=true")[0] == 0
    assert not (tmp_path / "export" / "stale").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["format=torch"], "a run is needed"),
        (["run=abcdef12", "format=pickle"], "format=pickle must be one of torch, onnx, mlflow"),
        (["run=abcdef12", "run=b"], "run is given twice"),
        (["run=abcdef12", "-o"], "-o wants a name: -o exported"),
        (["run=abcdef12", "force=yes"], "force=yes must be true or false"),
        (["run=abcdef12", "-o", "no/where"], "there is no folder"),
        (["run=abcdef12"], "no such run"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(negrec, words, said):
    code, out, err = negrec("export", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_a_bundle_may_not_choose_code_and_must_be_this_configurations(home, negrec, tmp_path):
    out = tmp_path / "model"
    assert negrec("export", f"run={home[1]['sasrec']}", "format=mlflow", f"out={out}")[0] == 0
    bundle = next(out.rglob("bundle.json"))
    folder, text = bundle.parent, bundle.read_text()
    load(folder)
    about = json.loads(text)
    touch = tmp_path / "touched"
    for word in (
        "model._target_=os.mkdir",
        f"+model.scorer.x={{_target_: os.mkdir, path: '{touch}'}}",
        "hydra.searchpath=[/tmp]",
        "model=../../evil",
    ):
        bundle.write_text(json.dumps({**about, "overrides": [*about["overrides"], word]}))
        with pytest.raises(InputError, match="may not choose code"):
            load(folder)
    assert not touch.exists()
    bundle.write_text(json.dumps({**about, "overrides": [*about["overrides"], "model.blocks=3"]}))
    with pytest.raises(InputError, match=r"has model.blocks=2, and the configuration .* says 3"):
        load(folder)
    settings = {**about["settings"], "model._target_": "os.system"}
    bundle.write_text(json.dumps({**about, "settings": settings}))
    with pytest.raises(InputError, match=r"has model._target_=os.system"):
        load(folder)
    bundle.write_text(json.dumps({**about, "overrides": ["model=gone"]}))
    with pytest.raises(InputError, match="cannot be made here") as refused:
        load(folder)
    assert "\n" not in str(refused.value)
