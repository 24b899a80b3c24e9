"""What every loss promises."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck

from negrec import seeding
from negrec.contracts.base import Contract, DoesNotApplyError, contract, demand
from negrec.losses.base import Loss
from negrec.scoring import FixedScorer
from negrec.types import Batch, Exclude, Judgement, Negatives, Queries

Make = Callable[[], Loss]

CONTRACTS: list[Contract[Make]] = []

_N_ITEMS = 12
_HISTORIES = ([1, 2, 3], [4, 5, 1, 6], [7, 2])
_VALID = 3  # of the candidates of each query; two more are ruled out


@dataclass(frozen=True)
class Case:
    """Queries, candidates and scores that can be set one by one.

    Item vectors are unit vectors, so that a query's state is its row of scores.

    Attributes:
        loss: judges.
        queries: N of them; ``hidden`` is (N, V), a leaf that wants its gradient.
        negatives: their candidates.
    """

    loss: Loss
    queries: Queries
    negatives: Negatives

    @property
    def scores(self) -> Tensor:
        """(N, V); item i is column i - 1."""
        return self.queries.hidden

    @property
    def target(self) -> Tensor:
        """Which score is the target's, (N, V) bool."""
        columns = torch.arange(1, _N_ITEMS + 1)
        return columns == self.queries.target[:, None]

    @property
    def valid(self) -> Tensor:
        """Which scores are those of valid candidates, (N, V) bool."""
        valid = self.negatives.valid(self.queries)
        items = self.negatives.of().expand_as(valid)
        found = torch.zeros(len(valid), _N_ITEMS + 1, dtype=torch.int64)
        return found.scatter_add_(1, items, valid.long())[:, 1:] > 0

    def judge(self) -> Judgement:
        scorer = FixedScorer(torch.eye(_N_ITEMS, dtype=self.scores.dtype))
        judgement: Judgement = self.loss(self.queries, self.negatives, scorer)
        return judgement

    def gradient(self) -> Tensor:
        """Of the sum of the losses with respect to the scores, (N, V)."""
        (found,) = torch.autograd.grad(self.judge().loss.sum(), self.scores, allow_unused=True)
        return torch.zeros_like(self.scores) if found is None else found

    def scored(self, scores: Tensor) -> Case:
        """The same with other scores."""
        hidden = scores.detach().clone().requires_grad_()
        return replace(self, queries=replace(self.queries, hidden=hidden))

    def without_hits(self) -> Case:
        """The same with valid candidates alone, where the candidates can be chosen."""
        some = self.negatives
        if some.exhaustive:
            return self
        log_q = None if some.log_q is None else some.log_q[:, -_VALID:]
        return self.given(replace(some, items=some.items[:, -_VALID:], log_q=log_q))

    def given(self, negatives: Negatives) -> Case:
        """The same with other candidates."""
        return replace(self, negatives=negatives)


def case(make: Make, policy: Exclude = "window", dtype: torch.dtype = torch.float32) -> Case:
    """Every query has three valid candidates, its own target and an item of its window."""
    loss = make()
    generator = seeding.generator(0, "contract")
    batch = Batch.of(_HISTORIES)
    n = len(batch.target)
    # Items 8 to 12 are in nobody's window.
    free = torch.rand(n, 5, generator=generator).argsort(1)[:, :_VALID] + 8
    first = batch.items[batch.offsets[:-1]][batch.sequence]
    items = torch.cat([batch.target[:, None], first[:, None], free], 1)
    scores = torch.randn(n, _N_ITEMS, generator=generator, dtype=dtype)
    log_q = target_log_q = None
    if loss.needs_density:
        log_q = -3 * torch.rand(items.shape, generator=generator, dtype=dtype) - 1
        if loss.needs_target_density:
            target_log_q = -3 * torch.rand(n, generator=generator, dtype=dtype) - 1
    negatives = Negatives(items, None, log_q, target_log_q, exclude=policy)
    if loss.needs_exhaustive:
        every = torch.arange(1, _N_ITEMS + 1)[None]
        negatives = Negatives(every, exclude=policy, exhaustive=True)
    return Case(loss, Queries.of(batch, scores.requires_grad_()), negatives)


@contract(
    CONTRACTS,
    "every query gets a finite loss and is judged",
    "return Judgement(loss (N,), judged (N,) bool); judged is False where nothing is valid",
)
def _shapes(make: Make) -> None:
    made = case(make)
    judgement, n = made.judge(), len(made.scores)
    shape = tuple(judgement.loss.shape)
    demand(shape == (n,), f"the loss of {n} queries has shape {shape}: give one number for each")
    demand(judgement.loss.isfinite().all(), "a loss is not finite")
    demand(judgement.judged.dtype == torch.bool, f"judged is {judgement.judged.dtype}")
    demand(judgement.judged.all(), "a query with valid candidates was not judged")
    demand(judgement.loss.requires_grad, "the loss has no gradient")


