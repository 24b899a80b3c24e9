"""Runs that are killed and go on."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

SETTINGS = [
    "tracking=none",
    "dataset.users=400",
    "dataset.items=200",
    "trainer.max_epochs=12",
    "trainer.batch_size=16",
    "trainer.threads=1",
    "model.dim=32",
    "sampler=genni",
]


def command(*words):
    return [sys.executable, "-m", "negrec", "train", *words]


def environment(folder):
    return {**os.environ, "NEGREC_CACHE_DIR": str(folder / "cache")}


def results(folder):
    (path,) = folder.glob("multirun/**/results.json")
    content = json.loads(path.read_text())
    metrics = content["metrics"]
    kept = {name: value for name, value in metrics.items() if not name.startswith("cost/")}
    return content["run_id"], content["best_epoch"], kept


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_to_bit_equal_results(tmp_path, number):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    env = environment(tmp_path)
    subprocess.run(command(*SETTINGS), cwd=whole, env=env, check=True, capture_output=True)

    wait = random.Random(int(number)).uniform(0.1, 0.4)
    process = subprocess.Popen(
        command(*SETTINGS), cwd=cut, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    # Into the middle of an epoch: checkpoints stand at epochs' ends.
    while not list(cut.glob("multirun/**/last.safetensors")):
        assert process.poll() is None, process.stdout.read().decode()
        time.sleep(0.01)
    time.sleep(wait)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 143)
    assert not list(cut.glob("multirun/**/results.json"))
    (record,) = cut.glob("multirun/**/run.json")
    run_id = json.loads(record.read_text())["run_id"]

    subprocess.run(command(f"run={run_id}"), cwd=cut, env=env, check=True, capture_output=True)
    assert results(cut) == (run_id, *results(whole)[1:])
