"""What every sampler promises."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from negrec import seeding
from negrec.contracts.base import Contract, DoesNotApplyError, contract, demand
from negrec.contracts.toy import World, chi_square_p, world
from negrec.losses.bce import BCE
from negrec.samplers.base import Sampler
from negrec.scoring import ItemScorer
from negrec.types import Batch, DatasetInfo, Exclude, Feedback, Jagged, Negatives, Queries, Step

Make = Callable[[DatasetInfo], Sampler]

_LEAST_P = 1e-4
_DRAWS = 20_000  # candidates that frequencies are counted over, where k allows it
_STEPS = (200, 2_500)
_RARE = 5  # expected draws of an item, of which fewer tell nothing alone
_EXPECTED_HITS = 20  # so many that none at all means that hits are avoided


@dataclass(frozen=True)
class Subject:
    """A sampler whose promises are looked at.

    Attributes:
        make: builds it.
        excluding: builds it with another exclusion policy; None where it has one for good.
    """

    make: Make
    excluding: Callable[[Exclude], Make] | None = None

    def policies(self) -> Iterator[tuple[Exclude, Make]]:
        """What builds it with each policy that it can have."""
        if self.excluding is None:
            yield self.make(world().info).exclude, self.make
            return
        for policy in get_args(Exclude):
            yield policy, self.excluding(policy)


CONTRACTS: list[Contract[Subject]] = []


@contract(
    CONTRACTS,
    "candidates are (R, K) ids of the catalogue",
    "return Negatives(items, row, ...) with ids 1..V (0 is padding); R is 1, or N, or row says "
    "which of the R rows each query reads",
)
def _ids(subject: Subject) -> None:
    place = world()
    sampler = subject.make(place.info)
    # A batch, the last batch of an epoch with a single query, and one after having learnt.
    single = Batch.of([[3, 7]])
    for batch in (*islice(place.batches(40), 3), single, next(place.batches(40))):
        queries = place.queries(_with_history(batch))
        negatives = _sample(sampler, queries, place.scorer(), _step(0))
        _well_formed(negatives, queries, place.info.n_items)
        _observe(sampler, queries, negatives, place.scorer())


def _well_formed(negatives: Negatives, queries: Queries, n_items: int) -> None:
    items, row, n = negatives.items, negatives.row, len(queries.target)
    demand(items.dtype == torch.int64, f"items are {items.dtype}, not torch.int64")
    demand(negatives.k > 0, "there is no candidate")
    low, high = int(items.min()), int(items.max())
    demand(low >= 1 and high <= n_items, f"ids are {low}..{high}, the catalogue is 1..{n_items}")
    if row is None:
        demand(len(items) in (1, n), f"{len(items)} rows for {n} queries, and row is None")
    else:
        demand(row.shape == (n,), f"row has shape {tuple(row.shape)}, not ({n},)")
        inside = row.min() >= 0 and row.max() < len(items)
        demand(inside, f"row leads outside of the {len(items)} rows")
        demand((row.diff() >= 0).all(), "row is not ascending")
    for name in ("label", "mined"):
        found = getattr(negatives, name)
        fits = found is None or found.shape == (n, negatives.k)
        demand(fits, f"{name} is not of shape ({n}, {negatives.k})")
    if negatives.present is not None:
        demand(negatives.present.shape == items.shape, "present is not of the shape of items")


@contract(
    CONTRACTS,
    "what exclude rules out is never valid",
    "pass the policy on, Negatives(..., exclude=self.exclude), or leave such items out of present",
)
def _exclusion(subject: Subject) -> None:
    place = world()
    for policy, make in subject.policies():
        sampler = make(place.info)
        for batch in islice(place.batches(80), 3):
            queries = place.queries(batch)
            negatives = _turn(sampler, queries, place.scorer(), _step(0))
            out = forbidden(queries, policy, place.info.n_items)
            valid = negatives.valid(queries)
            hits = valid & out.gather(1, negatives.of().expand_as(valid))
            demand(
                not hits.any(),
                f"with exclude={policy}, {int(hits.sum())} of {hits.numel()} candidates are ruled "
                "out and yet valid",
            )


@contract(
    CONTRACTS,
    "a user who took everything gets no valid candidate",
    "mask what is left with present or exclude; do not fail and do not loop for ever",
)
def _nothing_left(subject: Subject) -> None:
    place = world()
    make = subject.make if subject.excluding is None else subject.excluding("window")
    sampler = make(place.info)
    if subject.excluding is None and sampler.exclude not in ("window", "history"):
        raise DoesNotApplyError(f"exclude={sampler.exclude}")
    everything = list(range(1, place.info.n_items + 1))
    queries = place.queries(_with_history(Batch.of([everything, [5, 6, 7]])))
    negatives = _sample(sampler, queries, place.scorer(), _step(0))
    _well_formed(negatives, queries, place.info.n_items)
    valid = negatives.valid(queries)[queries.sequence == 0]
    demand(not valid.any(), f"{int(valid.sum())} candidates are valid")


@contract(
    CONTRACTS,
    "the draw follows from step.generator alone",
    "draw with generator=step.generator, keep no other source of randomness and no hidden state",
)
def _same_draw(subject: Subject) -> None:
    place = world()
    sampler = subject.make(place.info)
    for queries in _some_queries(place):
        first = _sample(sampler, queries, place.scorer(), _step(1))
        again = _sample(sampler, queries, place.scorer(), _step(1))
        demand(_equal(first, again), "the same generator state gave two different draws")
        step = _step(2)
        assert step.generator is not None
        before = step.generator.get_state()
        other = _sample(sampler, queries, place.scorer(), step)
        drawn = not torch.equal(before, step.generator.get_state())
        demand(not drawn or not _equal(first, other), "another generator gave the same draw")
        _observe(sampler, queries, first, place.scorer())


@contract(
    CONTRACTS,
    "nothing is drawn from a global source of randomness",
    "draw with generator=step.generator: what global streams give depends on who drew before",
)
def _no_global_randomness(subject: Subject) -> None:
    place = world()
    sampler, scorer = subject.make(place.info), place.scorer()
    before = _global_states()

    def unmoved() -> None:
        for name, state in _global_states().items():
            demand(state == before[name], f"the global state of {name} has moved")

    for queries in _some_queries(place):
        negatives = _sample(sampler, queries, scorer, _step(1))
        unmoved()
        _observe(sampler, queries, negatives, scorer)
        unmoved()


@contract(
    CONTRACTS,
    "sample changes neither the sampler nor its arguments",
    "learn in observe(feedback), which is called after the optimiser's step",
)
def _sample_is_pure(subject: Subject) -> None:
    place = world()
    sampler, scorer = subject.make(place.info), place.scorer()
    for queries in _some_queries(place):
        own = copy.deepcopy(dict(sampler.named_buffers()))
        given = copy.deepcopy((queries.hidden, queries.target, queries.batch.items, scorer.weight))
        negatives = _sample(sampler, queries, scorer, _step(1))
        for name, buffer in sampler.named_buffers():
            demand(_same(buffer, own[name]), f"sample has changed the buffer {name}")
        left = (queries.hidden, queries.target, queries.batch.items, scorer.weight)
        demand(all(map(torch.equal, given, left)), "sample has changed what it was given")
        _observe(sampler, queries, negatives, scorer)


@contract(
    CONTRACTS,
    "a state_dict round trip keeps the draws",
    "keep what is learnt in buffers: self.register_buffer(name, tensor)",
)
def _round_trip(subject: Subject) -> None:
    place = world()
    sampler, scorer = subject.make(place.info), place.scorer()
    batches = list(islice(place.batches(40, epochs=2), 10))
    for index, batch in enumerate(batches[:6]):
        _turn(sampler, place.queries(batch), scorer, _step(index))
    twin = subject.make(place.info)
    twin.load_state_dict(copy.deepcopy(sampler.state_dict()))
    for index, batch in enumerate(batches[6:]):
        queries = place.queries(batch)
        one, other = (_turn(s, queries, scorer, _step(index, 1)) for s in (sampler, twin))
        demand(_equal(one, other), f"draw {index + 1} after the round trip differs")


@contract(
    CONTRACTS,
    "its tensors move with .to(device)",
    "register every tensor with register_buffer; only buffers move",
)
def _moves(subject: Subject) -> None:
    sampler = subject.make(world().info)
    for module in sampler.modules():
        for name, value in vars(module).items():
            demand(not isinstance(value, Tensor), f"{name} is a tensor and no buffer")
    sampler = sampler.to("meta")
    for name, buffer in sampler.named_buffers():
        demand(buffer.is_meta, f"the buffer {name} stays where it was")


@contract(
    CONTRACTS,
    "candidates of some queries are those of all, selected",
    "give tensors by rows (R, K) for items, log_q and present, by query for the others",
)
def _selection(subject: Subject) -> None:
    place = world()
    sampler = subject.make(place.info)
    queries = next(_some_queries(place))
    negatives = _sample(sampler, queries, place.scorer(), _step(0))
    valid, n = negatives.valid(queries), len(queries.target)
    rows = {
        name: None if tensor is None else negatives.of(tensor).expand(n, -1)
        for name, tensor in (
            ("items", negatives.items),
            ("log_q", negatives.log_q),
            ("present", negatives.present),
        )
    }
    every = torch.arange(n)
    for index in (slice(3, 17), every[::7], every[n - 1 :], every[5:5]):
        some, part = negatives.select(index), queries.select(index)
        demand(torch.equal(some.valid(part), valid[index]), "valid candidates differ")
        for name, whole in rows.items():
            own = getattr(some, name)
            if whole is not None:
                own = some.of(own).expand(len(part.target), -1)
                demand(torch.equal(own, whole[index]), f"{name} differs")


@contract(
    CONTRACTS,
    "log_q is the density that log_prob gives",
    "compute log_q by log_prob_for(items, queries), and target_log_q by log_prob(queries.target), "
    "up to what a batch adds to all of them alike",
)
def _log_q(subject: Subject) -> None:
    place = world()
    for policy, make in subject.policies():
        sampler = make(place.info)
        for queries in _some_queries(place):
            # Before it observes: what it learns from a step may change what it draws from.
            negatives = _sample(sampler, queries, place.scorer(), _step(0))
            if not sampler.has_density:
                told = negatives.log_q is not None
                demand(negatives.target_log_q is None, "log_prob gives no density of targets")
                demand(not told or sampler.density_by_query, "there is a log_q, and no density")
                demand(told or not sampler.density_by_query, "log_q is missing")
                raise DoesNotApplyError("log_prob gives none")
            log_q, target_log_q = negatives.log_q, negatives.target_log_q
            demand(log_q is not None and target_log_q is not None, "log_q is missing")
            assert log_q is not None
            assert target_log_q is not None
            shape = (len(queries.target), negatives.k)
            expected = sampler.log_prob_for(negatives.of().expand(shape), queries)
            assert expected is not None
            there = torch.ones(shape, dtype=torch.bool)
            if negatives.present is not None:
                there = negatives.of(negatives.present).expand(shape)
            given = negatives.of(log_q).expand(shape)[there]
            demand(given.isfinite().all(), "log_q is not finite where something was drawn")
            wanted = expected.expand(shape)[there]
            demand(_close(given, wanted), f"log_q is not log_prob_for with exclude={policy}")
            of_targets = sampler.log_prob(queries.target)
            assert of_targets is not None
            shift = target_log_q - of_targets
            demand(_close(shift, shift[:1].expand_as(shift)), "target_log_q is not log_prob's")
            _observe(sampler, queries, negatives, place.scorer(), 0)


@contract(
    CONTRACTS,
    "the density sums to 1",
    "normalise: log_prob(all items).exp().sum() is 1",
)
def _sums_to_one(subject: Subject) -> None:
    place = world()
    for policy, make in subject.policies():
        sampler = _with_density(make(place.info))
        total = _probability(sampler, _every(place)).sum()
        demand(abs(total - 1) < 1e-4, f"it sums to {total:.5f}")
        queries = next(_some_queries(place))
        allowed = ~forbidden(queries, policy, place.info.n_items)[:, 1:]
        mass = (_probability_for(sampler, queries, place) * allowed).sum(1)
        demand(
            (mass < 1 + 1e-4).all(),
            f"with exclude={policy}, log_prob_for gives what is not ruled out up to "
            f"{mass.max():.5f}",
        )


@contract(
    CONTRACTS,
    "items come as often as log_prob says",
    "give the density that sample really draws from",
)
def _frequencies(subject: Subject) -> None:
    if subject.excluding is None:
        make = subject.make
        if make(world().info).exclude != "none":
            raise DoesNotApplyError("it excludes items, and exclude cannot be set to none")
    else:
        make = subject.excluding("none")
    place = world(even=True)
    sampler = _with_density(make(place.info))
    observed = _count(sampler, place, "none").observed
    expected = _probability(sampler, _every(place)) * observed.sum()
    p = chi_square_p(observed, expected)
    demand(
        p > _LEAST_P,
        f"chi-square over {int(observed.sum()):,} draws gives p = {p:.1e}: "
        f"{_worst(observed, expected)}",
    )


@contract(
    CONTRACTS,
    "a query's items come as often as its log_q says",
    "give with each candidate the log density that this query's draw really has, over all that is "
    "not ruled out",
)
def _own_frequencies(subject: Subject) -> None:
    place = world()
    if not subject.make(place.info).density_by_query:
        raise DoesNotApplyError("its density, if any, is that of log_prob")
    for policy, make in subject.policies():
        sampler, scorer = make(place.info), place.scorer()
        queries = next(_some_queries(place))
        _turn(sampler, queries, scorer, _step(0))
        for n in (0, len(queries.target) // 2):
            same = queries.select(torch.full((_DRAWS,), n))
            negatives = _sample(sampler, same, scorer, _step(1))
            log_q = negatives.log_q
            assert log_q is not None
            demand(
                negatives.own_rows and log_q.shape == negatives.items.shape, "log_q is no (N, K)"
            )
            _as_often(negatives.items.flatten() - 1, log_q.flatten().double(), place, policy)


def _as_often(item: Tensor, log_q: Tensor, place: World, policy: Exclude) -> None:
    """Draws (M,) of one query follow the densities that came with them."""
    demand(log_q.isfinite().all(), "log_q is not finite where something was drawn")
    density = torch.zeros(place.info.n_items, dtype=torch.double)
    density[item] = log_q.exp()
    demand(_close(density[item].log(), log_q), "an item's log_q differs from draw to draw")
    total = float(density.sum())
    demand(
        total < 1 + 1e-4, f"with exclude={policy}, the densities of what came sum to {total:.4f}"
    )
    observed, expected = torch.bincount(item, minlength=len(density)), density * len(item)
    # What is rare shares a cell with what never came, whose density nobody has told.
    common = expected >= _RARE
    observed, expected = observed[common], expected[common]
    observed = torch.cat([observed, (len(item) - observed.sum())[None]])
    expected = torch.cat([expected, (len(item) - expected.sum()).clamp(min=0)[None]])
    p = chi_square_p(observed, expected)
    demand(
        p > _LEAST_P,
        f"with exclude={policy}, chi-square over {len(item):,} draws gives p = {p:.1e}",
    )


@contract(
    CONTRACTS,
    "draws that avoid what is ruled out have the renormalised density",
    "let log_prob_for divide by the mass that is left, as Proposal does",
)
def _renormalised(subject: Subject) -> None:
    place = world(even=True)
    # The policy that rules out most comes first: it tells most.
    for policy, make in reversed([*subject.policies()]):
        sampler = _with_density(make(place.info))
        if policy == "none":
            continue
        counted = _count(sampler, place, policy)
        if counted.hits or counted.expected_hits < _EXPECTED_HITS:
            continue  # it masks hits, or has too few to tell
        observed, expected = counted.observed, counted.expected
        p, total = chi_square_p(observed, expected), float(expected.sum() / observed.sum())
        demand(
            p > _LEAST_P and abs(total - 1) < 1e-4,
            f"with exclude={policy}, chi-square over {int(observed.sum()):,} draws gives "
            f"p = {p:.1e}, and log_prob_for sums to {total:.4f} over what is left",
        )
        return
    raise DoesNotApplyError("its draws are masked, not redrawn")


@contract(
    CONTRACTS,
    "a draw without the model takes memory for its candidates only",
    "never make a tensor of the catalogue's size in sample: prepare it in __init__",
)
def _memory(subject: Subject) -> None:
    place = world()
    sampler = subject.make(place.info)
    if sampler.exhaustive:
        raise DoesNotApplyError("the candidates are the catalogue")
    queries = next(_some_queries(place))
    one = _sample(sampler, queries, place.scorer(), _step(0))
    other = _sample(sampler, queries, place.scorer(seed=5), _step(0))
    if not _equal(one, other):
        raise DoesNotApplyError("it reads the model")
    small, large = 1_000, 1_000_000
    # Far less than a tensor of the large catalogue: redrawing differs a little.
    used = [_allocated(subject.make, queries, n) for n in (small, large)]
    demand(
        used[1] <= 1.5 * used[0] + (1 << 16),
        f"{used[0] / 1e6:.2f} MB with {small:,} items, {used[1] / 1e6:.2f} MB with {large:,}",
    )


# ---- the toys they are checked on


def forbidden(queries: Queries, policy: Exclude, n_items: int) -> Tensor:
    """What a policy rules out, spelt out item by item, (N, V + 1) bool."""
    batch = queries.batch
    out = torch.zeros(len(queries.target), n_items + 1, dtype=torch.bool)
    if policy == "none":
        return out
    targets: dict[int, list[int]] = {}
    for sequence, target in zip(queries.sequence.tolist(), queries.target.tolist(), strict=True):
        targets.setdefault(sequence, []).append(target)
    for n, (s, target) in enumerate(
        zip(queries.sequence.tolist(), queries.target.tolist(), strict=True)
    ):
        out[n, target] = True
        if policy == "window":
            out[n, batch.items[batch.offsets[s] : batch.offsets[s + 1]]] = True
            out[n, targets[s]] = True
        elif policy == "history":
            seen = batch.seen
            assert seen is not None
            out[n, seen.values[seen.offsets[s] : seen.offsets[s + 1]]] = True
    return out


def _with_history(batch: Batch) -> Batch:
    """The batch with the items of its sequences as its users' training items."""
    if batch.seen is not None:
        return batch
    pairs = {
        (s, item)
        for tokens, sequence in (
            (batch.items, batch.sequence),
            (batch.target, batch.sequence[batch.query]),
        )
        for s, item in zip(sequence.tolist(), tokens.tolist(), strict=True)
    }
    rows = torch.tensor(sorted(pairs))
    sizes = torch.bincount(rows[:, 0], minlength=batch.n_sequences)
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    return replace(batch, seen=Jagged(rows[:, 1].contiguous(), offsets))


