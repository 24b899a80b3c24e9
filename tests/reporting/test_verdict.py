"""The stated rule, case by case."""

import pytest

from negrec.reporting import cells, runs, verdict
from tests.reporting.fake_runs import write


@pytest.fixture
def compare(tmp_path):
    """A comparison of cells, each a sampler with settings and a validation value per seed."""

    def make(**samplers):
        found = []
        for sampler, (values, settings) in samplers.items():
            for seed, value in enumerate(values):
                folder = tmp_path / f"{sampler}-{seed}"
                given = {"test": value} | settings
                run = runs.read(write(folder, sampler=sampler, seed=seed, valid=value, **given))
                assert run is not None
                found.append(run)
        (comparison,) = cells.sort(found).comparisons
        return comparison

    return make


def decide(comparison, metric="hr_10"):
    return verdict.decide(comparison.cells, metric)


# Differences to genni of 1, 2, 3 points: t = 2 / (1 / sqrt(3)) = 3.46 with 2 degrees of freedom,
# p = 1 - t / sqrt(t^2 + 2) = 0.074, within noise. Of 2.9, 3.0, 3.1: t = 51.96, p = 0.00037.
GENNI = [0.10, 0.11, 0.12]
NEAR = [0.09, 0.09, 0.09]
FAR = [0.071, 0.080, 0.089]


def test_the_best_on_validation_leads_and_the_cheaper_within_noise_is_named(compare):
    found = decide(
        compare(
            uniform=(FAR, {"epoch_seconds": 1.0}),
            adaptive=(NEAR, {"epoch_seconds": 2.0}),
            genni=(GENNI, {"epoch_seconds": 4.5}),
        )
    )
    assert [judged.cell.label for judged in found.ranked] == ["genni", "adaptive", "uniform"]
    assert found.recommended is not None
    assert found.recommended.label == "genni"
    assert found.ranked[0].p is None
    assert found.ranked[1].p == pytest.approx(0.0742, abs=1e-4)
    assert found.ranked[2].p == pytest.approx(2 * 0.00037, abs=1e-5)  # Holm's
    # uniform is cheaper still, but worse. adaptive: 2.5 s per epoch against 5. The sd of
    # 10, 11, 12 is 1; head, mid, tail at 2, 0.7, 0.3 of the whole: Gini = 2 (1.3 + 1.7 + .4) / 18.
    assert found.sentence == (
        "Use genni: HR@10 11.00 ± 1.00 %, balance 62.2, 5.0 s per epoch; "
        "adaptive is within noise and costs half."
    )
    assert found.notes == ()


def test_the_choice_never_looks_at_test(compare):
    found = decide(
        compare(
            genni=(GENNI, {"test": 0.02}),
            adaptive=(NEAR, {"test": 0.9}),
        )
    )
    assert found.recommended is not None
    assert found.recommended.label == "genni"


def test_all_others_worse_is_said(compare):
    found = decide(compare(genni=(GENNI, {}), uniform=(FAR, {})))
    assert found.sentence.endswith("uniform is worse beyond noise.")
    assert found.cheaper is None


def test_a_cell_within_noise_that_is_hardly_cheaper_is_not_recommended_for_its_cost(compare):
    # 4 + 0.5 against 4.5 + 0.5 seconds: 90 %.
    found = decide(
        compare(genni=(GENNI, {"epoch_seconds": 4.5}), adaptive=(NEAR, {"epoch_seconds": 4.0}))
    )
    assert found.cheaper is None
    assert found.sentence.endswith("; adaptive is within noise.")


def test_times_of_different_machines_are_not_compared(compare):
    found = decide(
        compare(
            genni=(GENNI, {"epoch_seconds": 4.5, "config": {"trainer.threads": 2}}),
            adaptive=(NEAR, {"epoch_seconds": 1.0}),
        )
    )
    assert found.cheaper is None
    assert any("different hardware or threads" in note for note in found.notes)


def test_one_seed_makes_no_test(compare):
    found = decide(compare(genni=([0.1], {}), uniform=([0.01], {})))
    assert found.ranked[1].p is None
    assert not found.ranked[1].within_noise
    assert found.sentence == (
        "Use genni: HR@10 10.00 %, balance 62.2, 2.5 s per epoch; "
        "one seed, so no test: nothing says that its lead is more than noise."
    )


LATE = {"epochs": 4, "best_epoch": 4}  # still improving when its training ended


