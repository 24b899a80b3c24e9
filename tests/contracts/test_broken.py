"""Broken parts, each caught by the contract that it breaks: the contracts can tell."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from negrec.contracts import losses, models, samplers
from negrec.losses.base import Loss, ScoreLoss, score
from negrec.losses.bce import BCE
from negrec.models.base import SequenceModel
from negrec.models.layers import ItemInput, UserVectors
from negrec.samplers.base import Proposal, Sampler
from negrec.samplers.popularity import Popularity
from negrec.samplers.uniform import Uniform
from negrec.scoring import ItemScorer
from negrec.types import Judgement, Negatives, Queries


class ReturnsPadding(Uniform):
    def draw(self, rows, generator):
        return super().draw(rows, generator) - 1


class ForgetsItsPolicy(Uniform):
    def __init__(self, info, k=2, share="batch", exclude="target"):
        super().__init__(info, k, share, exclude)

    def sample(self, queries, scorer, step):
        drawn = super().sample(queries, scorer, step)
        return Negatives(drawn.items, drawn.row, drawn.log_q, drawn.target_log_q)


class NeverGivesUp(Uniform):
    """Presents an item that is ruled out where nothing else is left."""

    def sample(self, queries, scorer, step):
        items = self._redraw(self.draw(len(queries.target), step.generator), queries, None)
        density = (self.log_prob_for(items, queries), self.log_prob(queries.target))
        return Negatives(items, None, *density, exclude="none")


class KeepsCount(Uniform):
    """Hidden state: a second call with the same generator gives something else."""

    calls = 0

    def draw(self, rows, generator):
        self.calls += 1
        return (super().draw(rows, generator) + self.calls) % self.n_items + 1


class DrawsFrom(Uniform):
    def __init__(self, info, source):
        super().__init__(info, 1)
        self.source = source

    def draw(self, rows, generator):
        match self.source:
            case "torch":
                return torch.randint(1, self.n_items + 1, (rows, 1))
            case "numpy":
                return torch.from_numpy(np.random.randint(1, self.n_items + 1, (rows, 1)))  # noqa: NPY002
            case "random":
                return torch.tensor([[random.randint(1, self.n_items)] for _ in range(rows)])


class LearnsInSample(Uniform):
    def __init__(self, info):
        super().__init__(info, 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def sample(self, queries, scorer, step):
        self.seen += len(queries.target)
        return super().sample(queries, scorer, step)


class ScalesStates(Uniform):
    def sample(self, queries, scorer, step):
        queries.hidden.mul_(2)
        return super().sample(queries, scorer, step)


class LearnsOutsideOfBuffers(Sampler):
    """Serves the newest target, which it keeps as a Python number."""

    newest = 1

    def sample(self, queries, scorer, step):
        return Negatives(torch.full((1, 1), self.newest), exclude=self.exclude)

    def observe(self, feedback):
        self.newest = int(feedback.queries.target[-1])


class PlainTensor(Uniform):
    def __init__(self, info):
        super().__init__(info, 1)
        self.ids = torch.arange(1, info.n_items + 1)


class WrongLogQ(Popularity):
    def __init__(self, info, k=1, exclude="target"):
        super().__init__(info, 1.0, k, "query", exclude)

    def sample(self, queries, scorer, step):
        drawn = super().sample(queries, scorer, step)
        return Negatives(
            drawn.items, None, drawn.log_q + 1, drawn.target_log_q, exclude=self.exclude
        )


class NotNormalised(Popularity):
    def __init__(self, info, k=1, exclude="target"):
        super().__init__(info, 1.0, k, "query", exclude)

    def log_prob(self, items):
        return super().log_prob(items) + 1


class SaysUniform(Popularity):
    def __init__(self, info, k=1, exclude="target"):
        super().__init__(info, 0.5, k, "query", exclude)

    def log_prob(self, items):
        return Uniform.log_prob(self, items)


class NotRenormalised(Uniform):
    def __init__(self, info, k=3, exclude="target"):
        super().__init__(info, k, "query", exclude)

    def log_prob_for(self, items, queries):
        return self.log_prob(items)


class ShufflesTheCatalogue(Proposal):
    def __init__(self, info):
        super().__init__(info, 2)

    def draw(self, rows, generator):
        every = torch.randperm(self.n_items, generator=generator) + 1
        return every[torch.randint(self.n_items, (rows, 2), generator=generator)]


class SaysWhatItDoesNotDraw(Uniform):
    """A density of each query's own that is not what it draws from, and no ``log_prob``."""

    density_by_query = True

    def __init__(self, info, exclude="target"):
        super().__init__(info, 2, "query", exclude)

    def sample(self, queries, scorer, step):
        items = super().sample(queries, scorer, step).items
        every = queries.hidden.sum(1, keepdim=True) * torch.linspace(0, 1, self.n_items)
        return Negatives(items, None, every.log_softmax(1).gather(1, items - 1))

    def log_prob(self, items):
        return None


