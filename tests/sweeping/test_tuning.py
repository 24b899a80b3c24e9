import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from negrec.sweeping.tuning import best


def job(root: Path, number: int, sampler: str, seed: int, value: float | None, **tuned: object):
    folder = root / f"{number}"
    folder.mkdir(parents=True)
    config = {"trainer.metric": "hr_5", "seed": seed}
    config |= {key.replace("__", "."): v for key, v in tuned.items()}
    choices = {"dataset": "beauty", "sampler": sampler}
    status = "RUNNING" if value is None else "FINISHED"
    run = {"run_id": "r", "key": "k", "status": status, "config": config, "choices": choices}
    (folder / "run.json").write_text(json.dumps(run))
    if value is not None:
        metrics = {"best/value": value, "cost/seconds": 1.0}
        (folder / "results.json").write_text(json.dumps({"metrics": metrics}))


def test_the_best_mean_over_seeds_wins_not_the_best_run(tmp_path):
    # alpha 1: mean .5 of .2 and .8; alpha 2: mean .6. genni has two settings, uniform one.
    values = [(0, 0.2, 1.0), (1, 0.8, 1.0), (0, 0.7, 2.0), (1, 0.5, 2.0)]
    for number, (seed, value, alpha) in enumerate(values):
        job(tmp_path, number, "genni", seed, value, alpha=alpha, trainer__optimizer__lr=1e-3)
    job(tmp_path, 7, "genni", 1, None, alpha=3.0, trainer__optimizer__lr=1e-3)  # not finished
    job(tmp_path, 8, "uniform", 0, 0.1, trainer__optimizer__lr=1e-2)
    genni, uniform = best(sorted(tmp_path.iterdir()), ["alpha", "trainer.optimizer.lr"])
    assert (genni.sampler, genni.trials, genni.runs) == ("genni", 2, 4)
    assert genni.values == {"alpha": 2.0, "trainer.optimizer.lr": 1e-3}
    assert genni.value == pytest.approx(0.6)
    assert (uniform.values, uniform.trials) == ({"trainer.optimizer.lr": 1e-2}, 1)


def test_a_setting_that_failed_with_some_seeds_is_no_candidate(tmp_path):
    for number, (seed, value, alpha) in enumerate([(0, 0.3, 1.0), (1, 0.3, 1.0), (0, 0.9, 2.0)]):
        job(tmp_path, number, "genni", seed, value, alpha=alpha)
    job(tmp_path, 7, "genni", 1, None, alpha=2.0)
    (found,) = best(sorted(tmp_path.iterdir()), ["alpha"])
    assert found.values == {"alpha": 1.0}
    assert found.trials == 2


def test_the_file_sets_the_values_and_says_how_many_were_tried(tmp_path):
    for number, alpha in enumerate([1.0, 2.0]):
        job(
            tmp_path / "sweep",
            number,
            "genni",
            0,
            alpha / 10,
            alpha=alpha,
            trainer__optimizer__lr=0.01,
        )
    (found,) = best(sorted((tmp_path / "sweep").iterdir()), ["alpha", "trainer.optimizer.lr"])
    path = found.write(tmp_path / "conf", "mine")
    assert path == tmp_path / "conf/tuned/beauty/genni.yaml"
    assert path.read_text().startswith("# @package _global_\n# The best of 2 settings (2 runs) by")
    made = OmegaConf.load(path)
    assert made == {
        "alpha": 2.0,
        "trainer": {"optimizer": {"lr": 0.01}},
        "tuned": {"trials": 2, "sweep": "mine"},
    }
