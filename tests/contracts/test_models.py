"""What every model of conf/model must obey."""

import copy
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from negrec.data.sequences import Sequences
from negrec.evaluation.evaluator import Evaluator
from negrec.losses.bce import BCE
from negrec.objectives.ranking import Ranking
from negrec.samplers.uniform import Uniform
from negrec.training.checkpoint import Checkpoints
from negrec.training.trainer import Trainer
from negrec.types import Batch, HeldOut
from tests import toy

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
V = 30


def config(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [f"model={name}", *overrides])


def build(name, *overrides, max_length=8):
    cfg = config(name, *overrides)
    torch.manual_seed(0)
    return instantiate(cfg.model)(toy.info(V, max_length=max_length))


def trained(name):
    """Whether the model has anything to train."""
    return any(True for _ in build(name).parameters())


TRAINED = [name for name in NAMES if trained(name)]


def of_histories(histories):
    """A batch for inference."""
    rows = toy.jagged(histories)
    none = torch.empty(0, dtype=torch.int64)
    position = torch.arange(len(rows.values)) - rows.offsets[rows.row]
    user = torch.arange(len(rows))
    return Batch(user, rows.values, position, rows.offsets, query=none, target=none)


@pytest.mark.parametrize("name", NAMES)
def test_the_future_does_not_change_the_past(name):
    model = build(name).eval()
    one = model(toy.batch([[1, 2, 3, 4, 5]], max_length=8)).hidden
    # Positions count from the end, so only a batch with as many items can be compared.
    other = model(toy.batch([[1, 2, 3, 9, 7]], max_length=8)).hidden
    torch.testing.assert_close(one[:3], other[:3])


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_around_a_sequence_changes_nothing(name):
    model = build(name).eval()
    histories = toy.random_histories(20, V, 8)
    together = model.represent(of_histories(histories))
    for i, history in enumerate(histories):
        alone = model.represent(of_histories([history]))[0]
        torch.testing.assert_close(together[i], alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_represent_is_the_state_of_the_last_query(name):
    model = build(name).eval()
    batch = toy.batch([[1, 2, 3, 4], [5, 6, 7]])
    queries = model(batch)
    last = torch.tensor([2, 4])
    torch.testing.assert_close(
        model.represent(of_histories([[1, 2, 3], [5, 6]])), queries.hidden[last]
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_user_with_one_interaction_is_served(name):
    assert build(name).eval().represent(of_histories([[4]])).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_round_trip(name):
    model = build(name).eval()
    twin = build(name, "seed=1").eval()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    twin.load_state_dict(copy.deepcopy(model.state_dict()))
    batch = of_histories([[1, 2, 3]])
    assert torch.equal(model.represent(batch), twin.represent(batch))


@pytest.mark.parametrize("name", NAMES)
def test_another_dtype(name):
    model = build(name).eval()
    batch = of_histories(toy.random_histories(5, V, 8))
    single = model.represent(batch)
    double = model.double().represent(batch)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_a_cycle_is_learnt(name, tmp_path):
    # Every user walks 1, 2, ..., 30, 1, ... from a start of their own.
    histories = [[(start + i) % V + 1 for i in range(9)] for start in range(V)] * 3
    train = toy.jagged([h[:-1] for h in histories])
    model = build(name, "model.dropout=0.1")
    info = toy.info(V, counts=[1] * V)
    sequences = Sequences(train, 8, instantiate(config(name).targets))
    objective = Ranking(info, sequences, lambda i: Uniform(i, k=16, share="batch"), BCE())
    flat = toy.jagged(histories)
    held_out = HeldOut(
        user=torch.arange(len(histories)),
        target=torch.tensor([h[-1] for h in histories]),
        items=flat.values,
        start=flat.offsets[:-1],
        end=flat.offsets[1:] - 1,
    )
    evaluator = Evaluator(held_out, info)
    trainer = Trainer(
        sequences,
        seed=0,
        max_epochs=120,
        batch_size=30,
        evaluate_every=20,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
        threads=1,
        progress=False,
    )
    fit = trainer.fit(
        model,
        objective,
        Checkpoints(tmp_path),
        lambda model: evaluator(model).metrics,
        lambda metrics, step: None,
    )
    assert fit.best_value > 0.95