def test_what_is_ahead_and_still_improving_leaves_no_recommendation(compare):
    # in_batch collapsed: best at epoch 1. genni's mean of 11 % is above its 9 %, and may rise.
    found = decide(
        compare(
            in_batch=(NEAR, {"epochs": 10, "best_epoch": 1}),
            genni=(GENNI, {"epochs": 10, "best_epoch": 10}),
            uniform=(FAR, {"epochs": 10, "best_epoch": 5}),
        )
    )
    assert found.recommended is None
    assert found.cheaper is None
    assert found.sentence == (
        "No recommendation yet: genni, still improving after 10 epochs, is already ahead of the "
        "best converged one (in_batch); train longer (trainer.max_epochs=20)."
    )
    # The order is a look, without a test; what has not converged stands in it.
    assert [judged.cell.label for judged in found.ranked] == ["genni", "in_batch", "uniform"]
    assert all(judged.p is None for judged in found.ranked)
    assert found.notes == ()  # the sentence says it all


def test_several_ahead_are_named_the_best_first_and_one_behind_is_not(compare):
    found = decide(
        compare(
            in_batch=(NEAR, {}),
            genni=(NEAR, LATE),  # as good, and it ends no lower
            adaptive=(GENNI, {"epochs": 6, "best_epoch": 6}),
            uniform=(FAR, LATE),
        )
    )
    assert found.sentence == (
        "No recommendation yet: adaptive and genni, still improving after 4 to 6 epochs, are "
        "already ahead of the best converged one (in_batch); train longer (trainer.max_epochs=12)."
    )


def test_one_run_that_was_still_improving_is_enough(compare):
    comparison = compare(genni=(GENNI[:2], {}), uniform=(FAR, {}))
    one = compare(genni=([0.0, 0.0, 0.12], LATE)).cells[0].runs[2]
    cell = cells.Cell("genni", (*comparison.cell("genni").runs, one))
    found = verdict.decide([cell, comparison.cell("uniform")], "hr_10")
    assert found.recommended is None
    assert found.notes[0] == "Still improving in the last epoch: genni (1 of 3 runs)."


def test_what_is_behind_and_still_improving_is_named_beside_the_recommended(compare):
    found = decide(compare(genni=(GENNI, {}), adaptive=(NEAR, LATE), uniform=(FAR, {})))
    assert [judged.cell.label for judged in found.ranked] == ["genni", "uniform"]
    assert [cell.label for cell in found.unconverged] == ["adaptive"]
    assert found.recommended is not None
    assert found.sentence.startswith("Use genni: ")
    assert found.sentence.endswith(
        "; uniform is worse beyond noise; adaptive, behind it, was still improving after 4 epochs."
    )
    # Where it is the only other one it is all that is said of the others.
    alone = decide(compare(genni=(GENNI, {}), adaptive=(NEAR, LATE)))
    assert alone.sentence.endswith(
        "per epoch; adaptive, behind it, was still improving after 4 epochs."
    )


def test_where_none_has_converged_there_is_a_look_and_no_ranking(compare):
    found = decide(compare(uniform=(FAR, LATE), genni=(GENNI, LATE)))
    assert found.recommended is None
    assert found.sentence == (
        "No recommendation yet: no cell has converged, all were still improving after 4 epochs; "
        "train longer (trainer.max_epochs=8). A look at validation so far, no ranking: genni, "
        "uniform."
    )
    alone = decide(compare(uniform=(FAR, LATE)))
    assert alone.sentence == (
        "No recommendation yet: uniform, the only cell, was still improving after 4 epochs; train "
        "longer (trainer.max_epochs=8)."
    )
    assert alone.notes == ()


def test_worse_than_the_popularity_ranker_is_not_to_be_deployed(compare):
    found = decide(compare(genni=(GENNI, {"test": 0.01, "popularity": 0.011}), uniform=(FAR, {})))
    assert not found.deployable
    assert (
        "worse than the popularity ranker: do not deploy (HR@10 1.00 ± 0.00 % against 1.10 %)"
        in (found.sentence)
    )
    late = LATE | {"test": 0.01, "popularity": 0.011}
    found = decide(compare(genni=(GENNI, late), uniform=(FAR, LATE)))
    assert found.sentence.endswith(
        "On test genni is so far worse than the popularity ranker: do not deploy."
    )
    assert "Use " not in found.sentence
    # The popularity ranker's value is no better than one that it equals.
    assert not decide(compare(genni=(GENNI, {"test": 0.011, "popularity": 0.011}))).deployable


