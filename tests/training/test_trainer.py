import logging
import math
import signal
from functools import partial

import pytest
import torch

from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from negrec.embedding import Table, late_rows, look_up
from negrec.errors import InputError
from negrec.losses.bce import BCE
from negrec.models import layers
from negrec.models.sasrec import SASRec
from negrec.objectives.ranking import Ranking
from negrec.samplers.genni import GenNi
from negrec.samplers.in_batch import InBatch
from negrec.samplers.uniform import Uniform
from negrec.training import trainer as trainer_module
from negrec.training.checkpoint import Checkpoints, load
from negrec.training.interruption import InterruptedRunError
from negrec.training.lazy_adam import LazyAdam
from negrec.training.prefetch import Prefetch
from negrec.training.trainer import Trainer, clip, finite
from tests import toy

V = 20
TRAIN = toy.jagged(toy.random_histories(40, V, 8))


class Run:
    """A small training whose validation values are scripted."""

    def __init__(self, folder, values=(), sampler=None, **settings):
        sequences = Sequences(TRAIN, 8, NextItem())
        torch.manual_seed(settings.get("seed", 0))
        self.model = SASRec(toy.info(V), dim=8, dropout=0.5)
        self.objective = Ranking(
            toy.info(V), sequences, sampler or (lambda info: Uniform(info, k=2)), BCE()
        )
        settings = {
            "seed": 0,
            "max_epochs": 4,
            "batch_size": 8,
            "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-2, fused=True),
            "threads": 1,
            "progress": False,
            **settings,
        }
        self.trainer = Trainer(sequences, **settings)
        self.checkpoints = Checkpoints(folder)
        self.values = dict(enumerate(values))
        self.validated = []
        self.logged = {}

    def validate(self, model):
        assert not model.training
        self.validated.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"ndcg_10": self.values.get(len(self.validated) - 1, 0.0)}

    def log(self, metrics, epoch):
        self.logged[epoch] = metrics

    def fit(self):
        return self.trainer.fit(
            self.model, self.objective, self.checkpoints, self.validate, self.log
        )

    def losses(self):
        return [self.logged[epoch]["train/loss"] for epoch in sorted(self.logged)]


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def genni(info):
    return GenNi(info, alpha=1.0, curriculum=True)


def indexed(info):
    return GenNi(info, alpha=1.0, curriculum=True, index="clusters")


