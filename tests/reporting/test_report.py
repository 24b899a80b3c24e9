"""The report's folder: what is in it, what it says, and what it never does."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from negrec.errors import InputError
from negrec.reporting import pages, report, runs, sections
from tests.reporting.fake_runs import write


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A sweep of two samplers, two seeds and two data sets, with runs of every bad kind."""
    root = tmp_path_factory.mktemp("runs")
    folder = root / "first"
    number = 0
    for dataset in ("beauty", "ml-1m"):
        for sampler, value in (("genni", 0.1), ("uniform", 0.05)):
            for seed in range(2):
                write(
                    folder / f"{number}_{dataset}-{sampler}-s{seed}",
                    run_id=f"run{number}",
                    sampler=sampler,
                    dataset=dataset,
                    seed=seed,
                    valid=value + 0.001 * seed,
                    test=value,
                    data_hash=dataset,
                    split_hash=f"{dataset}-split",
                )
                number += 1
    write(folder / "8_killed", run_id="killed", seed=7, status="KILLED")
    write(
        folder / "9_again", run_id="old", written=1.0, data_hash="beauty", split_hash="beauty-split"
    )
    (write(folder / "10_half", seed=9) / "results.json").unlink()
    (folder / "11_failed").mkdir()
    failure = {"error": "out of memory", "command": "negrec train sampler=full", "key": None}
    (folder / "11_failed" / "failure.json").write_text(json.dumps(failure))
    write(folder / "superseded" / "0_x")
    order = {"command": "negrec train -m <sampler>", "jobs": 8, "seconds": 60, "seeds": 2}
    record = {"name": "first", "orders": [order]}
    (folder / "sweep.json").write_text(json.dumps(record))
    return root


@pytest.fixture(scope="module")
def written(root, tmp_path_factory):
    """The report of the sweep, and its folder."""
    folder = tmp_path_factory.mktemp("out") / "report"
    return report.write(runs.find(root), folder), folder


