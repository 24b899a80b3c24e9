"""What every model of conf/model must obey."""

import itertools
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from negrec.contracts.base import DoesNotApplyError
from negrec.contracts.models import CONTRACTS, Subject
from negrec.data.sequences import Sequences
from negrec.evaluation.evaluator import Evaluator
from negrec.training.checkpoint import Checkpoints
from negrec.training.trainer import Trainer
from negrec.types import DatasetInfo, HeldOut
from tests import toy

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
TINY = {"dim": 8, "blocks": 1}
UNIFORM = ("sampler=uniform", "k=8")
SOFTMAX = ("sampler=full", "loss=softmax")


@cache
def config(name, *overrides):
    """What a training of the model would be."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [f"model={name}", *(overrides or UNIFORM)])


def resized(name, *overrides, **sizes):
    """The same with other settings of the model, where it has them."""
    cfg = config(name, *overrides).copy()
    for key, value in sizes.items():
        if OmegaConf.select(cfg, f"model.{key}") is not None:
            cfg.model[key] = value
    return cfg


def subject(cfg):
    return Subject(
        instantiate(cfg.model), instantiate(cfg.targets), instantiate(cfg.objective), cfg.window
    )


@pytest.mark.parametrize("contract", CONTRACTS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_contract(name, contract):
    try:
        contract.check(subject(resized(name, **TINY)))
    except DoesNotApplyError as reason:
        pytest.skip(str(reason))


# ---- what is true of the parts that we ship

V, U, L, D = 40, 24, 8, 64  # items, users, length, hidden size: all but D are the contracts' toy's

# A pre-norm block: queries, keys, values 64 * 192 + 192 = 12,480; output 64 * 64 + 64 = 4,160;
# up 64 * 256 + 256 = 16,640; down 256 * 64 + 64 = 16,448; two norms 4 * 64 = 256.
BLOCK = 49_984
# Items 40 * 64 = 2,560, positions 8 * 64 = 512, two blocks 99,968, a norm 128.
SASREC = 103_168
PARAMETERS = {
    "popularity": 0,
    "repeat_last": 0,
    "markov": 0,
    "item_knn": 0,
    # Items 2,560 and biases 40, users 24 * 64 = 1,536.
    "mf": 4_136,
    # Items 2,560; three gates of 64 * 64 for input and state 24,576, two biases of each 384.
    "gru4rec": 27_520,
    # Output 40 * 128 + 40 = 5,160, items 2,560, users 1,536; 16 filters of 1 to 5 rows
    # 16 * 64 * 15 = 15,360, their biases 80; vertical 5 * 4 + 4 = 24;
    # full (4 * 64 + 5 * 16) * 64 + 64 = 21,568.
    "caser": 46_288,
    "sasrec": SASREC,
    # Blocks with two gates 8,320 more, SwiGLU's up 64 * 512 = 32,768 and down 16,384 without
    # biases: 74,368 each. No last norm.
    "ligr": 2_560 + 512 + 148_736,
    # Blocks 64 + 32 wide: 96 * 288 + 288 = 27,936; 9,312; 37,248; 36,960; norms 384: 111,840 each.
    # Items 2,560, users 24 * 32 = 768, positions 8 * 96 = 768, two blocks 223,680, a norm 192.
    "sse_pt": 227_968,
    # Items 2,560, biases 40, hidden item 64, 9 positions 576, two blocks 99,968, the first norm
    # 128, the head 64 * 64 + 64 = 4,160.
    "bert4rec": 107_496,
    # A hidden item.
    "cl4srec": SASREC + 64,
    "duorec": SASREC,
    # A hidden item; a norm before the blocks instead of one behind them.
    "s3rec": SASREC + 64,
    # 4 prototypes and twice 4 biases 768, positions 512, a bias 64, a linear layer 4,160, five
    # norms 640.
    "dssrec": SASREC + 6_144,
    # Addresses 64 * 64 + 64 = 4,160, memory 4,096; the cell: three gates 24,576, biases 384.
    "mminforec": SASREC + 33_216,
}


@pytest.mark.parametrize("name", NAMES)
def test_number_of_parameters(name):
    cfg = config(name)
    chosen = subject(cfg)
    info = chosen.place().info
    assert (info.n_items, info.n_users, info.max_length) == (V, U, L)
    assert cfg.model.get("dim", D) == D
    model = chosen.make(info)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


class Training:
    """A model in training as an experiment would have it, by the real trainer, on a toy."""

    def __init__(self, cfg, histories, folder, max_epochs, seen="keep", **settings):
        train = toy.jagged([history[:-1] for history in histories])
        n_items = max(map(max, histories))
        counts = torch.bincount(train.values - 1, minlength=n_items)
        sequences = Sequences(train, 8, instantiate(cfg.targets), cfg.window)
        self.info = sequences.facts(DatasetInfo(len(histories), n_items, 8, counts, train))
        torch.manual_seed(0)
        self.model = instantiate(cfg.model)(self.info)
        torch.manual_seed(1)
        self.objective = instantiate(cfg.objective)(self.info, sequences)
        self.trainer = Trainer(
            sequences,
            seed=0,
            max_epochs=max_epochs,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=5e-3, fused=True),
            threads=1,
            progress=False,
            **settings,
        )
        self.checkpoints = Checkpoints(folder)
        flat = toy.jagged(histories)
        held_out = HeldOut(
            user=torch.arange(len(histories)),
            target=torch.tensor([history[-1] for history in histories]),
            items=flat.values,
            start=flat.offsets[:-1],
            end=flat.offsets[1:] - 1,
        )
        self.evaluator = Evaluator(held_out, self.info, seen=seen)

    def fit(self, validate):
        def ignore(metrics, step):
            pass

        return self.trainer.fit(self.model, self.objective, self.checkpoints, validate, ignore)

    def ndcg(self, model):
        return self.evaluator(model).metrics["ndcg_10"]

    def learns(self, value):
        """Whether NDCG@10 gets there."""

        class LearntError(Exception):
            pass

        def validate(model):
            if self.ndcg(model) > value:
                raise LearntError
            return {"ndcg_10": 0.0}

        try:
            self.fit(validate)
        except LearntError:
            return True
        return False

    def tensors(self):
        model, objective = self.model.state_dict(), self.objective.state_dict()
        return {**model, **{f"objective.{name}": x for name, x in objective.items()}}


def walks(n_items=30, length=9):
    """Everybody walks 1, 2, ..., n, 1, ... from a start of their own."""
    return [[(start + i) % n_items + 1 for i in range(length)] for start in range(n_items)] * 3


def blocks(n_items=30, size=10):
    """Everybody takes all ten items of a block, in an order of their own."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randperm(size, generator=generator) + 1 + user * size % n_items).tolist()
        for user in range(60)
    ]


