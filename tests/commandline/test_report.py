"""``negrec report`` as it is typed."""

import json

import pytest

from negrec.commandline import report
from negrec.errors import InputError
from tests.reporting.fake_runs import write


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The folder of runs of the working directory, with two sweeps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("first", "second"):
        for sampler, value in (("genni", 0.1), ("uniform", 0.05)):
            for seed in range(2):
                write(
                    tmp_path / "multirun" / name / f"{sampler}-{seed}",
                    run_id=f"{name}-{sampler}-{seed}",
                    sampler=sampler,
                    seed=seed + 2 * (name == "second"),
                    valid=value + 0.001 * seed,
                    test=value,
                )
        path = tmp_path / "multirun" / name / "sweep.json"
        path.write_text(json.dumps({"orders": [{"command": f"negrec train -m # {name}"}]}))
    return tmp_path / "multirun"


def test_the_newest_sweep_by_default(root, capsys):
    import os

    os.utime(root / "first" / "sweep.json", (2_000_000_000, 2_000_000_000))
    assert report.main(["format=html"]) == 0
    out = capsys.readouterr().out
    assert "the newest sweep: first" in out
    assert "beauty leave_one_out: Use genni: HR@10 10.00 ± 0.00 %" in out.replace("\n", " ")
    assert "popularity ranker" in out
    assert out.splitlines()[-1] == "report multirun/first/report/report.html"
    assert (root / "first" / "report" / "report.html").exists()


def test_sweeps_join(root, capsys, tmp_path):
    words = ["sweep=first,second", "format=md", f"out={tmp_path / 'r'}", "metric=NDCG@10"]
    assert report.main(words) == 0
    text = (tmp_path / "r" / "report.md").read_text()
    assert "over n = 4 seeds" in text
    assert "Use genni: NDCG@10 5.00" in text
    assert "negrec train -m # first\nnegrec train -m # second" in text
    assert "the newest" not in capsys.readouterr().out


def test_without_a_folder_of_its_own_it_goes_beside_the_runs(root, capsys):
    assert report.main(["runs=first-genni-0,second-genni-1", "format=html"]) == 0
    path = root / "reports" / "first-genni-0+second-genni-1" / "report.html"
    assert path.exists()
    # Reports are no runs: the next one finds what this one found.
    assert report.main(["runs=first-genni-0,second-genni-1", "format=html"]) == 0


def test_another_folder_of_runs(root, tmp_path, monkeypatch, capsys):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert report.main([f"paths.runs_dir={root}", "sweep=first", "format=html"]) == 0
    assert (root / "first" / "report" / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep=frist"], "sweep=frist: no such sweep in multirun/; near ones: first"),
        (["format=pdf"], "format=pdf: give one of html, md, latex, all"),
        (["metric=hr_7"], "metric=hr_7: the runs have no such metric, but mrr, hr_5"),
        (["sampler=genni"], "report knows no sampler=genni"),
        (["--fast"], "report has no --fast"),
        (["sweep="], "sweep= names nothing"),
        (["sweep=first", "sweep=second"], "sweep is given twice"),
        (["out=."], "out=. holds multirun, which is no part of a report"),
        (["runs=nobody"], "runs=nobody: no such run in multirun"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(root, words, message):
    before = sorted(root.parent.rglob("*"))
    with pytest.raises(InputError) as error:
        report.main(words)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert sorted(root.parent.rglob("*")) == before


def test_help_names_every_word(capsys):
    assert report.main(["--help"]) == 0
    out = capsys.readouterr().out
    for key in ("sweep=", "format=", "metric=", "runs=", "out=", "paths.runs_dir="):
        assert key in out