def test_different_numbers_of_trials_are_said(compare):
    found = decide(compare(genni=(GENNI, {"trials": 20}), uniform=(FAR, {"trials": 0})))
    assert found.notes == (
        "Ranked, but tuned with different numbers of trials: genni 20 trials and uniform 0 trials. "
        "More tuning alone can make a cell look better.",
    )
    same = decide(compare(genni=(GENNI, {"trials": 40}), uniform=(FAR, {"trials": 40})))
    assert not same.notes


def test_published_values_are_not_untuned_ones(compare):
    # As `experiment=genni` chooses conf/tuned/genni/beauty/genni.yaml, and a sweep's own file is
    # conf/tuned/beauty/uniform.yaml.
    theirs = {"choices": {"experiment": "genni", "tuned": "genni/beauty/genni"}}
    own = {"trials": 20, "choices": {"tuned": "beauty/uniform"}}
    found = decide(compare(genni=(GENNI, theirs), uniform=(FAR, own)))
    assert found.notes == (
        "Ranked, but tuned with different numbers of trials: genni as published (experiment genni, "
        "trials unknown) and uniform 20 trials. More tuning alone can make a cell look better.",
    )
    other = {"choices": {"experiment": "genni", "tuned": "genni/beauty/uniform"}}
    assert decide(compare(genni=(GENNI, theirs), uniform=(FAR, other))).notes == ()
    untuned = {"choices": {"tuned": "beauty/uniform"}}
    assert (
        "uniform 0 trials" in decide(compare(genni=(GENNI, own), uniform=(FAR, untuned))).notes[0]
    )


def test_what_trained_nothing_cannot_be_chosen(compare):
    found = decide(compare(genni=(GENNI, {}), poprec=(FAR, {"epochs": 0, "best_epoch": 0})))
    assert [cell.label for cell in found.untrained] == ["poprec"]
    assert [judged.cell.label for judged in found.ranked] == ["genni"]
    assert found.sentence == (
        "genni is alone: HR@10 11.00 ± 1.00 %, balance 62.2, 2.5 s per epoch; there is nothing to "
        "compare it with."
    )
    nothing = decide(compare(poprec=(FAR, {"epochs": 0, "best_epoch": 0})))
    assert nothing.recommended is None


def test_baselines_that_are_ahead_of_what_was_trained_are_named(compare):
    free = {"epochs": 0, "best_epoch": 0}
    worse = [0.08, 0.08, 0.08]
    found = decide(compare(genni=(worse, {}), knn=(NEAR, free), markov=(GENNI, free)))
    assert found.notes[0] == (
        "Ahead of genni (0.0800) on validation without any training: markov (0.1100) and knn "
        "(0.0900)."
    )
    behind = decide(compare(genni=(GENNI, {}), poprec=(FAR, free)))
    assert not any("without any training" in note for note in behind.notes)


def test_sampled_ranking_carries_a_warning(compare):
    found = decide(compare(genni=(GENNI, {"config": {"evaluation.sampled": 100}})))
    assert any(note.startswith("WARNING: ranked among 100 random items") for note in found.notes)


def test_different_k_meets_at_equal_training_seconds(compare):
    # genni needs 4 s an epoch and is best in the third, at 12 s; in_batch trains 4 epochs of 1 s.
    # Within T = 4 s genni has (1 - e^-1) / (1 - e^-3) = 0.665 of its best: 0.073 < 0.09.
    comparison = compare(
        genni=(GENNI, {"epoch_seconds": 4.0, "k": 1}),
        in_batch=(NEAR, {"epoch_seconds": 1.0, "k": 256}),
    )
    answer = verdict.answer(comparison, "hr_10")
    assert answer.limit == pytest.approx(4.0)
    assert not answer.one_k
    assert answer.at_equal_k == ()
    assert answer.alone is not None
    assert {judged.cell.label for judged in answer.alone.ranked} == {"genni", "in_batch"}
    reached = {j.cell.label: j.valid.mean for j in answer.at_equal_seconds.ranked}
    assert reached == pytest.approx({"in_batch": 0.09, "genni": 0.11 * 0.66524}, abs=1e-6)
    assert answer.sentence.startswith("Use in_batch")
    assert "1 and 256 negatives per query" in answer.basis


def test_equal_k_answers_by_the_whole_training(compare):
    comparison = compare(
        genni=(GENNI, {"epoch_seconds": 4.0}), uniform=(NEAR, {"epoch_seconds": 1.0})
    )
    answer = verdict.answer(comparison, "hr_10")
    assert answer.one_k
    assert answer.basis == ""
    assert answer.sentence.startswith("Use genni")