@contract(
    CONTRACTS,
    "candidates that are ruled out change nothing",
    "read negatives.valid(queries), in a ScoreLoss scores.valid, and leave the others out of "
    "sums, means, counts and maxima",
)
def _ruled_out(make: Make) -> None:
    made = case(make)
    unread = ~(made.valid | made.target)
    before = made.judge().loss
    for value in (1e4, -1e4):
        moved = made.scored(made.scores.masked_fill(unread, value))
        demand(
            torch.equal(moved.judge().loss, before),
            f"the loss changes when the score of a candidate that is ruled out becomes {value:g}",
        )
        demand(moved.gradient()[unread].eq(0).all(), "a candidate that is ruled out has a gradient")
    if made.loss.needs_exhaustive:
        return
    # An empty slot, whatever item it happens to hold, is no more than a hit that was ruled out.
    valid = made.negatives.valid(made.queries)
    holes = torch.where(valid, made.negatives.items, 12)
    empty = replace(made.negatives, items=holes, present=valid, exclude="none")
    demand(
        torch.allclose(made.given(empty).judge().loss, before),
        "an empty slot (present=False) counts otherwise than a candidate that exclude rules out",
    )


@contract(
    CONTRACTS,
    "a query without any valid candidate is skipped, and nothing becomes NaN",
    "give it loss 0 and judged False, and keep -inf and 0 / 0 out of what has a gradient "
    "(torch.where passes NaN gradients on)",
)
def _nothing_valid(make: Make) -> None:
    made = case(make)
    # The last query's user has taken everything.
    batch = Batch.of([*_HISTORIES[:-1], list(range(_N_ITEMS, 0, -1))])
    some = made.negatives
    n = len(batch.target)
    generator = seeding.generator(0, "contract", 1)
    scores = torch.randn(n, _N_ITEMS, generator=generator)
    if not some.exhaustive:
        again = torch.arange(n) % len(some.items)
        of_targets = None if some.target_log_q is None else some.target_log_q[again]
        log_q = None if some.log_q is None else some.log_q[again]
        some = replace(some, items=some.items[again], log_q=log_q, target_log_q=of_targets)
    queries = Queries.of(batch, scores.requires_grad_())
    made = Case(made.loss, queries, some)
    there = some.valid(queries).any(1)
    assert there.any()
    assert not there.all()
    judgement, gradient = made.judge(), made.gradient()
    demand(torch.equal(judgement.judged, there), "judged is not valid.any(1)")
    demand(judgement.loss.isfinite().all(), "a loss is not finite")
    demand(judgement.loss[~there].eq(0).all(), "a query without candidates has a loss")
    demand(gradient.isfinite().all(), "a gradient is not finite")
    demand(gradient[~there].eq(0).all(), "a query without candidates has a gradient")


@contract(
    CONTRACTS,
    "extreme scores give finite losses and gradients",
    "use logsigmoid, softplus, logsumexp: exp overflows at 89, and log(sigmoid(s)) at -104",
)
def _extremes(make: Make) -> None:
    made = case(make)
    for factor in (1e4, -1e4):
        extreme = made.scored(factor * made.scores)
        demand(extreme.judge().loss.isfinite().all(), f"scores of {factor:g}: the loss is not")
        demand(extreme.gradient().isfinite().all(), f"scores of {factor:g}: the gradient is not")


@contract(
    CONTRACTS,
    "gradients are those of finite differences, in float64",
    "keep the graph: no .detach(), .data, .item() or float32 on the way",
)
def _gradcheck(make: Make) -> None:
    made = case(make, dtype=torch.float64)
    generator = seeding.generator(0, "contract", 2)
    matrix = torch.randn(_N_ITEMS, 4, generator=generator, dtype=torch.float64)
    hidden = torch.randn(len(made.scores), 4, generator=generator, dtype=torch.float64)

    def value(hidden: Tensor, matrix: Tensor) -> Tensor:
        scorer = FixedScorer(matrix)
        queries = replace(made.queries, hidden=hidden)
        judgement: Judgement = made.loss(queries, made.negatives, scorer)
        return judgement.loss

    given = (hidden.requires_grad_(), matrix.requires_grad_())
    try:
        gradcheck(value, given)
    except GradcheckError as error:
        demand(False, str(error).strip().splitlines()[0])


