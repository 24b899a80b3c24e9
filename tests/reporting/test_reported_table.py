"""Published values beside measured ones, as the report prints them."""

from negrec.reporting import report, reported_table, runs
from negrec.reporting.cells import sort
from tests.reporting.fake_runs import write
from tests.reporting.test_reported import GENNI, composed


def written(folder, words, **more):
    """A run folder with a real configuration; its hr_10 on test is 0.1, so its hr_5 is 0.06."""
    config, choices = composed(*words)
    settings = {
        "config": config | {"seed": 0, "trainer.metric": "ndcg_10"},
        "choices": choices,
        "test": 0.1,
    } | more
    return write(folder, **settings, split=choices["split"])


def test_a_match_fills_the_table_of_the_report(tmp_path):
    written(tmp_path / "s" / "a", GENNI, run_id="a", epochs=60, best_epoch=15)
    folder = tmp_path / "r"
    made = report.write(runs.find(tmp_path, None, ["a"]), folder, formats="md")
    (section,) = made.sections
    assert section.reported is not None
    first = [entry.text for entry in section.reported.rows[0].entries]
    # Printed: 6.30 ± 0.09.
    assert first == [
        *("genni", "genni, table 1: genni_sa", "HR@5", "6.30", "6.00", "−0.30", "1", "(1)"),
    ]
    assert section.reported.rows[0].entries[3].spread == "± 0.09"
    # The cell and the source stand in the first row of a table only.
    assert [entry.text for entry in section.reported.rows[1].entries[:3]] == ["", "", "HR@10"]
    assert section.reported.notes[0].startswith("(1) ")
    assert "alpha was tuned for each data set" in section.reported.notes[0]
    assert section.remarks[-1].startswith("Source: ")
    assert "arXiv:2208.03645" in section.remarks[-1]
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "### Reported against measured" in text
    assert "| 6.30 ± 0.09 | 6.00 | −0.30 |" in text


def test_a_table_that_only_looks_alike_is_named(tmp_path):
    words = ["experiment=apple_code", "dataset=beauty", "sampler=uniform"]
    run = runs.read(written(tmp_path / "s" / "a", words))
    assert run is not None
    (comparison,) = sort([run]).comparisons
    table, remarks = reported_table.reported_table(comparison)
    assert table is None
    assert remarks == (
        "Apple's table 3 is not comparable: the paper's Beauty is all ratings, dataset=beauty "
        "those of the 5-core.",
    )