def _some_queries(place: World) -> Iterator[Queries]:
    for seed, batch in enumerate(islice(place.batches(40), 3)):
        yield place.queries(batch, seed)


def _step(index: int, epoch: int = 0) -> Step:
    return Step(epoch, index, seeding.generator(0, "contract", epoch, index), (epoch, index))


def _sample(sampler: Sampler, queries: Queries, scorer: ItemScorer, step: Step) -> Negatives:
    with torch.no_grad():
        return sampler.sample(queries.detach(), scorer, step)


def _observe(
    sampler: Sampler, queries: Queries, negatives: Negatives, scorer: ItemScorer, epoch: int = 0
) -> None:
    with torch.no_grad():
        judgement = BCE()(queries, negatives, scorer)
    sampler.observe(Feedback(queries.detach(), negatives, judgement.scores, judgement.loss, epoch))


def _turn(sampler: Sampler, queries: Queries, scorer: ItemScorer, step: Step) -> Negatives:
    """A step as a training takes it."""
    negatives = _sample(sampler, queries, scorer, step)
    _observe(sampler, queries, negatives, scorer, step.epoch)
    return negatives


def _equal(one: Negatives, other: Negatives) -> bool:
    return all(
        _same(getattr(one, name), getattr(other, name))
        for name in ("items", "row", "log_q", "present", "label", "mined")
    )


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and bool(
        torch.isclose(one, other, rtol=0, atol=0, equal_nan=True).all()
    )