def returns():
    """Everybody begins and ends with item 1."""
    return [[1, 2 + user % 28, 3 + user % 28, 1] for user in range(60)]


def repeats():
    """Everybody takes the last item twice."""
    return [[*history, history[-1]] for history in toy.random_histories(60, 30, 8)]


def built(name):
    return subject(resized(name, **TINY)).make(subject(config(name)).place().info)


def trained(name):
    return any(True for _ in built(name).parameters())


def reads_histories(name):
    """Whether two histories of one user are two things to the model."""
    chosen = subject(resized(name, **TINY))
    place = chosen.place()
    states = chosen.model(place).represent(place.inference([[1, 2, 3], [4, 5, 6]], [0, 0]))
    return not torch.equal(states[0], states[1])


TRAINED = [name for name in NAMES if trained(name)]
LEARNING = [name for name in TRAINED if reads_histories(name)]


@pytest.mark.parametrize("name", LEARNING)
def test_a_cycle_is_learnt(name, tmp_path):
    cfg = resized(name, *SOFTMAX, dim=32, blocks=1, dropout=0.1)
    training = Training(cfg, walks(), tmp_path, 100, batch_size=30, evaluate_every=5)
    assert training.ndcg(training.model.eval()) < 0.6
    assert training.learns(0.95)


# What is not trained, or does not look at the history, cannot learn a cycle. (A table of
# transitions has learnt it when it is made.)
OTHERS = {
    "popularity": (returns, "keep"),
    "repeat_last": (repeats, "keep"),
    "markov": (walks, "keep"),
    "item_knn": (blocks, "filter"),
    "mf": (blocks, "filter"),
}


def test_every_other_model_has_something_that_it_learns():
    assert sorted(OTHERS) == sorted(set(NAMES) - set(LEARNING))


@pytest.mark.parametrize("name", OTHERS)
def test_what_others_learn(name, tmp_path):
    make, seen = OTHERS[name]
    cfg = resized(name, *SOFTMAX, dim=32)
    training = Training(cfg, make(), tmp_path, 60, seen, batch_size=30, evaluate_every=5)
    assert training.learns(0.95)


@pytest.mark.parametrize("name", TRAINED)
def test_a_run_that_is_resumed_ends_as_if_it_had_not_been_cut_off(name, tmp_path):
    def run(folder, epochs):
        cfg = resized(name, **TINY)
        histories = toy.random_histories(40, 30, 10)
        training = Training(cfg, histories, tmp_path / folder, epochs, batch_size=10)
        validated = itertools.count(int(training.checkpoints.last.exists()))
        training.fit(lambda model: {"ndcg_10": float(next(validated))})  # better and better
        return training.tensors()

    whole = run("whole", 2)
    first = run("parts", 1)
    second = run("parts", 2)
    assert all(torch.equal(second[key], whole[key]) for key in whole)
    assert any(not torch.equal(second[key], first[key]) for key in whole)
