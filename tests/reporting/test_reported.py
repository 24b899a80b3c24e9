import math
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from negrec import identity
from negrec.commandline.configuration import conf_dir
from negrec.reporting import reported
from negrec.reporting.runs import Run

SETTING = "in what was published"  # of every sentence about a setting that differs
GENNI = ["experiment=genni", "dataset=beauty"]
CELLS = {  # what reproduces a row, by paper, table, model and setting
    ("genni", "table 1", "genni_sa", ""): GENNI,
    ("genni", "table 1", "sasrec", ""): [*GENNI, "sampler=uniform", "sampler.exclude=history"],
    ("genni", "table 1", "sasrec_pop", ""): [
        *(*GENNI, "sampler=popularity", "sampler.exclude=history"),
    ],
    ("genni", "table 2", "genni_sa", "beta=0.1"): [*GENNI, "beta=0.1"],
    ("genni", "table 2", "genni_sa", "m=20"): [*GENNI, "beta=0.1", "sampler.grow=20"],
    ("gsasrec", "table 3", "gsasrec", ""): ["experiment=gsasrec"],
    ("gsasrec", "table 3", "sasrec", ""): ["experiment=gsasrec", "loss=bce", "k=1"],
    ("gsasrec", "table 3", "sasrec_softmax", ""): [
        *("experiment=gsasrec", "loss=softmax", "sampler=full"),
    ],
    ("gsasrec", "text of section 6 and repository readme", "sasrec", "k=256 gbce t=1"): [
        *("experiment=gsasrec", "t=1.0"),
    ],
    ("ufnrec", "table 2", "sasrec+ufn", ""): ["experiment=ufnrec", "dataset=sports"],
    ("ufnrec", "table 2", "sasrec", ""): [
        *("experiment=ufnrec", "dataset=yelp", "objective=ranking"),
        "sampler/false_negatives=none",
    ],
    ("s3rec", "repository, full ranking", "sasrec", ""): [
        *(*GENNI, "sampler=uniform", "sampler.exclude=history", "trainer.patience=10"),
    ],
}