def _close(one: Tensor, other: Tensor) -> bool:
    return bool(torch.isclose(one, other, rtol=1e-4, atol=1e-5).all())


def _global_states() -> dict[str, str]:
    return {
        "torch": str(torch.get_rng_state().tolist()),
        "numpy": str(np.random.get_state()),  # noqa: NPY002 - what we look for
        "random": str(random.getstate()),
    }


def _with_density(sampler: Sampler) -> Sampler:
    if not sampler.has_density:
        raise DoesNotApplyError("it has no density")
    return sampler


def _every(place: World) -> Tensor:
    return torch.arange(1, place.info.n_items + 1)


def _probability(sampler: Sampler, items: Tensor) -> Tensor:
    log_q = sampler.log_prob(items)
    assert log_q is not None
    demand(log_q.shape == items.shape, "log_prob gives another shape than that of the items")
    return log_q.double().exp()


def _probability_for(sampler: Sampler, queries: Queries, place: World) -> Tensor:
    shape = (len(queries.target), place.info.n_items)
    log_q = sampler.log_prob_for(_every(place).expand(shape), queries)
    assert log_q is not None
    return log_q.double().exp().expand(shape)


@dataclass(frozen=True)
class _Counted:
    """Draws of a sampler.

    Attributes:
        observed: how often each item came that was not ruled out, (V,).
        expected: how often it should have, by ``log_prob_for``, (V,).
        hits: whether a draw was ruled out, after which none was counted any more.
        expected_hits: how many would be if draws followed ``log_prob`` and nothing was redrawn.
    """

    observed: Tensor
    expected: Tensor
    hits: bool
    expected_hits: float


