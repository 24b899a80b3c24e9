"""The tables of a report, and the four ways they are written."""

import pytest

from negrec.reporting import cells, comparison_table, grid, runs, significance, verdict
from negrec.reporting.grid import Column, Entry, Grid, Row
from tests.reporting.fake_runs import write


@pytest.fixture
def comparison(tmp_path):
    """genni, adaptive within noise, uniform far behind, mixed behind and still improving."""
    found = []
    for sampler, values in {
        "genni": [0.10, 0.11, 0.12],
        "adaptive": [0.09, 0.09, 0.09],
        "uniform": [0.041, 0.050, 0.059],
        "mixed": [0.2, 0.2, 0.2],
    }.items():
        for seed, value in enumerate(values):
            folder = tmp_path / f"{sampler}-{seed}"
            best = 4 if sampler == "mixed" else 3
            run = runs.read(
                write(
                    folder,
                    sampler=sampler,
                    seed=seed,
                    valid=0.085 if sampler == "mixed" else value,
                    test=value,
                    best_epoch=best,
                    oracle=0.3,
                )
            )
            assert run is not None
            found.append(run)
    return cells.sort(found).comparisons[0]


@pytest.fixture
def table(comparison):
    return comparison_table.comparison_table("t", verdict.decide(comparison.cells, "hr_10"), 10)


def column(table, name):
    """The entries of a column, by the row's first entry."""
    at = [column.name for column in table.columns].index(name)
    return {row.entries[0].text: row.entries[at] for row in table.rows}


def test_best_is_bold_and_what_no_test_tells_from_it_has_a_dagger(table):
    hr = column(table, "HR@10, % total")
    assert hr["genni"] == Entry("11.00", "± 1.00", best=True)
    # Differences of 1, 2, 3 points: p = 0.074 (see test_verdict.py).
    assert hr["adaptive"] == Entry("9.00", "± 0.00", mark="†")
    # Of 5.9, 6.0, 6.1: beyond doubt.
    assert hr["uniform"] == Entry("5.00", "± 0.90")
    # Twice as much on test, and still improving: neither bold nor compared.
    assert hr["mixed"] == Entry("20.00", "± 0.00")


def test_cohorts_references_and_support(table):
    # Head, mid and tail have 2, 0.7 and 0.3 of the whole.
    for part, factor in (("head", 2), ("mid", 0.7), ("tail", 0.3)):
        assert column(table, f"HR@10, % {part}")["genni"].text == f"{11 * factor:.2f}"
    hr, balance = column(table, "HR@10, % head"), column(table, "balance@10, % of runs, mean")
    assert hr["popularity ranker"].text == "2.00"  # 0.01 in all
    assert hr["oracle"].text == "60.00"
    assert hr["test targets"].text == "20"  # a third of 60
    # One group gets everything.
    assert balance["popularity ranker"].text == "33.33"
    # 1 - Gini(2, .7, .3) = 1 - 2 (1.3 + 1.7 + .4) / (2 * 9 * 1)
    assert balance["genni"].text == "62.22"
    assert column(table, "balance@10, % of mean rates")["genni"].text == "62.22"


def test_cost_and_order(table):
    labels = [row.entries[0].text for row in table.rows]
    assert labels == [
        *("genni", "adaptive", "uniform", "mixed"),
        *("popularity ranker", "oracle", "test targets"),
    ]
    assert [row.quiet for row in table.rows] == [False] * 3 + [True] * 4
    assert column(table, "training s per epoch")["genni"].text == "2.5"
    assert column(table, "training s in all")["genni"].text == "10.0"
    assert column(table, "training epochs")["genni"].text == "4"
    assert any("mixed (3 of 3 runs)" in note for note in table.notes)


def test_runs_without_balance_are_counted(tmp_path):
    found = [
        runs.read(write(tmp_path / str(seed), seed=seed, test=test))
        for seed, test in enumerate([0.0, 0.1, 0.1])
    ]
    (comparison,) = cells.sort([run for run in found if run is not None]).comparisons
    made = comparison_table.comparison_table("t", verdict.decide(comparison.cells, "hr_10"), 10)
    assert column(made, "balance@10, % of runs, mean")["uniform"].text == "62.22"
    assert any("without a balance (no hit in any cohort): uniform 1" in n for n in made.notes)