@cache
def composed(*words: str) -> tuple[dict[str, object], dict[str, str]]:
    """The flat configuration and the options chosen."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [*words], return_hydra_config=True)
    return identity.part_of_the_result(cfg), dict(cfg.hydra.runtime.choices)


def run(words: list[str], dataset: str | None = None, **more: object) -> Run:
    """A finished run of a configuration, whose every metric is 0.05.

    Args:
        words: behind ``negrec train``.
        dataset: an option that is not shipped, in place of the one chosen.
        more: other fields.
    """
    config, choices = map(dict, composed(*words))
    if dataset is not None:
        choices["dataset"] = dataset
        config |= {"dataset.name": dataset, "dataset.path": f"{dataset}.parquet"}
    names = {row.measured_as for row in reported.rows() if row.measured_as}
    fields = {
        "config": config,
        "choices": choices,
        "metrics": dict.fromkeys(names, 0.05),
        "epochs": 300,
        "best_epoch": 50,
        "converged": True,
    }
    hashes = dict.fromkeys(("run_id", "key", "data_hash", "split_hash", "version"), "x")
    given = {"folder": Path(), "status": "FINISHED", "git_commit": None, "sweep": None, "trials": 0}
    return Run(**(given | hashes | fields | more))


def found(words: list[str], **more: object) -> dict[tuple[str, ...], reported.Match]:
    rows = reported.matches([run(words, **more)])
    return {(m.reported.paper, m.reported.table, m.reported.metric): m for m in rows}


def test_every_row_is_a_number_of_a_cited_paper():
    rows = reported.rows()
    # Of full tables: Apple's is 3 data sets x 7 methods x 9 columns; GenNi's table 1 is 4 x 10 x 4;
    # UFNRec's tables 2 to 4 are 3 x 6 x 5, 4 x 5 and 7 x 5.
    sizes = Counter((row.paper, row.table) for row in rows)
    assert sizes["apple", "table 3"] == 189
    assert sizes["genni", "table 1"] == 160
    assert [sizes["ufnrec", f"table {i}"] for i in (2, 3, 4)] == [90, 20, 35]
    for row in rows:
        assert row.value >= 0
        assert row.unit == "seconds" or row.value <= 1, row
        assert row.std is None or 0 < row.std < 0.02
        assert "arXiv:" in reported.PAPERS[row.paper].citation or "doi:" in (
            reported.PAPERS[row.paper].citation
        )
        assert row.paper in reported.DATA


def test_units_by_hand():
    def value(*cells: str) -> reported.Reported:
        names = ("paper", "table", "dataset", "model", "setting", "metric")
        (row,) = (row for row in reported.rows() if tuple(getattr(row, n) for n in names) == cells)
        return row

    # Printed: 6.30 ± 0.09 percent; 0.2040; 79.09 percent; 23 minutes; 2.44 seconds per epoch.
    genni = value("genni", "table 1", "beauty", "genni_sa", "", "HR@5")
    assert (genni.value, genni.std) == pytest.approx((0.063, 0.0009))
    assert value("ufnrec", "table 2", "beauty", "sasrec", "", "HR@1").value == 0.2040
    beauty = "beauty (full, timestamps)"
    balance = value("apple", "table 3", beauty, "sasrec", "adaptive", "balance")
    assert balance.value == pytest.approx(0.7909)
    ml_1m = "ml-1m (SASRec version)"
    minutes = value("gsasrec", "table 3", ml_1m, "gsasrec", "", "training minutes")
    assert (minutes.value, minutes.unit) == (23 * 60, "seconds")
    seconds = value("genni", "table 5", "beauty", "sasrec", "", "seconds/epoch (one V100)")
    assert (seconds.value, seconds.unit) == (2.44, "seconds")


def test_names_of_metrics():
    names = {row.metric: row.measured_as for row in reported.rows()}
    assert names["HR@10 tail"] == "test/hr_10_tail"
    assert names["NDCG@5"] == "test/ndcg_5"
    assert names["Recall@1"] == "test/hr_1"  # one target per user
    assert names["balance"] == "test/balance_10"
    unmeasured = {"training minutes", "seconds/epoch (one V100)"}
    assert {name for name, ours in names.items() if ours is None} == unmeasured


def test_every_setup_is_a_row_of_its_table():
    rows = {(row.paper, row.table, row.model, row.setting) for row in reported.rows()}
    for setup in reported.SETUPS:
        for table in setup.tables:
            assert (setup.paper, table, setup.model, setup.setting) in rows
    for paper, sets in reported.DATA.items():
        assert set(sets) <= {row.dataset for row in reported.rows() if row.paper == paper}


def test_genni_on_beauty_stands_beside_table_1():
    runs = [run(GENNI, metrics={"test/hr_5": 0.060 + 0.002 * i}) for i in range(4)]
    (match,) = reported.matches(runs)  # the runs have no other metric
    assert (match.reported.table, match.reported.metric) == ("table 1", "HR@5")
    assert match.metric == "test/hr_5"
    # 6.0, 6.2, 6.4, 6.6: mean 6.3, squared deviations .09 + .01 + .01 + .09 = .20 over 3.
    assert match.measured == pytest.approx(0.063)
    assert match.sd == pytest.approx(math.sqrt(0.20 / 3) / 100)
    assert match.n == 4
    assert match.difference == pytest.approx(0.0, abs=1e-12)
    assert "arXiv:2208.03645" in match.citation


def test_the_difference_is_measured_minus_reported():
    assert found(GENNI)["genni", "table 1", "HR@5"].difference == pytest.approx(0.05 - 0.063)


@pytest.mark.parametrize(("row", "words"), CELLS.items(), ids=lambda x: "-".join(x)[:60])
def test_an_experiment_reproduces_its_row_without_a_known_setting_missed(
    row: tuple[str, ...], words: list[str]
):
    seeds = reported.PAPERS[row[0]].seeds or 1
    rows = [
        match
        for match in reported.matches([run(words)] * seeds)
        if (match.reported.paper, match.reported.model, match.reported.setting)
        == (row[0], row[2], row[3])
    ]
    assert row[1] in {match.reported.table for match in rows}
    for match in rows:
        assert [line for line in match.deviations if SETTING in line or "here, " in line] == [
            *(line for line in reported.PAPERS[row[0]].known if "here, " in line)
        ]


@pytest.mark.parametrize(
    ("sampler", "setting"),
    [
        *((name, name) for name in ("uniform", "popularity", "in_batch", "mixed")),
        ("adaptive_in_batch", "adaptive"),
        ("adaptive_mixed", "adaptive_mixed"),
    ],
)
def test_apple_code_is_what_was_published(sampler: str, setting: str):
    # The data set is no part of negrec: one that a user brings.
    words = ["experiment=apple_code", f"sampler={sampler}"]
    rows = reported.matches([run(words, dataset="retailrocket")])
    assert {match.reported.setting for match in rows} == {setting}
    assert len(rows) == 9
    for match in rows:
        assert not [line for line in match.deviations if SETTING in line]
        assert any("not checked" in line for line in match.deviations)
        assert "1 run here, 20 in the paper" in match.deviations


def test_what_differs_is_told():
    # The command of the README: prenorm, seen items removed, one seed.
    match = found(["dataset=beauty", "sampler=genni", "alpha=2.5"], epochs=100, best_epoch=60)[
        "genni", "table 1", "HR@5"
    ]
    told = [line for line in match.deviations if SETTING in line]
    assert told == [
        "evaluation.seen is filter here, zero in what was published",
        "model.layout is prenorm here, s3rec in what was published",
        "trainer.metric is ndcg_10 here, ndcg_20 in what was published",
    ]
    assert "1 run here, 4 in the paper" in match.deviations


def test_a_run_that_was_cut_short_says_so():
    match = found(GENNI, epochs=50, best_epoch=49)["genni", "table 1", "HR@5"]
    line = "1 run ended by epoch 50, before 40 epochs without a better one"
    assert line in match.deviations
    full = found(GENNI, epochs=59, best_epoch=19)["genni", "table 1", "HR@5"]
    assert not any("ended by" in line for line in full.deviations)


def test_sampled_ranking_and_full_ranking_never_meet():
    for row in reported.rows():
        sampled = reported.PAPERS[row.paper].needs["evaluation.sampled"]
        assert sampled == (100 if "100 sampled" in row.protocol else None)
    full = ["experiment=ufnrec", "dataset=sports", "evaluation.sampled=null"]
    assert not found(full)
    assert not reported.near_misses([run(full)])
    assert not found([*GENNI, "evaluation.sampled=100"])
    assert not found(["experiment=ufnrec", "dataset=sports", "evaluation.sampled=99"])


@pytest.mark.parametrize(
    "word",
    [
        "split=global_temporal",
        "dataset=ml-100k",
        "dataset.path=other.parquet",
        "dataset.min_interactions=10",
        "loss=bpr",
        "k=2",
        "curriculum=true",
        "objective=ranking_with_teacher",
        "sampler=adaptive",
        "scorer.similarity=cosine",
        "beta=0.5",
    ],
)
def test_another_method_or_other_data_has_no_row(word: str):
    group = word.split("=")[0]
    words = [kept for kept in GENNI if kept.split("=")[0] != group]
    assert ("genni", "table 1", "HR@5") in found(GENNI)
    assert not found([*words, word])


def test_one_run_of_another_kind_spoils_the_cell():
    assert not reported.matches([run(GENNI), run([*GENNI, "beta=0.1"])])


def test_a_value_is_not_repeated_by_a_later_table():
    rows = reported.matches([run(GENNI)])
    # Table 2 prints HR@5 and NDCG@5 of beta = 1 again, table 5 HR@5.
    assert [(m.reported.table, m.reported.metric) for m in rows] == [
        ("table 1", name) for name in ("HR@5", "HR@10", "NDCG@5", "NDCG@10")
    ]
    # Where the paper contradicts itself both stand there: Yelp, 5.25 and 2.27.
    rows = reported.matches([run(["experiment=genni", "dataset=yelp"])])
    assert [m.reported.value for m in rows if m.reported.metric == "HR@5"] == pytest.approx(
        [0.0525, 0.0227]
    )


def test_a_metric_that_is_no_number_is_left_out():
    assert not found(GENNI, metrics={"test/hr_5": math.nan})


def test_the_popularity_ranker_has_rows_of_its_own():
    rows = found(["model=popularity", "dataset=beauty", "evaluation.seen=zero"], epochs=0)
    assert ("s3rec", "repository, full ranking", "HR@10") in rows
    assert {m.reported.model for m in rows.values()} == {"poprec"}
    assert not any(m.deviations for m in rows.values())  # nothing was trained


def test_tables_about_other_data_are_named_and_not_compared():
    apple = ["experiment=apple_code", "sampler=mixed", "dataset=beauty"]
    assert not found(apple)
    (line,) = reported.near_misses([run(apple)])
    assert line == (
        "Apple's table 3 is not comparable: the paper's Beauty is all ratings, dataset=beauty "
        "those of the 5-core"
    )
    (line,) = reported.near_misses([run(["experiment=ufnrec"])])
    assert "52,024 users" in line
    (*lines,) = reported.near_misses([run(["experiment=gsasrec", "dataset=ml-1m"])])
    assert all("3,416 items" in line for line in lines)
    assert lines
    assert not reported.near_misses([run(GENNI)])