@contract(
    CONTRACTS,
    "a higher target is better, higher negatives are worse",
    "check the signs: the loss is minimised",
)
def _signs(make: Make) -> None:
    made = case(make)
    # Not each negative alone: BPR-max weighs them against each other.
    made = made.without_hits().scored(made.scores.abs())
    gradient = made.gradient()
    # Flat is allowed, as a hinge is where it is satisfied, but not everywhere.
    target = gradient[made.target]
    demand((target <= 0).all(), "raising the target's score raises the loss")
    demand((target < 0).any(), "the target's score does not matter")
    together = (gradient * made.valid).sum(1)
    demand((together >= 0).all(), "raising the scores of all valid negatives lowers the loss")
    demand((together > 0).any(), "the negatives' scores do not matter")


@contract(
    CONTRACTS,
    "a query's loss does not depend on the other queries",
    "sum and average over dim 1 only: large batches are judged in chunks of queries",
)
def _one_by_one(make: Make) -> None:
    made = case(make)
    losses, gradients = made.judge().loss, made.gradient()
    for n in range(len(losses)):
        one = slice(n, n + 1)
        part = Case(made.loss, made.queries.select(one), made.negatives.select(one))
        loss = part.judge().loss
        demand(torch.allclose(loss, losses[one], atol=1e-6), "judged alone, a query's loss differs")
        gradient = torch.autograd.grad(loss.sum(), made.scores)[0]
        demand(
            torch.allclose(gradient[one], gradients[one], atol=1e-6),
            "judged alone, a query's gradient differs",
        )


@contract(
    CONTRACTS,
    "labels are honoured, or reads_labels is False",
    "count a candidate with label 1 as a positive, and set reads_labels = True",
)
def _labels(make: Make) -> None:
    made = case(make)
    if made.loss.needs_exhaustive:
        raise DoesNotApplyError("nothing relabels the whole catalogue")
    shape = (len(made.scores), made.negatives.k)
    label = torch.zeros(shape)
    label[:, -1] = 1  # valid
    label[:, 0] = 1  # the own target, which is ruled out
    relabelled = made.given(replace(made.negatives, label=label))
    changed = not torch.equal(relabelled.judge().loss, made.judge().loss)
    if not made.loss.reads_labels:
        demand(not changed, "a label changes the loss, and reads_labels is False")
        return
    demand(changed, "reads_labels is True, and a label changes nothing")
    gradient = relabelled.gradient()
    labelled = gradient.gather(1, made.negatives.items[:, -1:] - 1)
    demand((labelled < 0).all(), "raising the score of a candidate with label 1 raises the loss")
    label = label.clone()
    label[:, 0] = 0
    without = made.given(replace(made.negatives, label=label))
    same = torch.equal(without.judge().loss, relabelled.judge().loss)
    demand(same, "the label of a candidate that is ruled out changes the loss")


@contract(
    CONTRACTS,
    "log_q is used, or needs_density is False",
    "set needs_density = True where the loss reads log_q: then samplers without one are refused",
)
def _density(make: Make) -> None:
    made = case(make)
    if made.loss.needs_exhaustive:
        raise DoesNotApplyError("the whole catalogue has no density")
    n, k = len(made.scores), made.negatives.k
    generator = seeding.generator(0, "contract", 3)

    def with_density() -> Case:
        log_q = -3 * torch.rand(n, k, generator=generator) - 1
        of_targets = -3 * torch.rand(n, generator=generator) - 1
        return made.given(replace(made.negatives, log_q=log_q, target_log_q=of_targets))

    one, other = with_density(), with_density()
    changed = not torch.equal(one.judge().loss, other.judge().loss)
    if made.loss.needs_density:
        demand(changed, "needs_density is True, and log_q changes nothing")
    else:
        demand(not changed, "log_q changes the loss, and needs_density is False")


@contract(
    CONTRACTS,
    "the same input gives the same loss and is left as it was",
    "draw nothing in a loss, and use no operation that ends in an underscore on its input",
)
def _pure(make: Make) -> None:
    made = case(make)
    label = torch.zeros(len(made.scores), made.negatives.k)
    if made.loss.reads_labels:
        made = made.given(replace(made.negatives, label=label))
    tensors = (made.scores, made.negatives.items, made.negatives.log_q, made.negatives.label)
    given = [x for x in tensors if x is not None]
    before = copy.deepcopy([x.detach() for x in given])
    state = torch.get_rng_state()
    first = made.judge().loss
    demand(torch.equal(first, made.judge().loss), "two calls give two results")
    demand(torch.equal(state, torch.get_rng_state()), "torch's global random state has moved")
    demand(all(map(torch.equal, before, given)), "the loss has changed what it was given")
