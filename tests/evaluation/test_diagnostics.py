import json
import logging
import types
from dataclasses import replace
from math import log
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from negrec import experiment
from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.data.splits.leave_one_out import LeaveOneOut
from negrec.data.targets import MaskedItem, NextItem
from negrec.errors import InputError
from negrec.evaluation.diagnostics import (
    Diagnostics,
    effective_sample_size,
    percentile,
    poisson_interval,
    rank_percentile,
    some_columns,
    standing,
    whole_histories,
)
from negrec.evaluation.observer import Observer, Scene
from negrec.losses.bce import BCE
from negrec.samplers.uniform import Uniform
from negrec.scoring import FixedScorer
from negrec.training.checkpoint import Checkpoints
from negrec.types import HIDDEN, Batch, Feedback, Negatives, Queries, Step
from tests import toy
from tests.data import made

CONF = Path(__file__).parents[2] / "conf"

# User 1 trains on 1, 2, 3, 4 and takes 5 and 6 later; user 2 the other way round; user 3 has
# nothing held out. Training counts: 2 of items 3 and 4, 1 of the other six.
HISTORIES = {1: [1, 2, 3, 4, 5, 6], 2: [6, 5, 4, 3, 2, 1], 3: [7, 8]}


def scene(folder=Path(), sampler=None, loss=None):
    rows = [(user, item, t) for user, items in HISTORIES.items() for t, item in enumerate(items)]
    data = made.interactions(rows)
    split = LeaveOneOut()(data, max_length=10, seed=0)
    sequences = Sequences(split.train, 10, NextItem())
    return Scene(data, split, sequences, sampler, loss, 0, 1, 4, folder)


def planted(look, **more):
    """A step whose negatives are given: the model scores item i by 9 - i for everybody."""
    batch = Loader(look.sequences, 3, seed=0).batch(torch.arange(3), (0, 0))
    queries = Queries.of(batch, torch.ones(7, 1))
    # Three queries of user 1, three of user 2, and one of user 3, whose own target is 8.
    items = torch.tensor([[5, 7]] * 3 + [[1, 7]] * 3 + [[4, 8]])
    negatives = Negatives(items, **more)
    model = types.SimpleNamespace(scorer=FixedScorer(9 - torch.arange(1.0, 9.0)[:, None]))
    return model, Feedback(queries, negatives, None, torch.zeros(7))


def found(diagnostics, model, feedback):
    diagnostics.seen(model, Step(0, 0), feedback)
    return diagnostics.epoch(model, 0)


def test_hand_computed():
    look = scene(loss=BCE())
    metrics = found(Diagnostics(look), *planted(look))
    # 13 valid negatives: 8 is user 3's target. User 1 takes 5 later, user 2 takes 1: 6 of 13.
    assert metrics["diag/false_negative_rate"] == pytest.approx(6 / 13)
    # Uniform over the 7 items but the target: user 1's three queries have 4, 3 and 2 later items,
    # with 2 valid negatives each 2 * 9/7; user 2 the same, user 3 none: 36/7 expected.
    assert metrics["diag/false_negatives"] == 6
    assert metrics["diag/false_negatives_expected"] == pytest.approx(36 / 7)
    assert metrics["diag/false_negative_lift"] == pytest.approx(7 / 6)
    # Garwood's table for 6: 2.202 to 13.059.
    assert metrics["diag/false_negative_lift_low"] == pytest.approx(2.202 * 7 / 36, abs=1e-3)
    assert metrics["diag/false_negative_lift_high"] == pytest.approx(13.059 * 7 / 36, abs=1e-3)
    # Twelve negatives with count 1 (nothing lower, five ties of seven), one with 2 (six, one).
    assert metrics["diag/mean_count"] == pytest.approx(14 / 13)
    assert metrics["diag/popularity_percentile"] == pytest.approx((12 * 2.5 + 6.5) / 7 / 13)
    # Item i stands above 8 - i of the other seven: 3 * 3 + 6 * 1 + 3 * 7 + 4, over 7 and 13.
    assert metrics["diag/hardness"] == pytest.approx(40 / 91)
    # The slope is sigma(-s+) / 3 with s+ = 7, 6, 5 and 4, 5, 6: below 1e-3 at 7, 6 and 6.
    assert metrics["diag/vanishing"] == pytest.approx(3 / 7)
    assert metrics["diag/distinct"] == pytest.approx(5 / 8)  # 1, 4, 5, 7, 8
    # No density, no truth, not asked for.
    left_out = ("effective_sample_size", "true_lift", "gradient_bias")
    assert not {f"diag/{name}" for name in left_out} & set(metrics)