def test_the_same_seed_is_the_same_run_to_the_last_bit(tmp_path):
    first, again, other = (
        Run(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    for run in (first, again, other):
        run.fit()
    assert same(first.model.state_dict(), again.model.state_dict())
    assert first.losses() == again.losses()
    assert first.losses() != other.losses()
    assert first.losses()[-1] < first.losses()[0]  # it learns


def test_the_best_epoch_is_kept(tmp_path):
    run = Run(tmp_path, values=[0.1, 0.3, 0.2, 0.3])
    fit = run.fit()
    assert (fit.best_epoch, fit.best_value, fit.epochs) == (1, 0.3, 4)
    assert fit.converged
    assert same(run.model.state_dict(), run.validated[1])
    assert 0 < fit.seconds_to_best < fit.seconds


def test_patience_ends_the_training(tmp_path):
    fit = Run(tmp_path, values=[0.1, 0.3, 0.2, 0.2], patience=2, max_epochs=50).fit()
    assert fit.epochs == 4
    assert fit.converged


def test_a_best_epoch_that_is_the_last_has_not_converged(tmp_path):
    assert not Run(tmp_path, values=[0.1, 0.2, 0.3, 0.4]).fit().converged


def test_validation_every_other_epoch_and_after_the_last(tmp_path):
    run = Run(tmp_path, evaluate_every=2, max_epochs=5)
    run.fit()
    validated = [epoch for epoch, metrics in run.logged.items() if "valid/ndcg_10" in metrics]
    assert validated == [1, 3, 4]


def scarce(info):
    """One target of the batch for everybody: some queries have it in their window."""
    return InBatch(info, k=1)


def test_skipped_queries_are_counted_and_weigh_nothing(tmp_path):
    # Nothing is learnt at a rate of 0, and scores of about 0 cost ln 2 each.
    run = Run(tmp_path, sampler=scarce, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    run.fit()
    skipped = [run.logged[epoch]["train/skipped"] for epoch in range(4)]
    assert min(skipped) > 0
    assert max(skipped) < 1
    assert run.losses() == pytest.approx([math.log(2)] * 4, abs=0.01)


def test_an_epoch_that_skips_every_query_is_an_error(tmp_path):
    # A batch of one sequence has no targets but its own.
    run = Run(tmp_path, sampler=scarce, batch_size=1)
    with pytest.raises(InputError, match="no query of epoch 1 had a valid negative"):
        run.fit()


def by_rows(parameters):
    return LazyAdam(parameters, lr=1e-2, rows="lazy")


SETTINGS = {"plain": {}, "osf=1": {"osf": 1}, "osf=2": {"osf": 2}, "rows": {"optimizer": by_rows}}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("sampler", [None, genni, indexed, scarce])
@pytest.mark.parametrize("cut", [0, 3, 7, 12])
def test_a_run_cut_off_at_any_step_ends_as_if_it_had_not_been(tmp_path, cut, sampler, settings):
    values = [0.1, 0.3, 0.2, 0.25]
    whole = Run(tmp_path / "whole", values, sampler, **settings)
    expected = whole.fit()

    # Checkpoints after every step; the process "dies" before its step number `cut`.
    class DiedError(Exception):
        pass

    broken = Run(tmp_path / "broken", values, sampler, checkpoint_minutes=0.0, **settings)
    forward, calls = broken.objective.forward, []

    def mortal(*args):
        if len(calls) == cut:
            raise DiedError
        calls.append(None)
        return forward(*args)

    broken.objective.forward = mortal
    with pytest.raises(DiedError):
        broken.fit()
    resumed = Run(tmp_path / "broken", sampler=sampler, **settings)
    resumed.values = {
        i: values[len(broken.validated) + i] for i in range(4 - len(broken.validated))
    }
    fit = resumed.fit()
    assert (fit.best_epoch, fit.best_value, fit.epochs) == (
        expected.best_epoch,
        expected.best_value,
        expected.epochs,
    )
    assert same(resumed.model.state_dict(), whole.model.state_dict())
    assert same(resumed.objective.state_dict(), whole.objective.state_dict())
    logged = {**broken.logged, **resumed.logged}
    assert [logged[e]["train/loss"] for e in range(4)] == whole.losses()
    skipped = [metrics["train/skipped"] for _, metrics in sorted(whole.logged.items())]
    assert [logged[e]["train/skipped"] for e in range(4)] == skipped


class Noted(Run):
    """Notes of every step the batch, its negatives and the states that the model gave."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.steps = []
        forward = self.objective.forward

        def noting(model, batch, step):
            outcome = forward(model, batch, step)
            feedback = outcome.feedback
            self.steps.append(
                (step.epoch, batch, feedback.negatives.items, feedback.queries.hidden)
            )
            return outcome

        self.objective.forward = noting


def still(parameters):
    """An optimiser that changes nothing, so that states differ by dropout alone."""
    return torch.optim.Adam(parameters, lr=0.0, fused=True)


def test_a_replayed_batch_keeps_its_negatives_and_not_its_dropout(tmp_path):
    run = Noted(tmp_path, osf=2, max_epochs=6, optimizer=still)
    run.fit()
    assert len(run.steps) == 30
    first = {batch.key: rest for epoch, batch, *rest in run.steps if epoch < 2}
    assert len(first) == 10
    replayed = [step for step in run.steps if step[0] >= 2]
    for _, batch, items, hidden in replayed:
        kept_items, kept_hidden = first[batch.key]
        assert torch.equal(items, kept_items)
        assert hidden.shape == kept_hidden.shape
        assert not torch.equal(hidden, kept_hidden)


def test_a_buffer_that_never_fills_changes_nothing(tmp_path):
    plain, kept = Run(tmp_path / "plain"), Run(tmp_path / "kept", osf=4)  # four epochs
    shorter = Run(tmp_path / "shorter", osf=3)
    for run in (plain, kept, shorter):
        run.fit()
    assert kept.losses() == plain.losses()
    assert same(kept.model.state_dict(), plain.model.state_dict())
    assert shorter.losses()[:3] == plain.losses()[:3]
    assert shorter.losses()[3] != plain.losses()[3]


@pytest.mark.parametrize("place", ["log", "save_best", "save_last"])
def test_no_epoch_is_lost_where_a_run_dies_around_a_checkpoint(tmp_path, place):
    values = [0.1, 0.3, 0.2, 0.25]
    whole = Run(tmp_path / "whole", values)
    expected = whole.fit()

    class DiedError(Exception):
        pass

    broken = Run(tmp_path / "broken", values)
    checkpoints = broken.checkpoints
    owner, name = (broken, "log") if place == "log" else (checkpoints, "save_last")

    def die(*_):
        raise DiedError

    def dying_log(metrics, epoch):
        broken.logged[epoch] = metrics
        if epoch == 1:
            setattr(owner, name, die)
            if place == "log":
                die()

    broken.log = dying_log
    if place == "save_best":
        (checkpoints.folder / "best.tmp").mkdir(parents=True)  # cannot be written
        with pytest.raises(InputError, match=r"cannot write .*\.safetensors"):
            broken.fit()
        (checkpoints.folder / "best.tmp").rmdir()
    else:
        with pytest.raises(DiedError):
            broken.fit()
    resumed = Run(tmp_path / "broken")
    done = resumed.checkpoints.load_last()
    first = 0 if done is None else done.record["epoch"]
    resumed.values = dict(enumerate(values[first:]))
    fit = resumed.fit()
    assert (fit.best_epoch, fit.best_value) == (expected.best_epoch, expected.best_value)
    logged = {**broken.logged, **resumed.logged}
    assert [logged[epoch]["train/loss"] for epoch in range(4)] == whole.losses()


def test_what_an_objective_binds_is_trained_unless_it_is_frozen(tmp_path):
    run = Run(tmp_path)
    bind = run.objective.bind

    def bound(model):
        bind(model)
        run.objective.teacher = torch.nn.Linear(2, 2).requires_grad_(False)
        run.objective.head = torch.nn.Linear(2, 2)

    run.objective.bind = bound
    parameters = []
    make = run.trainer.make_optimizer
    run.trainer.make_optimizer = lambda given: parameters.extend(given) or make(given)
    run.fit()
    assert any(p is run.objective.head.weight for p in parameters)
    assert not any(p is run.objective.teacher.weight for p in parameters)


def test_a_metric_that_is_not_a_number_stops_the_run(tmp_path):
    with pytest.raises(InputError, match=r"trainer\.metric=ndcg_10 is not a number"):
        Run(tmp_path, values=[float("nan")]).fit()


def test_a_damaged_best_checkpoint_is_one_clear_line(tmp_path):
    Run(tmp_path, max_epochs=2, values=[0.2, 0.1]).fit()
    Checkpoints(tmp_path).best.write_bytes(b"torn")
    Checkpoints(tmp_path).previous.unlink()  # of the same epoch
    with pytest.raises(InputError, match="the best checkpoint is damaged"):
        Run(tmp_path, max_epochs=2).fit()


def test_zero_epochs_want_no_more(tmp_path):
    assert Run(tmp_path, max_epochs=0).fit().converged


def test_a_finished_run_goes_on_when_it_may_train_longer(tmp_path):
    whole = Run(tmp_path / "whole", max_epochs=6)
    whole.fit()
    Run(tmp_path / "part", max_epochs=3).fit()
    longer = Run(tmp_path / "part", max_epochs=6)
    longer.fit()
    assert sorted(longer.logged) == [3, 4, 5]
    assert same(longer.validated[-1], whole.validated[-1])


@pytest.fixture
def default_signals():
    """Ctrl-C as on a terminal; a test run in the background may start with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_ignored_signal_stays_ignored(tmp_path, default_signals):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run = Run(tmp_path, max_epochs=1)
    observe = run.objective.observe

    def interrupted(model, feedback):
        observe(model, feedback)
        signal.raise_signal(signal.SIGINT)

    run.objective.observe = interrupted
    assert run.fit().epochs == 1


def test_ctrl_c_saves_between_two_steps(tmp_path, default_signals):
    whole = Run(tmp_path / "whole")
    whole.fit()
    run = Run(tmp_path / "cut")
    observe = run.objective.observe
    seen = []

    def interrupted(model, feedback):
        observe(model, feedback)
        seen.append(None)
        if len(seen) == 7:
            signal.raise_signal(signal.SIGINT)

    run.objective.observe = interrupted
    with pytest.raises(InterruptedRunError) as error:
        run.fit()
    assert error.value.signal == signal.SIGINT
    assert run.checkpoints.load_last().record["step"] == 2  # five steps make an epoch
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = Run(tmp_path / "cut")
    resumed.fit()
    assert resumed.losses() == whole.losses()[1:]


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(tmp_path):
    run = Run(tmp_path)
    forward, calls = run.objective.forward, []

    def poisoned(*args):
        calls.append(None)
        outcome = forward(*args)
        return type(outcome)(outcome.loss * float("nan")) if len(calls) == 8 else outcome

    run.objective.forward = poisoned
    with pytest.raises(InputError, match=r"not finite at epoch 2, step 3 .*last\.safetensors"):
        run.fit()
    assert run.checkpoints.load_last().record["epoch"] == 1
    assert all(t.isfinite().all() for t in run.checkpoints.load_last().part("model").values())


def test_the_same_seed_means_the_same_start_and_order_for_every_sampler(tmp_path):
    runs = [Run(tmp_path / name, sampler=s) for name, s in (("uniform", None), ("genni", genni))]
    users = []
    for run in runs:
        forward, seen = run.objective.forward, []

        def noting(model, batch, step, forward=forward, seen=seen):
            seen.append(batch.user.tolist())
            return forward(model, batch, step)

        run.objective.forward = noting
        users.append(seen)
    assert same(runs[0].model.state_dict(), runs[1].model.state_dict())
    for run in runs:
        run.fit()
    assert users[0] == users[1]


def test_warm_up_and_schedule_set_the_learning_rate(tmp_path):
    run = Run(tmp_path, schedule="linear", warmup_steps=4, max_epochs=2)
    rates = []
    make = run.trainer.make_optimizer

    def watched(parameters):
        optimizer = make(parameters)
        optimizer.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
        return optimizer

    run.trainer.make_optimizer = watched
    run.fit()
    # Ten steps: four of warm-up, then a line from 1 towards 0 over six.
    expected = [0.25, 0.5, 0.75, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert rates == pytest.approx([0.01 * x for x in expected])


def test_a_schedule_may_end_after_the_training(tmp_path):
    run = Run(tmp_path, schedule="linear", schedule_epochs=4, max_epochs=2)
    rates = []
    make = run.trainer.make_optimizer

    def watched(parameters):
        optimizer = make(parameters)
        optimizer.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
        return optimizer

    run.trainer.make_optimizer = watched
    run.fit()
    # The first ten of twenty steps from 1 to 0.
    assert rates == pytest.approx([0.01 * (1 - step / 20) for step in range(10)])


def test_gradients_are_clipped(tmp_path):
    run = Run(tmp_path, clip_norm=1e-3)
    norms = []
    make = run.trainer.make_optimizer

    def watched(parameters):
        optimizer = make(parameters)
        optimizer.register_step_pre_hook(
            lambda *_: norms.append(torch.cat([p.grad.flatten() for p in parameters]).norm())
        )
        return optimizer

    run.trainer.make_optimizer = watched
    run.fit()
    assert max(norms).item() == pytest.approx(1e-3, rel=1e-3)


def test_tables_moved_by_rows_learn_what_they_learn_as_a_whole(tmp_path):
    # Validated, kept and left behind: every time the weights are as they would be.
    def run(name, rows):
        made = Run(
            tmp_path / name,
            [0.1, 0.3, 0.2, 0.2],
            optimizer=lambda p: LazyAdam(p, lr=1e-2, eps=1e-12, rows=rows),
        )
        made.fit()
        return made

    lazy, dense = run("lazy", "lazy"), run("dense", "dense")
    for one, other in zip(lazy.validated, dense.validated, strict=True):
        # Of the table: a bias of keys, say, has no gradient but rounding, which Adam blows up.
        table = "scorer.weight"
        torch.testing.assert_close(one[table], other[table], rtol=0, atol=2e-5)
    assert same(lazy.model.state_dict(), lazy.validated[1])  # the best
    assert lazy.losses() == pytest.approx(dense.losses(), rel=1e-5)
    kept = load(lazy.checkpoints.best).part("model")
    assert same(kept, lazy.validated[1])
    assert late_rows(lazy.model.scorer.weight) is None  # it is its owner's again


def test_gradients_by_rows_are_clipped_by_the_norm_of_their_sums():
    table, matrix = Table(torch.zeros(4, 2)), torch.nn.Parameter(torch.zeros(1, 2))
    optimizer = LazyAdam([table, matrix], rows="lazy")
    # The row's gradients (3, 0) and (0, 4) add up to (3, 4); with (12, 0) the norm is 13.
    weight = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    loss = (look_up(table, torch.tensor([2, 2])) * weight).sum() + 12 * matrix[0, 0]
    loss.backward()
    clip(optimizer, 1.3)
    assert table.grad.to_dense()[2].tolist() == pytest.approx([0.3, 0.4], rel=1e-5)
    assert matrix.grad[0].tolist() == pytest.approx([1.2, 0], rel=1e-5)
    clip(optimizer, 1.4)  # it is smaller by now, and stays
    assert matrix.grad[0, 0].item() == pytest.approx(1.2, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_finite_sees_every_number(bad):
    numbers = torch.zeros(5, 3)
    assert finite(numbers)
    assert finite(numbers[:0])
    numbers[3, 1] = bad
    assert not finite(numbers)


def test_bf16_trains(tmp_path):
    run = Run(tmp_path, precision="bf16")
    run.fit()
    assert run.losses()[-1] < run.losses()[0]
    assert all(p.dtype == torch.float32 for p in run.model.parameters())


def test_bf16_is_the_encoders_and_not_the_scorers(tmp_path, monkeypatch):
    attended, scored = set(), set()
    attend = layers.attend
    monkeypatch.setattr(
        layers, "attend", lambda qkv, *a: attended.add(qkv.dtype) or attend(qkv, *a)
    )
    run = Run(tmp_path, precision="bf16", max_epochs=1, sampler=genni)
    run.objective.observe = lambda model, feedback: scored.update(
        {feedback.queries.hidden.dtype, feedback.scores.negative.dtype, feedback.loss.dtype}
    )
    run.fit()
    assert attended == {torch.bfloat16}
    assert scored == {torch.float32}
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}


def test_an_unknown_metric_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"trainer\.metric=hr_7 .*: choose one of ndcg_10"):
        Run(tmp_path, metric="hr_7").fit()


def test_a_model_without_parameters_trains_zero_epochs(tmp_path):
    run = Run(tmp_path)
    run.model = type("Nothing", (torch.nn.Module,), {})()
    assert run.fit().epochs == 0


def test_an_epoch_is_one_log_line_off_a_terminal(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    Run(tmp_path, values=[0.25], max_epochs=1).fit()
    assert "epoch 1: loss 0." in caplog.text
    assert "valid/ndcg_10 0.2500" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epochs": -1}, "max_epochs must be at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"max_epochs": 1.5}, "max_epochs must be a whole number, got 1.5"),
        ({"osf": 0}, "osf must be at least 1 or null, got 0"),
        ({"osf": 2.5}, "osf must be a whole number, got 2.5"),
        ({"evaluate_every": 0}, "evaluate_every must be at least 1"),
        ({"schedule": "step"}, "schedule must be one of constant, linear, cosine, got 'step'"),
        ({"precision": 16}, "precision must be 32 or bf16, got 16"),
        ({"device": "tpu"}, "device must be auto, cpu, cuda or mps, got 'tpu'"),
        ({"threads": 0}, "threads must be auto or at least 1"),
        ({"clip_norm": 0.0}, "clip_norm must be positive"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0"),
        ({"optimizer": partial(torch.optim.Adam, lr=None)}, "optimizer: "),
        ({"optimizer": partial(torch.optim.Adam, lr=-1.0)}, "optimizer: Invalid learning rate"),
    ],
)
def test_bad_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        Run(tmp_path, **settings)


def test_without_a_metric_nothing_is_validated_and_the_last_epoch_is_kept(tmp_path):
    run = Run(tmp_path, metric=None, patience=1)
    fit = run.fit()
    assert run.validated == []
    assert (fit.epochs, fit.best_epoch, fit.converged) == (4, 3, True)
    assert math.isnan(fit.best_value)
    best = load(run.checkpoints.best)
    assert same(best.part("model"), load(run.checkpoints.last).part("model"))
    assert same(best.part("model"), run.model.state_dict())
    watched = Run(tmp_path / "watched", values=[0, 1, 2, 3])
    watched.fit()
    assert same(watched.model.state_dict(), run.model.state_dict())


class Heads(Ranking):
    """Draws something when it is bound."""

    def bind(self, model):
        self.head = torch.nn.Linear(2, 2)


def test_what_is_bound_does_not_depend_on_what_was_drawn_before(tmp_path):
    heads = []
    for name, seed, drawn in (("a", 0, 1), ("b", 0, 5), ("c", 1, 1)):
        run = Run(tmp_path / name, seed=seed, max_epochs=0)
        run.objective.__class__ = Heads
        torch.rand(drawn)
        run.fit()
        heads.append(run.objective.head.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_batches_made_ahead_change_nothing(tmp_path, monkeypatch):
    plain = Run(tmp_path / "plain", sampler=lambda info: Uniform(info, k=2, exclude="history"))
    plain.fit()
    made = []

    class Ahead(Prefetch):
        def __init__(self, batches, device):
            super().__init__(batches, device, ahead=2)
            made.append(self)

    monkeypatch.setattr("negrec.training.trainer.Prefetch", Ahead)
    ahead = Run(tmp_path / "ahead", sampler=lambda info: Uniform(info, k=2, exclude="history"))
    # Cut off in the second epoch, at a step whose next batches are made: they are made again.
    steps, step = [], trainer_module._Run.step

    def cut(self, *args):
        if len(steps) == 7:
            raise InterruptedError
        steps.append(1)
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module._Run, "step", cut)
        with pytest.raises(InterruptedError):
            ahead.fit()
    ahead.fit()
    assert len(made) > 4
    assert same(ahead.model.state_dict(), plain.model.state_dict())
    assert "history" in made[-1]._asked
