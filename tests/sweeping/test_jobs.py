import json
import time
from pathlib import Path

import pytest

from negrec.sweeping import jobs
from negrec.sweeping.jobs import Failure, look, set_aside, settled

NEVER = float("inf")  # a command that was given after everything here


def job(folder: Path, status: str = "FINISHED", key: str = "k", value: float | None = 0.5) -> Path:
    """A job's folder as Hydra and a run leave it."""
    folder.mkdir(parents=True)
    (folder / "train.log").write_text("")
    run = {"run_id": "r1", "key": key, "status": status, "config": {"trainer.metric": "hr_5"}}
    (folder / "run.json").write_text(json.dumps(run))
    if status == "FINISHED":
        metrics = {"best/value": value, "cost/seconds": 7.0}
        (folder / "results.json").write_text(json.dumps({"metrics": metrics}))
    return folder


def failed(folder: Path, key: str | None = "k") -> Path:
    """A job that failed before its run began."""
    folder.mkdir(parents=True)
    (folder / "train.log").write_text("")
    Failure("no good", "negrec train seed=1", key).write(folder)
    return folder


def test_a_folder_tells_what_became_of_its_job(tmp_path):
    assert look(tmp_path / "none").status == "NEW"
    done = look(job(tmp_path / "done"))
    assert (done.status, done.run_id, done.key, done.value) == ("FINISHED", "r1", "k", 0.5)
    assert (done.metric, done.seconds) == ("hr_5", 7.0)
    assert look(job(tmp_path / "cut", "RUNNING")).status == "RUNNING"
    broken = look(failed(tmp_path / "failed"))
    assert (broken.status, broken.failure.error) == ("FAILED", "no good")


def test_a_finished_job_without_its_results_is_measured_again(tmp_path):
    (job(tmp_path / "done") / "results.json").unlink()
    assert look(tmp_path / "done").status == "KILLED"


def test_what_is_finished_is_not_done_again(tmp_path):
    assert settled(job(tmp_path / "job"), "k", "failed", NEVER).value == 0.5


@pytest.mark.parametrize("status", ["RUNNING", "KILLED"])
def test_what_was_interrupted_goes_on_in_its_folder(tmp_path, status):
    folder = job(tmp_path / "job", status)
    assert settled(folder, "k", "failed", NEVER) is None
    assert (folder / "run.json").exists()


@pytest.mark.parametrize(("retry", "anew"), [("failed", True), ("all", True), ("none", False)])
def test_what_failed_is_done_anew_when_asked_for(tmp_path, retry, anew):
    folder = failed(tmp_path / "job")
    past = settled(folder, "k", retry, NEVER)
    assert (past is None) == anew
    assert (folder / "failure.json").exists() != anew


def test_all_does_the_finished_anew_too(tmp_path):
    folder = job(tmp_path / "job")
    assert settled(folder, "k", "all", NEVER) is None
    assert [path.name for path in folder.iterdir()] == ["train.log"]
    (aside,) = (tmp_path / jobs.SUPERSEDED).iterdir()
    assert aside.name == "job_r1"
    assert look(aside).value == 0.5


def test_what_this_command_did_is_not_done_again(tmp_path):
    # A launcher that broke off is started again by the same command.
    before = time.time() - 60
    assert settled(failed(tmp_path / "a"), "k", "failed", before).status == "FAILED"
    assert settled(job(tmp_path / "b"), "k", "all", before).value == 0.5


def test_other_data_makes_another_job(tmp_path):
    folder = job(tmp_path / "job", key="of other data")
    assert settled(folder, "k", "failed", NEVER) is None
    assert not (folder / "run.json").exists()


def test_moving_aside_that_was_cut_off_is_finished_later(tmp_path):
    folder = job(tmp_path / "job")
    (tmp_path / jobs.SUPERSEDED / "job_r1").mkdir(parents=True)
    (folder / "results.json").rename(tmp_path / jobs.SUPERSEDED / "job_r1" / "results.json")
    set_aside(folder, "r1")
    assert look(tmp_path / jobs.SUPERSEDED / "job_r1").status == "FINISHED"


@pytest.mark.parametrize("status", ["RUNNING", "KILLED"])
def test_a_failure_that_did_not_touch_the_run_costs_none_of_it(tmp_path, status):
    # The data was out of reach when the command was typed again.
    folder = job(tmp_path / "job", status)
    Failure("no such file", "negrec train", None).write(folder)
    assert look(folder).status == "FAILED"
    assert settled(folder, "k", "failed", NEVER) is None
    assert look(folder).status == status


def test_a_finished_run_stays_finished(tmp_path):
    folder = job(tmp_path / "job")
    Failure("no such file", "negrec train", None).write(folder)
    assert settled(folder, "k", "failed", NEVER).value == 0.5