def test_a_hidden_item_is_its_own_target():
    # User 1 takes 1 to 6, trained on 1 to 4, of which 2 is hidden: later come 3, 4, 5 and 6.
    look = replace(scene(), sequences=Sequences(scene().sequences.train, 10, MaskedItem()))
    batch = Batch(
        user=torch.tensor([0]),
        items=torch.tensor([1, HIDDEN, 3, 4]),
        position=torch.arange(4),
        offsets=torch.tensor([0, 4]),
        query=torch.tensor([1]),
        target=torch.tensor([2]),
    )
    queries = Queries.of(batch, torch.ones(4, 1))
    model = types.SimpleNamespace(scorer=FixedScorer(9 - torch.arange(1.0, 9.0)[:, None]))

    def rates(exclude):
        negatives = Negatives(torch.tensor([[1, 3, 5, 7]]), exclude=exclude)
        feedback = Feedback(queries, negatives, None, torch.zeros(1))
        metrics = found(Diagnostics(look), model, feedback)
        return [metrics[f"diag/false_negative{x}"] for x in ("_rate", "s_expected")]

    # Of four negatives 3 and 5 are taken later; uniform: 4 of the 7 items but 2.
    assert rates("target") == pytest.approx([2 / 4, 4 * 4 / 7])
    # Without the window's 1 to 4 there are 5 and 7; uniform: 5 and 6 of four items.
    assert rates("window") == pytest.approx([1 / 2, 2 * 2 / 4])


def test_an_epoch_starts_anew():
    look = scene(loss=BCE())
    diagnostics = Diagnostics(look)
    first = found(diagnostics, *planted(look))
    again = found(diagnostics, *planted(look))
    assert {**first, "diag/seconds": 0} == {**again, "diag/seconds": 0}
    empty = diagnostics.epoch(planted(look)[0], 1)
    assert empty == {"diag/distinct": 0, "diag/seconds": 0}


def test_what_is_left_out_is_said_in_the_debug_log(caplog):
    caplog.set_level(logging.DEBUG)
    look = scene(loss=BCE())
    found(Diagnostics(look), *planted(look))
    assert "epoch 1 has no diag/effective_sample_size" in caplog.text


def test_a_candidate_that_counts_as_a_positive_is_no_negative():
    look = scene()
    label = torch.tensor([[1, 0]] * 7)  # 7 is all that is left, and nobody takes it later
    metrics = found(Diagnostics(look), *planted(look, label=label))
    assert metrics["diag/false_negative_rate"] == 0
    assert metrics["diag/false_negative_lift_low"] == 0


def test_slots_without_a_candidate_were_not_drawn():
    look = scene()
    present = torch.tensor([[True, False]] * 7)
    metrics = found(Diagnostics(look), *planted(look, present=present))
    assert metrics["diag/distinct"] == pytest.approx(3 / 8)
    assert metrics["diag/false_negative_rate"] == pytest.approx(6 / 7)


def test_no_rate_where_training_is_not_how_histories_begin():
    look = scene()
    look.split.train.values[0] = 8
    assert whole_histories(look) is None
    metrics = found(Diagnostics(look), *planted(look))
    assert "diag/false_negative_rate" not in metrics
    assert "diag/hardness" in metrics


def test_rank_percentile_hand_computed():
    # 3 stands above all three others, 1 above none, a 2 above one and beside one: (1 + 1/2) / 3.
    scores = torch.tensor([[3.0, 1.0, 2.0, 2.0]])
    items = torch.tensor([[1, 2, 3, 4]])
    assert rank_percentile(scores, items).tolist() == [pytest.approx([1, 0, 0.5, 0.5])]


def test_popularity_percentile_hand_computed():
    counts = torch.tensor([5, 1, 5, 2])
    assert percentile(counts).tolist() == pytest.approx([2.5 / 3, 0, 2.5 / 3, 1 / 3])


def test_poisson_interval_against_the_table():
    # Garwood's table, 95 %.
    assert poisson_interval(0) == pytest.approx((0, 3.689), abs=1e-3)
    assert poisson_interval(10) == pytest.approx((4.795, 18.390), abs=1e-3)