class MasksByQuery(Uniform):
    """``present`` by query where ``items`` are by sequence."""

    def __init__(self, info):
        super().__init__(info, 2, "sequence")

    def sample(self, queries, scorer, step):
        drawn = super().sample(queries, scorer, step)
        there = torch.ones(len(queries.target), 2, dtype=torch.bool)
        return Negatives(drawn.items, drawn.row, present=there)


SAMPLERS = [
    (lambda info: ReturnsPadding(info, 2), None, "candidates are (R, K) ids of the catalogue"),
    (MasksByQuery, None, "candidates are (R, K) ids of the catalogue"),
    (
        ForgetsItsPolicy,
        lambda policy: lambda info: ForgetsItsPolicy(info, exclude=policy),
        "what exclude rules out is never valid",
    ),
    (
        lambda info: NeverGivesUp(info, 1, exclude="window"),
        None,
        "a user who took everything gets no valid candidate",
    ),
    (lambda info: KeepsCount(info, 1), None, "the draw follows from step.generator alone"),
    (lambda info: DrawsFrom(info, "torch"), None, "the draw follows from step.generator alone"),
    *(
        (
            lambda info, source=source: DrawsFrom(info, source),
            None,
            "nothing is drawn from a global source of randomness",
        )
        for source in ("torch", "numpy", "random")
    ),
    (LearnsInSample, None, "sample changes neither the sampler nor its arguments"),
    (
        lambda info: ScalesStates(info, 1),
        None,
        "sample changes neither the sampler nor its arguments",
    ),
    (LearnsOutsideOfBuffers, None, "a state_dict round trip keeps the draws"),
    (PlainTensor, None, "its tensors move with .to(device)"),
    (WrongLogQ, None, "log_q is the density that log_prob gives"),
    (NotNormalised, None, "the density sums to 1"),
    (
        SaysUniform,
        lambda policy: lambda info: SaysUniform(info, exclude=policy),
        "items come as often as log_prob says",
    ),
    (
        lambda info: NotRenormalised(info, exclude="history"),
        None,
        "draws that avoid what is ruled out have the renormalised density",
    ),
    (SaysWhatItDoesNotDraw, None, "a query's items come as often as its log_q says"),
    (
        ShufflesTheCatalogue,
        None,
        "a draw without the model takes memory for its candidates only",
    ),
]


@pytest.mark.parametrize(("make", "excluding", "promise"), SAMPLERS)
def test_a_broken_sampler(make, excluding, promise):
    (contract,) = [c for c in samplers.CONTRACTS if c.name == promise]
    verdict = contract.verdict(samplers.Subject(make, excluding))
    assert verdict.holds is False
    assert verdict.reason
    assert verdict.advice


def test_a_good_sampler_of_a_user():
    make = lambda info: Uniform(info, 2, "sequence", "window")  # noqa: E731
    verdicts = [contract.verdict(samplers.Subject(make)) for contract in samplers.CONTRACTS]
    assert not [verdict for verdict in verdicts if verdict.holds is False]


# ---- losses


