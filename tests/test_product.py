"""Every sampler with every loss: the pair trains, or is refused in one sentence at the start."""

import re
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from negrec import scoring, seeding
from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.kernels import tiles
from negrec.losses.base import Loss
from negrec.samplers.base import Sampler
from negrec.types import DatasetInfo, Outcome, Step

CONF = Path(__file__).parents[1] / "conf"
SMALL = (
    "dataset.users=60",
    "dataset.items=300",  # room for 250 negatives
    "model.dim=8",
    "model.blocks=1",
    "trainer.batch_size=32",  # two steps an epoch
)


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


SAMPLERS = [(f"sampler={name}",) for name in options("sampler")]
SAMPLERS += [("sampler=genni", "curriculum=true"), ("sampler=genni", "index=clusters")]
# Mining from the first epoch on, and whatever is served once more is taken for a false negative.
MINING = ("mining_start=0", "false_negatives.m=0")
WRAPPED = [
    ("sampler=uniform", "k=8", f"sampler/false_negatives={name}", *MINING)
    for name in options("sampler/false_negatives")
    if name != "none"
]
TAUGHT = [
    (*words, "objective=ranking_with_teacher")
    for words in [("sampler=uniform", "k=8", "mining_start=0"), *WRAPPED]
]
LOSSES = [(f"loss={name}",) for name in options("loss")]
LOSSES += [
    ("loss=bce", "loss.log_q=standard"),
    ("loss=sampled_softmax", "loss.log_q=standard"),
    ("loss=sampled_softmax", "loss.log_q=refined"),
]
PRODUCT = [(*one, *other) for one, other in product([*SAMPLERS, *WRAPPED, *TAUGHT], LOSSES)]


@cache
def data() -> tuple[DatasetInfo, Sequences]:
    """Facts and windows of the made-up data set, a small one."""
    cfg = config()
    interactions = instantiate(cfg.dataset, cache_dir=None, data_dir=None)
    split = instantiate(cfg.split)(interactions, max_length=cfg.max_length, seed=cfg.seed)
    sequences = Sequences(split.train, cfg.max_length, instantiate(cfg.targets), cfg.window)
    return sequences.facts(split.info), sequences


@cache
def config(*words: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [*SMALL, *words])


def parts(*words: str) -> tuple[Sampler, Loss]:
    """What is paired, each built by itself."""
    cfg, (info, _) = config(*words), data()
    sampler = instantiate(cfg.sampler)(info)
    if cfg.false_negatives is not None:
        sampler = instantiate(cfg.false_negatives)(info, sampler)
    return sampler, instantiate(cfg.loss)


class Pair:
    """A model and an objective as an experiment builds them, and the trainer's steps."""

    def __init__(self, *words: str) -> None:
        cfg, (info, self.sequences) = config(*words), data()
        torch.manual_seed(0)
        self.model = instantiate(cfg.model)(info)
        self.objective = instantiate(cfg.objective)(info, self.sequences)
        self.objective.bind(self.model)
        self.loader = Loader(self.sequences, cfg.trainer.batch_size, seed=0)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)

    def epoch(self, epoch: int) -> list[Outcome]:
        outcomes = []
        for index, batch in enumerate(self.loader.epoch(epoch)):
            generator = seeding.generator(0, "sampler", *batch.key)
            self.optimizer.zero_grad()
            outcome = self.objective(self.model, batch, Step(epoch, index, generator, batch.key))
            outcome.loss.backward()
            self.optimizer.step()
            self.objective.observe(self.model, outcome.feedback)
            outcomes.append(outcome)
        return outcomes


@dataclass(frozen=True)
class Refusal:
    """Why a pair cannot be, by what its parts declare."""

    reason: str

    @classmethod
    def of(cls, sampler: Sampler, loss: Loss) -> "Refusal | None":
        if loss.needs_exhaustive and not sampler.exhaustive:
            return cls("whole catalogue")
        anywhere = sampler.log_prob(torch.arange(1, 3)) is not None
        of_draws = anywhere or sampler.density_by_query
        if loss.needs_density and not (anywhere if loss.needs_target_density else of_draws):
            return cls("density")
        if sampler.labels and not loss.reads_labels:
            return cls("labels")
        return None


def refused(*words: str) -> str:
    """The sentence that a pair is refused with."""
    with pytest.raises(ValueError, match="does not go with") as error:
        Pair(*words)
    return str(error.value)