def test_effective_sample_size_hand_computed():
    # Weights 1 and 3: 4^2 / (1 + 9) = 1.6 of two. Equal ones: all. One alone says nothing.
    weight = torch.tensor([[0.0, log(3.0), 50.0], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
    valid = torch.tensor([[True, True, False], [True] * 3, [True, False, False]])
    share, several = effective_sample_size(weight, valid)
    assert share.tolist() == pytest.approx([0.8, 1, 0])
    assert several.tolist() == [True, True, False]


def test_a_choice_of_columns_keeps_the_policy_of_each():
    source = toy.batch([[1, 2, 3], [4, 5, 6]])
    queries = toy.queries(source)
    # Columns 0..29 hold an item that the window excludes, 30..99 the same under "none".
    items = torch.ones(1, 100, dtype=torch.int64)
    negatives = Negatives(items, exclude=(("window", 30), ("none", 70)))
    chosen = some_columns(negatives, 40, torch.Generator().manual_seed(0))
    (_, excluded), (_, free) = chosen.policies
    assert excluded + free == 40
    assert 5 < excluded < 20  # 12 of 40 on average
    valid, _ = standing(chosen, queries)
    assert valid[0].tolist() == [False] * excluded + [True] * free  # the first sequence has item 1
    assert valid[-1].all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"looks": 0}, "looks must be a whole number from 1, got 0"),
        ({"queries": 1.5}, r"queries must be a whole number from 1, got 1\.5"),
        ({"epochs": [0]}, r"epochs must be whole numbers from 1, got \[0\]"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Diagnostics(scene(), **settings)


def test_the_gradient_needs_a_sampler():
    with pytest.raises(InputError, match="need an objective with a sampler"):
        Diagnostics(scene(), gradient=True)


def test_looks_are_spread_over_the_epoch():
    look = scene()
    object.__setattr__(look, "steps", 88)
    diagnostics = Diagnostics(look, looks=4)
    assert diagnostics.looks == [11, 33, 55, 77]
    assert Diagnostics(look, looks=500).looks == list(range(88))


def test_another_state_is_not_taken_over():
    diagnostics = Diagnostics(scene())
    diagnostics.restore(Observer().state_dict())  # from a run without diagnostics
    diagnostics.restore({name: torch.zeros(3) for name in diagnostics.state_dict()})
    assert len(diagnostics.drawn) == 8


# ---- in a run

SMALL = [
    "tracking=none",
    "dataset.users=150",
    "dataset.items=60",
    "trainer.max_epochs=2",
    "trainer.batch_size=32",
    "trainer.threads=1",
    "trainer.progress=false",
]


def config(folder, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [*SMALL, f"paths.cache_dir={folder}", *overrides])


def logged(folder):
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [e["values"] for e in events if e["kind"] == "metrics" and e.get("step") is not None]


def without_clocks(metrics):
    return {k: v for k, v in metrics.items() if "seconds" not in k and not k.endswith("_share")}


@pytest.mark.parametrize(
    "overrides",
    [
        ["sampler=uniform"],
        ["sampler=genni", "sampler.curriculum=true"],
        ["sampler=in_batch", "loss=sampled_softmax", "loss.log_q=refined"],
        ["sampler=cross_batch", "trainer.clip_norm=1"],
        ["sampler/false_negatives=reverse", "k=8", "false_negatives.start=0"],
        ["loss=softmax"],
    ],
)
def test_training_is_bit_equal_with_diagnostics_and_without(tmp_path, overrides):
    weights, losses = [], []
    on = ["diagnostics.gradient=true", "diagnostics.users=[7,11]", "diagnostics.epochs=[1,2]"]
    for name, more in (("on", on), ("off", ["diagnostics=none"])):
        folder = tmp_path / name
        folder.mkdir()
        experiment.run(config(tmp_path, *overrides, *more), folder, [])
        state = Checkpoints(folder / "checkpoint").load_last().tensors
        weights.append({k: v for k, v in state.items() if not k.startswith("observer.")})
        metrics = [without_clocks(values) for values in logged(folder)]
        assert any(key.startswith("diag/") for key in metrics[0]) == (name == "on")
        losses.append([{k: v for k, v in m.items() if not k.startswith("diag/")} for m in metrics])
    assert losses[0] == losses[1]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


class Fit:
    """A training whose process may die."""

    class DiedError(Exception):
        pass

    def __init__(self, folder, checkpoints, steps=None):
        cfg = config(folder, "diagnostics.gradient=true", "trainer.checkpoint_minutes=0")
        parts = experiment.build(cfg)
        forward, seen = parts.objective.forward, []

        def mortal(*args):
            if len(seen) == steps:
                raise self.DiedError
            seen.append(None)
            return forward(*args)

        parts.objective.forward = mortal
        self.logged = {}
        parts.trainer.fit(
            parts.model,
            parts.objective,
            Checkpoints(checkpoints),
            lambda _: {"ndcg_10": 0.0},
            lambda metrics, epoch: self.logged.setdefault(epoch, without_clocks(metrics)),
            experiment.observer_of(cfg, parts, folder),
        )


def test_nothing_is_lost_where_an_epoch_is_interrupted(tmp_path):
    whole = Fit(tmp_path, tmp_path / "whole").logged
    assert "diag/gradient_bias" in whole[0]
    # Five steps make an epoch: the process dies in the middle of the second.
    with pytest.raises(Fit.DiedError):
        Fit(tmp_path, tmp_path / "broken", steps=8)
    resumed = Fit(tmp_path, tmp_path / "broken").logged
    assert resumed == {1: whole[1]}


WHOLE_POOL = ("sampler=adaptive", "pool=16", "sampler.base.share=query")


@pytest.mark.parametrize(
    "sampler",
    # The k hardest of k are a uniform draw, of what the policy leaves.
    [(), WHOLE_POOL, (*WHOLE_POOL, "sampler.base.exclude=history")],
    ids=" ".join,
)
def test_uniform_negatives_are_neither_hard_nor_false(tmp_path, sampler):
    cfg = config(tmp_path, *sampler, "k=16", "dataset.users=600", "dataset.items=200")
    (tmp_path / "run").mkdir()
    experiment.run(cfg, tmp_path / "run", [])
    for values in logged(tmp_path / "run"):
        assert values["diag/hardness"] == pytest.approx(0.5, abs=0.04)
        assert values["diag/popularity_percentile"] == pytest.approx(0.5, abs=0.04)
        assert values["diag/false_negative_lift_low"] < 1 < values["diag/false_negative_lift_high"]
        assert values["diag/true_lift"] == pytest.approx(1, abs=0.25)


def test_what_the_truth_likes_is_likely(tmp_path):
    # The true distribution as the model: its hardest negatives are what people take next.
    cfg = config(tmp_path)
    parts = experiment.build(cfg)
    truth = parts.interactions.truth.for_catalogue(parts.split.catalogue)
    diagnostics = experiment.observer_of(cfg, parts, tmp_path)
    batch = next(parts.trainer.loader.epoch(0))
    last = batch.items[batch.query]
    queries = Queries.of(batch, truth.hidden(batch.user[batch.sequence], batch.items))
    seen = torch.zeros(len(last), 60, dtype=torch.bool)
    for n, (user, position) in enumerate(
        zip(queries.user.tolist(), queries.position.tolist(), strict=True)
    ):
        start = int(parts.split.train.offsets[user])
        seen[n, parts.split.train.values[start : start + position + 1] - 1] = True
    chance = truth.log_prob(queries.user, last, seen).exp()
    chance[torch.arange(len(last)), queries.target - 1] = 0
    best = chance.argmax(1)
    own = truth.log_prob(queries.user, last, seen).exp()
    feedback = Feedback(queries, Negatives(best[:, None] + 1), None, torch.zeros(len(last)))
    diagnostics.looks = diagnostics.deep = [0]
    diagnostics.ranked = len(last)
    diagnostics.scene = types.SimpleNamespace(
        **{name: getattr(diagnostics.scene, name) for name in ("seed", "sequences")}, loss=None
    )
    diagnostics.seen(types.SimpleNamespace(scorer=truth.scorer), Step(0, 0), feedback)
    found = diagnostics.epoch(parts.model, 0)
    # A uniform draw but for the target: (1 - P(target)) / 59 each.
    left = 1 - own.gather(1, queries.target[:, None] - 1)[:, 0]
    expected = chance.amax(1).sum() / (left / 59).sum()
    assert found["diag/true_lift"] == pytest.approx(expected.item(), rel=1e-4)
    assert expected > 3


def test_users_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(Exception, match=r"diagnostics\.users: there is no user nobody in"):
        experiment.run(config(tmp_path, "diagnostics.users=[nobody]"), tmp_path, [])
    assert not (tmp_path / "run.json").exists()


def test_a_sampler_of_its_own_is_not_registered_twice():
    look = scene(sampler=Uniform(toy.info(8), k=1), loss=BCE())
    assert set(Diagnostics(look).state_dict()) == {"ratios", "drawn", "seconds", "shared"}


def test_no_number_is_drawn_from_the_streams_of_training():
    look = scene()
    sampler = Uniform(look.split.info, k=2)
    look = scene(sampler=sampler, loss=BCE())
    model, feedback = planted(look)
    step = Step(0, 0, torch.Generator().manual_seed(3))
    own, everybodys = step.generator.get_state(), torch.get_rng_state()
    diagnostics = Diagnostics(look, gradient=True)
    diagnostics.seen(model, step, feedback)
    assert "diag/gradient_cosine" in diagnostics.epoch(model, 0)
    assert torch.equal(step.generator.get_state(), own)
    assert torch.equal(torch.get_rng_state(), everybodys)