def test_one_seed_has_no_signs(tmp_path):
    found = [
        runs.read(write(tmp_path / sampler, sampler=sampler, test=test, valid=test))
        for sampler, test in (("genni", 0.2), ("uniform", 0.1))
    ]
    (comparison,) = cells.sort([run for run in found if run is not None]).comparisons
    made = comparison_table.comparison_table("t", verdict.decide(comparison.cells, "hr_10"), 10)
    hr = column(made, "HR@10, % total")
    assert hr["genni"] == Entry("20.00", best=True)
    assert hr["uniform"] == Entry("10.00")
    assert any("With one seed there is no test" in note for note in made.notes)


def test_statistics_say_cell_minus_best(comparison):
    decided = verdict.decide(comparison.cells, "hr_10")
    interval = significance.Interval(-0.02, -0.03, -0.01, 60, 3)
    made = comparison_table.statistics_table("t", decided, {"adaptive": interval}, 500)
    # The cell's name stands in its first row only.
    valid, test = made.rows[:2]
    assert [entry.text for entry in valid.entries[:4]] == ["adaptive", "validation", "3", "−2.00"]
    # 2 +- t(0.975, 2) / sqrt(3) = 2 +- 4.3027 * 0.57735 = 2 +- 2.484
    assert valid.entries[4].text == "[−4.48, +0.48]"
    assert [entry.text for entry in valid.entries[5:]] == [
        *("paired t", "0.074", "0.074", "", "−2.00", "")
    ]
    assert [entry.text for entry in test.entries] == [
        *("", "test", "3", "−2.00", "[−4.48, +0.48]", "paired t"),
        *("0.074", "0.074", "", "−2.00", "[−3.00, −1.00]"),
    ]
    assert len(made.rows) == 4
    assert "500 times" in made.notes[0]


def test_equal_seconds_show_validation_and_say_so(comparison):
    answer = verdict.answer(comparison, "hr_10")
    made = comparison_table.equal_seconds_table(answer)
    # All train 8 s, so each has its best: nothing is cut off.
    within = column(made, "validation NDCG@10 within 8.0 s, %")
    assert within["genni"] == Entry("11.00", "± 1.00", best=True)
    assert within["adaptive"].mark == "†"
    assert within["mixed"] == Entry("8.50", "± 0.00")
    assert "this view shows validation" in made.notes[0]


NASTY = Grid(
    "50 % of a_b & <c>",
    (Column("m|n", align="left"), Column("x_1", "g"), Column("y", "g")),
    (
        Row((Entry("a*b|c_d"), Entry("1.00", "± 0.10", best=True), Entry("2.00", mark="†"))),
        Row((Entry("[red]"), Entry(), Entry("−3 #4 {5} \\6")), begins=True, quiet=True),
    ),
    ("p < 0.05 | $n$ ~ ^",),
)


def test_markdown_ends_no_cell_early():
    lines = grid.markdown(NASTY).splitlines()
    assert lines[0] == "**50 % of a\\_b & \\<c>**"
    assert lines[2:6] == [
        "| m\\|n | g x\\_1 | g y |",
        "| :--- | ---: | ---: |",
        "| a\\*b\\|c\\_d | **1.00** ± 0.10 | 2.00† |",
        "| *\\[red\\]* |  | *−3 #4 {5} \\\\6* |",
    ]


def test_latex_is_escaped():
    text = grid.latex(NASTY, "tab:x")
    assert r"\caption{50 \% of a\_b \& $<$c$>$}" in text
    assert r"& \multicolumn{2}{c}{g} \\" in text
    assert r"\cmidrule(lr){2-3}" in text
    assert r"a*b$|$c\_d & \textbf{1.00} {\scriptsize $\pm$ 0.10} & 2.00$^\dagger$ \\" in text
    assert r"\midrule" + "\n" + r"[red] &  & $-$3 \#4 \{5\} \textbackslash{}6 \\" in text
    assert r"p $<$ 0.05 $|$ \$n\$ \textasciitilde{} \textasciicircum{}" in text
    assert text.count(r"\begin{tabular}{lrr}") == text.count(r"\end{tabular}") == 1


def test_the_terminal_shows_text_as_it_is():
    from rich.console import Console

    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(grid.terminal(NASTY))
    console.file.close()
    text = console.export_text()
    assert "[red]" in text
    assert "2.00†" in text
    assert "± 0.10" not in text


def test_a_row_must_fill_its_columns():
    with pytest.raises(ValueError, match="1 entries for 2 columns"):
        Grid("", (Column("a"), Column("b")), (Row((Entry("x"),)),))