@pytest.mark.parametrize("words", PRODUCT, ids="+".join)
def test_a_pair_trains_or_is_refused_in_one_sentence(words: tuple[str, ...]) -> None:
    sampler, loss = parts(*words)
    refusal = Refusal.of(sampler, loss)
    if refusal is not None:
        sentence = refused(*words)
        assert "\n" not in sentence
        for part in (sampler.name, type(loss).__name__, refusal.reason):
            assert part in sentence
        return
    pair = Pair(*words)
    parameters = dict(pair.model.named_parameters())
    for epoch in (0, 1):
        before = {name: p.detach().clone() for name, p in parameters.items()}
        outcomes = pair.epoch(epoch)
        assert len(outcomes) == 2
        for outcome in outcomes:
            assert outcome.loss.isfinite()
            assert outcome.loss > 0
            assert outcome.feedback.loss.isfinite().all()
            # Where false negatives are removed, all that a query has may be.
            assert outcome.skipped < len(outcome.feedback.loss)
        for name, parameter in parameters.items():
            assert parameter.isfinite().all(), name
            assert not torch.equal(parameter, before[name]), name


# What cannot go together, whatever the parts declare.
KNOWN = {
    ("sampler=uniform", "loss=softmax"): "loss Softmax does not go with sampler Uniform: .*whole",
    ("sampler=genni", "loss=sampled_softmax", "loss.log_q=standard"): (
        "loss SampledSoftmax does not go with sampler GenNi: .*density"
    ),
    ("sampler=adaptive", "loss=sampled_softmax", "loss.log_q=standard"): (
        "loss SampledSoftmax does not go with sampler TopK.*: .*density"
    ),
    ("sampler=genni", "loss=bce", "loss.log_q=standard"): (
        "loss BCE does not go with sampler GenNi: .*density"
    ),
    ("sampler=genni", "index=clusters", "loss=sampled_softmax", "loss.log_q=standard"): (
        "loss SampledSoftmax does not go with sampler GenNi: .*density of targets too"
    ),
    ("sampler=uniform", "sampler/false_negatives=reverse", "loss=bpr"): (
        "loss BPR does not go with sampler Uniform with false negatives reversed: .*labels"
    ),
    ("sampler=full", "sampler/false_negatives=reverse", "loss=bce"): (
        "false_negatives does not go with sampler Full"
    ),
}


@pytest.mark.parametrize(("words", "sentence"), KNOWN.items(), ids=map("+".join, KNOWN))
def test_known_pairs_are_refused(words: tuple[str, ...], sentence: str) -> None:
    found = refused(*words)
    assert re.fullmatch(f"{sentence}.*", found), found


def test_plain_pairs_are_refused_for_the_catalogue_alone() -> None:
    plain = product(options("sampler"), options("loss"))
    found = {
        (one, other)
        for one, other in plain
        if Refusal.of(*parts(f"sampler={one}", f"loss={other}")) is not None
    }
    assert found == {(one, "softmax") for one in options("sampler") if one != "full"}


LEARNS = [
    ("sampler=cross_batch",),
    ("sampler=genni", "curriculum=true"),
    ("sampler=genni", "index=clusters"),
    *([("sampler=srns",)] if "srns" in options("sampler") else []),
    *WRAPPED,
]


@pytest.mark.parametrize("words", LEARNS, ids="+".join)
def test_what_remembers_has_learnt_from_its_steps(words: tuple[str, ...]) -> None:
    pair = Pair(*words, "loss=bce")
    sampler = pair.objective.sampler
    states = []
    for epoch in range(3):
        states.append({name: x.clone() for name, x in sampler.state_dict().items()})
        pair.epoch(epoch)
    first, second, third = states
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(second[name], third[name]) for name in first)


@pytest.mark.parametrize("words", WRAPPED, ids=lambda words: words[2])
def test_false_negatives_are_found_by_the_third_visit(words: tuple[str, ...]) -> None:
    # Otherwise the product would have walked past them. The variance looks at five visits.
    pair = Pair(*words, "false_negatives.deviation=0.5", "loss=bce")
    mined = 0
    for epoch in range(7):
        for outcome in pair.epoch(epoch):
            mined += int(outcome.feedback.negatives.mined.sum())
    assert mined > 0


# ---- memory


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):  # of a view what lies behind it
                size = leaf.untyped_storage().nbytes() // leaf.element_size()
                self.elements = max(self.elements, size)
        return out


def largest(*words: str) -> tuple[int, int]:
    """The largest tensor of a step with the whole catalogue, and the size of (N, V)."""
    pair = Pair("sampler=full", "trainer.batch_size=60", *words)
    with Largest() as seen:
        (outcome,) = pair.epoch(0)
    info, _ = data()
    return seen.elements, len(outcome.feedback.loss) * info.n_items


WITH_FULL = [words for words in LOSSES if Refusal.of(*parts("sampler=full", *words)) is None]


@pytest.mark.parametrize("words", WITH_FULL, ids="+".join)
def test_no_loss_ever_holds_all_scores_of_the_catalogue(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 16  # queries of a chunk
    monkeypatch.setattr(scoring, "_SCORES", rows * data()[0].n_items)
    monkeypatch.setattr(tiles, "_CELLS", rows * data()[0].n_items)
    elements, everything = largest(*words)
    assert elements < everything / 2  # attention is the next largest, a quarter of it


def test_the_largest_tensor_is_seen() -> None:
    elements, everything = largest("loss=bce")  # so few scores are held at once
    assert elements >= everything