class MeanOverAll(Loss):
    """One number for the batch."""

    def forward(self, queries, negatives, scorer):
        scores = score(queries, negatives, scorer)
        return Judgement(F.softplus(-scores.positive).mean(), scores.valid.any(1))


class ReadsEverything(ScoreLoss):
    def per_query(self, scores):
        return F.softplus(-scores.positive) + F.softplus(scores.negative).sum(1)


class CountsEverything(ScoreLoss):
    """Does not mask the own target among the candidates."""

    def per_query(self, scores):
        return F.softplus(-scores.positive) + scores.negative.amax(1)


class WeighsNothing(ScoreLoss):
    """A softmax over nothing is NaN, and torch.where lets its gradient through."""

    def per_query(self, scores):
        weight = scores.negative.masked_fill(~scores.valid, -torch.inf).softmax(1)
        return F.softplus(-scores.positive) + (weight * F.softplus(scores.negative)).sum(1)


class Overflows(ScoreLoss):
    def per_query(self, scores):
        ratio = (scores.negative - scores.positive[:, None]).exp()
        return ratio.masked_fill(~scores.valid, 0).sum(1).log1p()


class LosesTheGraph(ScoreLoss):
    def per_query(self, scores):
        negative = F.softplus(scores.negative).masked_fill(~scores.valid, 0)
        weight = negative.detach().softmax(1)
        return F.softplus(-scores.positive) + (weight * negative).sum(1)


class WrongSign(ScoreLoss):
    def per_query(self, scores):
        return BCE().per_query(scores).neg()


class BatchNorm(ScoreLoss):
    def per_query(self, scores):
        return BCE().per_query(scores) / scores.valid.sum()


class IgnoresLabels(BCE):
    def per_query(self, scores):
        return super().per_query(replace(scores, label=None))


class SilentLabels(BCE):
    reads_labels = False


class SilentDensity(BCE):
    def __init__(self):
        super().__init__()
        self.needs_density = False

    def per_query(self, scores):
        shift = 0 if scores.log_q is None else scores.log_q
        term = F.softplus(scores.negative - shift).masked_fill(~scores.valid, 0)
        return F.softplus(-scores.positive) + term.sum(1)


class NeedlessDensity(BCE):
    def __init__(self):
        super().__init__()
        self.needs_density = True


class Noisy(ScoreLoss):
    def per_query(self, scores):
        return BCE().per_query(scores) * (1 + torch.rand(()))


class InPlace(Loss):
    def forward(self, queries, negatives, scorer):
        with torch.no_grad():
            negatives.items.clamp_(max=9)
        return BCE()(queries, negatives, scorer)


LOSSES = [
    (MeanOverAll, "every query gets a finite loss and is judged"),
    (ReadsEverything, "candidates that are ruled out change nothing"),
    (CountsEverything, "candidates that are ruled out change nothing"),
    (WeighsNothing, "a query without any valid candidate is skipped, and nothing becomes NaN"),
    (Overflows, "extreme scores give finite losses and gradients"),
    (LosesTheGraph, "gradients are those of finite differences, in float64"),
    (WrongSign, "a higher target is better, higher negatives are worse"),
    (BatchNorm, "a query's loss does not depend on the other queries"),
    (IgnoresLabels, "labels are honoured, or reads_labels is False"),
    (SilentLabels, "labels are honoured, or reads_labels is False"),
    (SilentDensity, "log_q is used, or needs_density is False"),
    (NeedlessDensity, "log_q is used, or needs_density is False"),
    (Noisy, "the same input gives the same loss and is left as it was"),
    (InPlace, "the same input gives the same loss and is left as it was"),
]


@pytest.mark.parametrize(("make", "promise"), LOSSES)
def test_a_broken_loss(make, promise):
    (contract,) = [c for c in losses.CONTRACTS if c.name == promise]
    verdict = contract.verdict(make)
    assert verdict.holds is False
    assert verdict.reason
    assert verdict.advice


# ---- models


