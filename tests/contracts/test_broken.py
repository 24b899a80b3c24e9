"""Broken parts, each caught by the contract that it breaks: the contracts can tell."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from negrec.contracts import losses, samplers
from negrec.losses.base import Loss, ScoreLoss, score
from negrec.losses.bce import BCE
from negrec.samplers.base import Proposal, Sampler
from negrec.samplers.popularity import Popularity
from negrec.samplers.uniform import Uniform
from negrec.types import Judgement, Negatives


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


def test_every_contract_can_be_broken():
    promises = {promise for *_, promise in (*SAMPLERS, *LOSSES)}
    every = {c.name for c in (*samplers.CONTRACTS, *losses.CONTRACTS)}
    # What `select` does with what a sampler gave is checked by tests/test_types.py.
    assert every - promises == {"candidates of some queries are those of all, selected"}