class Page(HTMLParser):
    """Collects what a browser would fetch, the text, and whether all tags close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.fetched, self.ids, self.links, self.text = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag not in ("meta", "link", "path", "use", "br", "rect", "image"):
            self.open.append(tag)
        for name in ("src", "href", "xlink:href", "data"):
            value = given.get(name)
            if value and value.startswith("#"):
                self.links.append(value[1:])
            elif value and not value.startswith("data:"):
                self.fetched.append(value)
        if "id" in given:
            self.ids.append(given["id"])

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in ("path", "use", "rect", "image"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(written):
    return Page((written[1] / "report.html").read_text(encoding="utf-8"))


def test_the_page_needs_no_network(written, page):
    assert page.fetched == []
    assert page.open == []
    style = re.findall(r"<style.*?</style>", (written[1] / "report.html").read_text(), re.S)
    assert not any("@import" in part or "url(http" in part for part in style)


def test_every_link_on_the_page_leads_somewhere(page):
    assert set(page.links) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_the_question_comes_first(written, page):
    of_beauty, of_ml = [section.answer.sentence for section in written[0].sections]
    assert of_beauty.startswith("Use genni: HR@10 10.00 ± 0.00 %, balance 62.2, 2.5 s per epoch; ")
    assert page.text.index(of_beauty) < page.text.index("method")
    assert page.text.index(of_ml) < page.text.index("method")


def test_what_was_left_out_is_counted_and_named(written, page):
    left_out = {kind.why: (kind.count, kind.what) for kind in written[0].left_out}
    assert left_out == {
        "killed, not finished": (1, ("killed (8_killed): negrec train run=killed",)),
        "failed": (1, ("11_failed: out of memory; to repeat it: negrec train sampler=full",)),
        "set aside by the sweep: others took their place": (1, ()),
        "incomplete: something was deleted or broken": (1, ("10_half: results.json is missing",)),
        "run twice with the same setting and seed: the newest counts": (
            1,
            ("old (9_again), for which run2 (2_beauty-uniform-s0) counts",),
        ),
    }
    for _, what in left_out.values():
        assert all(each in page.text for each in what)


def test_it_says_how_to_repeat_it(written, page):
    assert "negrec train -m <sampler>" in page.text  # escaped in the source
    assert written[0].commands == ("negrec train -m <sampler>",)
    repeat = dict(written[0].repeat)
    assert repeat["negrec"] == "0.1.0"
    assert repeat["commit"] == "abcdef0123456789"
    assert repeat["beauty leave_one_out"] == "data beauty; split beauty-split"
    assert repeat["ml-1m leave_one_out, seeds"] == "0, 1"
    assert repeat["hardware"] == "cpu (x86_64), 1 of 2 CPU threads"
    # 8 runs of 4 epochs with 2 + 0.5 s.
    assert repeat["time"].startswith("80 s of")
    assert repeat["cut for its budget"] == "to 2 seeds per cell: negrec train -m <sampler>"


def test_every_format_holds_every_number(written):
    _, folder = written
    assert sorted(path.name for path in folder.iterdir()) == [
        *("figures", "report.html", "report.md", "tables"),
    ]
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert "**10.00** ± 0.00" in markdown
    figures = re.findall(r"!\[.*?\]\((.*?)\)", markdown)
    assert figures
    assert all((folder / name).exists() for name in figures)
    assert all((folder / name).with_suffix(".svg").exists() for name in figures)
    latex = (folder / "tables" / "beauty-leave-one-out-table.tex").read_text(encoding="utf-8")
    assert r"\textbf{10.00}" in latex
    assert r"beauty leave\_one\_out" in latex


@pytest.mark.parametrize(
    ("formats", "expected"),
    [("html", ["report.html"]), ("md", ["figures", "report.md"]), ("latex", ["figures", "tables"])],
)
def test_one_format_writes_no_other(root, tmp_path, formats, expected):
    report.write(runs.find(root, None, ["run0", "run2"]), tmp_path / "r", formats=formats)
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == expected


def test_a_metric_that_the_runs_do_not_have_is_refused(root, tmp_path):
    found = runs.find(root)
    for metric in ("hr_7", "nonsense", "hr_", "n", "coverage_10"):
        with pytest.raises(InputError) as error:
            report.write(found, tmp_path / "r", metric=metric)
        assert str(error.value) == (
            f"metric={metric}: the runs have no such metric, but mrr, hr_5, hr_10, ndcg_5, ndcg_10"
        )
    assert list(tmp_path.iterdir()) == []


def test_another_metric_is_told(root, tmp_path):
    found = runs.find(root, None, ["run0", "run1", "run2", "run3"])
    made = report.write(found, tmp_path / "r", metric="ndcg_5", formats="html")
    # 0.4 of the hit rate at 10 in these runs.
    assert made.sections[0].answer.sentence.startswith("Use genni: NDCG@5 4.00 ± 0.00 %")
    assert made.sections[0].tables[0].columns[2].name == "HR@5, % total"


def test_a_report_replaces_a_report_and_nothing_else(root, tmp_path):
    found = runs.find(root, None, ["run0"])
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds thesis.tex, which is no part of a report"):
        report.write(found, folder)
    assert (folder / "thesis.tex").read_text() == "years of work"
    (folder / "thesis.tex").unlink()
    (folder / "report.html").write_text("old")
    report.write(found, folder, formats="html")
    assert (folder / "report.html").read_text() != "old"
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_what_fails_leaves_the_old_report(root, tmp_path, monkeypatch):
    found = runs.find(root, None, ["run0"])
    report.write(found, tmp_path / "r", formats="html")
    before = (tmp_path / "r" / "report.html").read_bytes()

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(pages, "html", broken)
    with pytest.raises(OSError, match="disk full"):
        report.write(found, tmp_path / "r", formats="html")
    assert (tmp_path / "r" / "report.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_names_of_users_are_text_on_the_page(tmp_path):
    name = "<script>alert(1)</script>"
    write(tmp_path / "a", run_id="a", dataset=name)
    write(tmp_path / "b", run_id="b", dataset=name, sampler="genni")
    report.write(runs.find(tmp_path, None, ["a", "b"]), tmp_path / "r", formats="html")
    text = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_side_by_side_and_again_the_same_runs_give_the_same_bytes(
    root, tmp_path, written, monkeypatch
):
    monkeypatch.setattr(sections, "_MANY_RUNS", 1)
    report.write(runs.find(root), tmp_path / "again")
    files = [path.relative_to(written[1]) for path in written[1].rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        assert (tmp_path / "again" / path).read_bytes() == (written[1] / path).read_bytes(), path


def test_a_report_starts_without_torch():
    code = "import sys, negrec.reporting.report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "matplotlib", "mlflow"} & set(done.stdout.split())


def test_where_nothing_is_recommended_it_says_what_to_type(tmp_path):
    late = {"epochs": 5, "best_epoch": 5}
    for name, sampler in (("a", "genni"), ("b", "uniform")):
        write(tmp_path / "s" / name, run_id=name, sampler=sampler, **late)
    single = report.write(runs.find(tmp_path, None, ["a", "b"]), tmp_path / "r", formats="md")
    assert single.go_on == (
        "negrec train run=a trainer.max_epochs=10",
        "negrec train run=b trainer.max_epochs=10",
    )
    command = "negrec train -m sampler=genni,uniform 'seed=range(2)' trainer.max_epochs=5"
    (tmp_path / "s" / "sweep.json").write_text(json.dumps({"orders": [{"command": command}]}))
    swept = report.write(runs.find(tmp_path, ["s"]), tmp_path / "r", formats="md")
    assert swept.go_on == (command.replace("epochs=5", "epochs=10"),)
    assert swept.go_on[0] in (tmp_path / "r" / "report.md").read_text()
    # Nothing was tested, so there is nothing to show of tests.
    assert swept.sections[0].statistics == ()


def test_where_something_is_recommended_there_is_nothing_to_go_on_with(written):
    assert written[0].go_on == ()
