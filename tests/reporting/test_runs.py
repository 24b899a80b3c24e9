"""Runs as they are read from folders, whole, half and gone."""

import json
import os
import shutil

import pytest

from negrec.errors import InputError
from negrec.reporting import runs
from tests.reporting.fake_runs import write


def sweep(root, name, when=None):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps({"orders": [{"command": "negrec train -m"}]}))
    if when is not None:
        os.utime(folder / "sweep.json", (when, when))
    return folder


def test_a_run_is_what_its_folder_says(tmp_path):
    folder = write(tmp_path / "a", sampler="genni", seed=3, test=0.08, trials=12, written=77.0)
    run = runs.read(folder)
    assert run is not None
    assert (run.run_id, run.status, run.seed, run.trials) == ("a", "FINISHED", 3, 12)
    assert (run.epochs, run.best_epoch, run.converged) == (4, 3, True)
    assert run.choices["sampler"] == "genni"
    assert run.metric("test/hr_10") == 0.08
    assert run.metric("test/nothing") != run.metric("test/nothing")  # NaN
    assert run.written == 77.0
    assert len(run.targets()) == 60


def test_null_is_not_a_number(tmp_path):
    run = runs.read(write(tmp_path / "a", test=0.0))  # no hit in any cohort: no balance
    assert run is not None
    assert run.metric("test/balance_10") != run.metric("test/balance_10")


def test_history_adds_up_training_seconds(tmp_path):
    run = runs.read(write(tmp_path / "a", epochs=3, epoch_seconds=2.0))
    assert run is not None
    history = run.history()
    assert history["epoch"].unique().sort().to_list() == [0, 1, 2]
    # 2 s of training each; the half second of validation is not in it.
    seconds = history.select("epoch", "seconds").unique().sort("epoch")["seconds"]
    assert seconds.to_list() == [2.0, 4.0, 6.0]


def test_history_of_an_epoch_logged_twice_is_the_later_one(tmp_path):
    folder = write(tmp_path / "a", epochs=1)
    with (folder / "events.jsonl").open("a") as file:
        again = {"train/epoch_seconds": 5.0, "valid/ndcg_10": "nan"}
        file.write(json.dumps({"kind": "metrics", "time": 2, "step": 0, "values": again}) + "\n")
        file.write('{"kind": "metrics", "time": 3, "step": 1, "val')  # killed while it wrote
    run = runs.read(folder)
    assert run is not None
    history = run.history()
    assert history["seconds"].unique().to_list() == [5.0]
    of = dict(history.select("metric", "value").iter_rows())
    assert of["valid/ndcg_10"] != of["valid/ndcg_10"]
    assert of["train/loss"] == 1.0


def test_final_metrics_are_no_epoch(tmp_path):
    folder = write(tmp_path / "a", epochs=1)
    with (folder / "events.jsonl").open("a") as file:
        final = {"kind": "metrics", "time": 2, "step": None, "values": {"test/hr_10": 0.5}}
        file.write(json.dumps(final) + "\n")
    run = runs.read(folder)
    assert run is not None
    assert "test/hr_10" not in run.history()["metric"]


@pytest.mark.parametrize("name", ["run.json", "results.json", "events.jsonl"])
def test_a_half_deleted_run_is_named_and_left_out(tmp_path, name):
    folder = sweep(tmp_path, "s")
    write(folder / "0_whole")
    (write(folder / "1_half") / name).unlink()
    found = runs.find(tmp_path, ["s"])
    assert [run.run_id for run in found.finished] == ["0_whole"]
    assert [(damaged.folder.name, damaged.reason) for damaged in found.damaged] == [
        ("1_half", f"{name} is missing")
    ]
    assert found.states == "1 finished, 1 incomplete"
    assert runs.read(folder / "1_half") is None


def test_a_torn_record_is_left_out(tmp_path):
    folder = sweep(tmp_path, "s")
    write(folder / "0")
    (write(folder / "1") / "results.json").write_text('{"run_id": "1", "ep')
    (write(folder / "2") / "run.json").write_text('{"run_id": "2", "status": "FINISHED"}')
    found = runs.find(tmp_path, ["s"])
    assert len(found.finished) == 1
    assert [damaged.folder.name for damaged in found.damaged] == ["1", "2"]


def test_a_job_that_never_began_is_no_run(tmp_path):
    folder = sweep(tmp_path, "s")
    write(folder / "0")
    (folder / "1" / ".hydra").mkdir(parents=True)
    (folder / "1" / "train.log").touch()
    assert runs.find(tmp_path, ["s"]).states == "1 finished"


def test_the_newest_sweep_is_taken_and_said(tmp_path):
    for name, when in (("old", 1000), ("new", 3000), ("middle", 2000)):
        write(sweep(tmp_path, name, when) / "0")
    found = runs.find(tmp_path)
    assert found.names == ("new",)
    assert found.newest
    assert not runs.find(tmp_path, ["new"]).newest


def test_several_sweeps_join_and_a_day_folder_is_one(tmp_path):
    write(sweep(tmp_path, "a") / "10_x", run_id="a10")
    write(tmp_path / "a" / "9_x", run_id="a9")
    write(sweep(tmp_path / "2026-01-01", "b") / "0_x", run_id="b0")
    write(tmp_path / "2026-01-02" / "single", run_id="single")
    joined = runs.find(tmp_path, ["a", "2026-01-01/b", "a"])
    # Job 9 comes before job 10; what is named twice is taken once.
    assert sorted(run.run_id for run in joined.finished) == ["a10", "a9", "b0"]
    assert [run.run_id for run in runs.find(tmp_path, ["a"]).finished] == ["a9", "a10"]
    assert joined.names == ("a", "2026-01-01/b")
    assert [run.run_id for run in runs.find(tmp_path, ["b"]).finished] == ["b0"]
    day = runs.find(tmp_path, ["2026-01-02"])
    assert [run.run_id for run in day.finished] == ["single"]