class Mean(SequenceModel):
    """A sound one: the mean of the items up to each token, with positions, users and dropout."""

    hides = True

    def __init__(self, info):
        super().__init__()
        self.scorer = ItemScorer(info.n_items, 4)
        self.input = ItemInput(info.n_items, 4, 0.02, hides=True)
        self.positions = torch.nn.Embedding(info.max_length, 4)
        self.users = UserVectors(info, 4, 0.02)
        self.dropout = torch.nn.Dropout(0.1)

    def embed(self, batch):
        return self.input(batch.items, self.scorer) + self.positions(self.place(batch))

    def place(self, batch):
        return batch.from_end

    def pool(self, x, batch):
        """The sum of what stands before each token in its sequence, and of the token itself."""
        total = x.cumsum(0)
        first = batch.offsets[:-1][batch.sequence]
        return total - (total[first] - x[first])

    def states(self, batch):
        count = torch.arange(len(batch.items)) - batch.offsets[:-1][batch.sequence] + 1
        mean = self.pool(self.dropout(self.embed(batch)), batch) / count[:, None]
        return self.scorer.query(mean + self.users(batch.user)[batch.sequence])

    def forward(self, batch):
        return Queries.of(batch, self.states(batch))

    def represent(self, batch):
        return self.states(batch)[batch.last]


class OneStateTooFew(Mean):
    def represent(self, batch):
        return super().represent(batch)[1:]


class StatesOfTokens(Mean):
    """Hands out tokens where queries are asked for, one sequence after the other backwards."""

    def forward(self, batch):
        return replace(super().forward(batch), user=batch.user[batch.sequence].flip(0))


class NoLastItem(Mean):
    """Its table ends one item early."""

    def __init__(self, info):
        super().__init__(info)
        self.own = torch.nn.Embedding(info.n_items, 4)

    def embed(self, batch):
        return super().embed(batch) + self.own(batch.items)


class LooksAtItsTarget(Mean):
    def forward(self, batch):
        queries = super().forward(batch)
        return replace(queries, hidden=queries.hidden + self.scorer.embed(batch.target))


class LooksAtSeen(Mean):
    def forward(self, batch):
        queries = super().forward(batch)
        return replace(queries, hidden=queries.hidden + len(batch.seen.values))


class LooksAhead(Mean):
    def pool(self, x, batch):
        return super().pool(x, batch) + x.roll(-1, 0) * (batch.from_end > 0)[:, None]


class ReadsHiddenAsItemOne(Mean):
    def __init__(self, info):
        super().__init__(info)
        self.input = ItemInput(info.n_items, 4, 0.02)

    def embed(self, batch):
        return super().embed(replace(batch, items=batch.items.clamp(min=1)))


class LooksAtItsNeighbours(Mean):
    def pool(self, x, batch):
        return x.cumsum(0)


class NormalisesTheBatch(Mean):
    def pool(self, x, batch):
        return super().pool(x - x.mean(0), batch)


class ForgetsTheNewest(Mean):
    def represent(self, batch):
        return self.states(batch)[(batch.last - 1).clamp(min=0)]


class CountsFromTheStart(Mean):
    def place(self, batch):
        return batch.position.clamp(max=self.positions.num_embeddings - 1)


class EverybodyIsKnown(Mean):
    """-1 reads the last user's vector, and users without training have one."""

    def __init__(self, info):
        super().__init__(info)
        self.users = torch.nn.Embedding(info.n_users, 4)

    def states(self, batch):
        return super().states(replace(batch, user=batch.user.remainder(24)))


class UnknownIsTheFirst(Mean):
    def states(self, batch):
        known = self.users.known[batch.user]
        return super().states(replace(batch, user=batch.user.masked_fill(~known, 0)))


class RemembersInAnAttribute(Mean):
    def __init__(self, info):
        super().__init__(info)
        self.noise = torch.randn(4)

    def embed(self, batch):
        return super().embed(batch) + self.noise