def _count(sampler: Sampler, place: World, policy: Exclude) -> _Counted:
    """Draws for one query of each of many batches, as training takes its steps.

    Only one: what several queries of a batch get may be one shared draw. It ends early where hits
    are masked, or are too rare to tell anything.
    """
    batches = [place.queries(batch) for batch in place.batches(16, epochs=5)]
    scorer = place.scorer()
    observed = torch.zeros(place.info.n_items, dtype=torch.double)
    expected, expected_hits = observed.clone(), 0.0
    plain = _probability(sampler, _every(place))
    turns = [(queries, forbidden(queries, policy, place.info.n_items)) for queries in batches]
    steps = _STEPS[1]
    for index, (queries, ruled_out) in enumerate(cycle(turns)):
        negatives = _turn(sampler, queries, scorer, _step(index))
        n = index % len(queries.target)
        own, part = queries.select(slice(n, n + 1)), negatives.select(slice(n, n + 1))
        drawn = part.of()[0]
        if part.present is not None:
            drawn = drawn[part.of(part.present)[0]]
        if ruled_out[n, drawn].any():
            return _Counted(observed, expected, True, 0.0)
        observed += torch.bincount(drawn - 1, minlength=len(observed))
        allowed = ~ruled_out[n, 1:]
        expected += len(drawn) * _probability_for(sampler, own, place)[0] * allowed
        expected_hits += len(drawn) * float(plain[~allowed].sum())
        if index == 0:
            steps = min(_STEPS[1], max(_STEPS[0], _DRAWS // negatives.k))
        if index == 100 and policy != "none" and expected_hits * steps < 50 * _EXPECTED_HITS:
            break
        if index == steps:
            break
    return _Counted(observed, expected, False, expected_hits)


def _worst(observed: Tensor, expected: Tensor) -> str:
    difference = (observed - expected).abs() / expected.clamp(min=1).sqrt()
    item = int(difference.argmax())
    return (
        f"item {item + 1} came {int(observed[item])} times, and {expected[item]:.1f} were expected"
    )


class _Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of all tensors that operations make."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {id_ for leaf in tree_leaves((args, kwargs)) if (id_ := _storage(leaf))}
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and _storage(leaf) not in given:
                self.total += leaf.untyped_storage().nbytes()
        return out


def _storage(leaf: object) -> int:
    """What tells storages apart; 0 for what is no tensor."""
    return int(leaf.untyped_storage()._cdata) if isinstance(leaf, Tensor) else 0


def _allocated(make: Make, queries: Queries, n_items: int) -> int:
    """Bytes that one draw makes in a catalogue of so many items."""
    place = world(n_items)
    sampler, scorer = make(place.info), place.scorer()
    _turn(sampler, queries, scorer, _step(0))  # whatever is made once, is made here
    fresh = queries.select(slice(0, len(queries.target)))
    with _Allocations() as allocations:  # type: ignore[no-untyped-call]
        _sample(sampler, fresh, scorer, _step(1))
    total: int = allocations.total
    return total