def test_runs_are_taken_by_their_ids_wherever_they_are(tmp_path):
    write(sweep(tmp_path, "a") / "0", run_id="aaaa")
    write(sweep(tmp_path, "b") / "0", run_id="bbbb")
    write(tmp_path / "b" / "1", run_id="cccc")
    found = runs.find(tmp_path, None, ["cccc", "aaaa"])
    assert {run.run_id for run in found.finished} == {"aaaa", "cccc"}
    assert not found.newest
    assert [run.run_id for run in runs.find(tmp_path, ["b"], ["cccc"]).finished] == ["cccc"]
    with pytest.raises(InputError, match=r"runs=aaab: no such run in .*near ones: aaaa"):
        runs.find(tmp_path, None, ["aaab"])
    with pytest.raises(InputError, match="runs=aaaa: no such run in sweep=b"):
        runs.find(tmp_path, ["b"], ["aaaa"])


def test_unknown_sweeps_are_told_from_near_ones(tmp_path):
    write(sweep(tmp_path, "samplers-on-beauty") / "0")
    with pytest.raises(InputError, match=r"sweep=beauty: no such .*near ones: samplers-on-beauty"):
        runs.find(tmp_path, ["beauty"])
    with pytest.raises(InputError, match="no such sweep"):
        runs.find(tmp_path, ["../elsewhere"])
    shutil.rmtree(tmp_path / "samplers-on-beauty")
    with pytest.raises(InputError, match=r"there is no sweep in .*negrec train -m"):
        runs.find(tmp_path)


def test_two_sweeps_of_one_name_must_be_told_apart(tmp_path):
    for day in ("2026-01-01", "2026-01-02"):
        write(sweep(tmp_path / day, "s") / "0", run_id=day)
    with pytest.raises(InputError, match=r"several sweeps.*2026-01-01/s, 2026-01-02/s"):
        runs.find(tmp_path, ["s"])


def test_a_sweep_without_a_finished_run_says_what_there_is(tmp_path):
    folder = sweep(tmp_path, "s")
    for at, status in enumerate(["RUNNING", "FAILED", "FAILED", "KILLED"]):
        write(folder / str(at), status=status)
    (write(folder / "4") / "results.json").unlink()
    expected = r"sweep=s has no finished run .*1 running, 2 failed, 1 killed, 1 incomplete"
    with pytest.raises(InputError, match=expected):
        runs.find(tmp_path, ["s"])


def failure(folder, error="RuntimeError: out of memory", command="negrec train sampler=full"):
    folder.mkdir(parents=True, exist_ok=True)
    record = {"error": error, "command": command, "key": None}
    (folder / "failure.json").write_text(json.dumps(record))


def test_failed_jobs_are_told_with_their_error_run_or_not(tmp_path):
    folder = sweep(tmp_path, "s")
    write(folder / "0")
    failure(folder / "1")  # before its data was read: no run
    failure(write(folder / "2", status="RUNNING"), error="loss is NaN")
    failure(write(folder / "3"))  # what failed last counts
    (folder / "4").mkdir()
    (folder / "4" / "failure.json").write_text("{")
    found = runs.find(tmp_path, ["s"])
    assert [run.run_id for run in found.finished] == ["0"]
    assert found.unfinished == ()
    assert [(failed.folder.name, failed.error, failed.command) for failed in found.failed] == [
        ("1", "RuntimeError: out of memory", "negrec train sampler=full"),
        ("2", "loss is NaN", "negrec train sampler=full"),
        ("3", "RuntimeError: out of memory", "negrec train sampler=full"),
        ("4", "failure.json cannot be read", ""),
    ]
    assert found.states == "1 finished, 4 failed"


def test_names_of_a_sweeps_files_are_those_that_sweeps_write(tmp_path):
    from negrec.sweeping import jobs

    jobs.Failure("error", "command", None).write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [runs.FAILURE]
    assert runs.SUPERSEDED == jobs.SUPERSEDED


def test_what_a_sweep_set_aside_is_counted_only(tmp_path):
    folder = sweep(tmp_path, "s")
    write(folder / "0", run_id="new")
    write(folder / "superseded" / "0_old", run_id="old")
    failure(folder / "superseded" / "1_x")
    found = runs.find(tmp_path, ["s"])
    assert [run.run_id for run in found.finished] == ["new"]
    assert (found.failed, found.superseded) == ((), 2)
    assert found.states == "1 finished"
    # Who asks for it by its id gets it.
    assert [run.run_id for run in runs.find(tmp_path, ["s"], ["old"]).finished] == ["old"]


def test_values_of_an_experiment_are_published_ones(tmp_path):
    def published(name, **more):
        run = runs.read(write(tmp_path / name, **more))
        assert run is not None
        return run.published

    theirs = {"experiment": "apple_paper", "tuned": "apple_paper/beauty/uniform"}
    assert published("a", choices=theirs) == "apple_paper"
    assert published("b", choices={"tuned": "beauty/uniform"}) is None
    assert published("c", choices=theirs | {"tuned": "beauty/uniform"}) is None
    assert published("d", choices=theirs, trials=5) is None  # tuned again