class HoldsOnToItself(Mean):
    def __init__(self, info):
        super().__init__(info)
        scorer = self.scorer
        self.look_up = lambda items: scorer.embed(items)

    def embed(self, batch):
        return self.look_up(batch.items) + self.positions(batch.from_end)


class SinglePrecision(Mean):
    def states(self, batch):
        return super().states(batch).float()


class StaysOnTheCPU(Mean):
    def __init__(self, info):
        super().__init__(info)
        self.info = info


class DropsInEvaluation(Mean):
    def embed(self, batch):
        return F.dropout(super().embed(batch), 0.1)


class OwnRandomness(Mean):
    def embed(self, batch):
        return super().embed(batch) * (1 + random.random() * self.training)


class WritesIntoTheBatch(Mean):
    def embed(self, batch):
        batch.position.add_(1)
        return super().embed(batch)


class LearnsNoPositions(Mean):
    def embed(self, batch):
        return self.input(batch.items, self.scorer) + self.positions(batch.from_end).detach()


class BecomesNaN(Mean):
    """The root of 0 has an infinite gradient, and 0 times infinity is none."""

    def pool(self, x, batch):
        pooled = super().pool(x, batch)
        return pooled + 0 * (pooled - pooled).sqrt()


STATES = "every query of a batch and every sequence gets a finite state"
ODD = "histories that are short, full, repetitive or alone are read"
UNSEEN = "no state looks at what it is asked for"
ALONE = "other sequences of a batch, and their order, change nothing"
UNKNOWN = "somebody unknown is served, and not as somebody else"
DETERMINISTIC = "evaluation is deterministic, and training follows from torch's seed"
TRAINED = "training reaches every parameter, and nothing becomes NaN"
MODELS = [
    (OneStateTooFew, STATES),
    (StatesOfTokens, STATES),
    (NoLastItem, ODD),
    (LooksAtItsTarget, UNSEEN),
    (LooksAtSeen, UNSEEN),
    (LooksAhead, "later items change no earlier state, or causal is False"),
    (ReadsHiddenAsItemOne, "an item that is not told is read as such, or hides is False"),
    (LooksAtItsNeighbours, ALONE),
    (NormalisesTheBatch, ALONE),
    (ForgetsTheNewest, "represent is the state of the last query"),
    (CountsFromTheStart, "the newest items decide: older ones than max_length change nothing"),
    (EverybodyIsKnown, UNKNOWN),
    (UnknownIsTheFirst, UNKNOWN),
    (RemembersInAnAttribute, "a state_dict round trip gives the same model, to the bit"),
    (HoldsOnToItself, "a deep copy is the same model, and one of its own"),
    (SinglePrecision, "in float64 it gives the same"),
    (StaysOnTheCPU, "its tensors move with .to(device)"),
    (DropsInEvaluation, DETERMINISTIC),
    (OwnRandomness, DETERMINISTIC),
    (WritesIntoTheBatch, DETERMINISTIC),
    (LearnsNoPositions, TRAINED),
    (BecomesNaN, TRAINED),
]


@pytest.mark.parametrize(("make", "promise"), MODELS)
def test_a_broken_model(make, promise):
    (contract,) = [c for c in models.CONTRACTS if c.name == promise]
    verdict = contract.verdict(models.Subject(make))
    assert verdict.holds is False
    assert verdict.reason
    assert verdict.advice
    fails = make is NoLastItem  # an error of its own; in all others it is the contract that sees
    assert verdict.failed == fails


def test_a_good_model_of_a_user():
    verdicts = [contract.verdict(models.Subject(Mean)) for contract in models.CONTRACTS]
    assert [verdict for verdict in verdicts if not verdict.holds] == []


def test_every_contract_can_be_broken():
    promises = {promise for *_, promise in (*SAMPLERS, *LOSSES, *MODELS)}
    every = {c.name for c in (*samplers.CONTRACTS, *losses.CONTRACTS, *models.CONTRACTS)}
    # What `select` does with what a sampler gave is checked by tests/test_types.py.
    assert every - promises == {"candidates of some queries are those of all, selected"}
