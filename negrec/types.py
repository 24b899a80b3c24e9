"""The vocabulary that passes between the rooms.

Shapes, everywhere in negrec: B sequences, T tokens, N queries (positions with a target; padding
is never among them), K candidates, R rows of candidates, V items (ids 1..V, 0 is PAD or "outside
the catalogue"), D hidden size, M held-out targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor

from negrec.world import ALONE, World

if TYPE_CHECKING:
    from negrec.packing import Rows, Times

Exclude = Literal["none", "target", "window", "history"]
Share = Literal["query", "sequence", "batch"]

HIDDEN = 0  # an input item that is there and not told: masked, or outside the catalogue


def moved(x: Tensor, device: torch.device | str) -> Tensor:
    """The same tensor on another device; the host does not wait for a copy to CUDA."""
    device = torch.device(device)
    if device.type == "cuda" and x.device.type == "cpu":
        # From memory that cannot be paged out: from other memory a copy waits for the device.
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


@dataclass(frozen=True)
class Jagged:
    """Rows of different lengths without padding.

    Attributes:
        values: the rows one after the other, (M,).
        offsets: row r is ``values[offsets[r]:offsets[r + 1]]``, (R + 1,), int64.
    """

    values: Tensor
    offsets: Tensor

    @property
    def lengths(self) -> Tensor:
        """(R,)."""
        return self.offsets.diff()

    @cached_property
    def row(self) -> Tensor:
        """The row of each value, (M,)."""
        return torch.repeat_interleave(self.lengths, output_size=len(self.values))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, start: int, stop: int) -> Jagged:
        """The rows ``start``, ..., ``stop - 1``."""
        offsets = self.offsets[start : stop + 1]
        return Jagged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def to(self, device: torch.device | str) -> Jagged:
        return Jagged(moved(self.values, device), moved(self.offsets, device))


@dataclass(frozen=True)
class DatasetInfo:
    """Facts of the TRAINING split: all that models, samplers and losses may know of the data.

    Attributes:
        n_users: users of the data set; user indices are 0..n_users - 1.
        n_items: size V of the catalogue; item ids are 1..V.
        max_length: the longest history that a model sees, in items.
        counts: training interactions of each item before any truncation, (V,), int64.
        train: the users' training items in order, untruncated (n_users rows).
        attributes: attribute ids of each item (V rows), where the data set has them.
        trained_users: whether a user has a training window, (n_users,), bool; None: all have.
        target_counts: how often each item is a target in an epoch of the training windows, the
            expectation where targets are drawn, (V,), float64.
        token_base: the training tokens are numbered 0..n_tokens - 1, and token ``position`` of a
            user's history is number ``token_base[user] + position``, (n_users,), int64.
        n_tokens: tokens of the training windows, each counted once.
    """

    n_users: int
    n_items: int
    max_length: int
    counts: Tensor
    train: Jagged | None = None
    attributes: Jagged | None = None
    trained_users: Tensor | None = None
    target_counts: Tensor | None = None
    token_base: Tensor | None = None
    n_tokens: int = 0


@dataclass(frozen=True)
class Batch:
    """B interaction sequences, jagged: flat tensors and offsets, no padding.

    Attributes:
        user: user index of each sequence, -1 for somebody who is not in the data, (B,).
        items: input items, oldest first, sequence after sequence; HIDDEN where the item is not
            told, (T,).
        position: index of each token in the user's whole history, (T,); stable over epochs.
        offsets: sequence b is ``items[offsets[b]:offsets[b + 1]]``, (B + 1,).
        query: indices into the T tokens that carry a target, ascending, (N,).
        target: the target of each query, (N,).
        seen: the training items of each sequence's user, ascending in each row (B rows);
            None where a batch was made without.
        key: what the batch's random streams are derived from; a replayed batch keeps its key.
        shard: where this part of a batch lies, among several ranks; None: it is all of it.
    """

    user: Tensor
    items: Tensor
    position: Tensor
    offsets: Tensor
    query: Tensor
    target: Tensor
    seen: Jagged | None = None
    key: tuple[int, ...] = ()
    shard: Shard | None = None

    @classmethod
    def of(cls, histories: Sequence[Sequence[int]]) -> Self:
        """The training batch of whole histories, users 0, 1, ...: each item asks for the next.

        Args:
            histories: item ids, oldest first, at least two each.
        """
        if any(len(history) < 2 for history in histories):
            raise ValueError("a training history needs at least two items")
        lengths = torch.tensor([len(history) - 1 for history in histories])
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        items = torch.tensor([item for history in histories for item in history[:-1]])
        target = torch.tensor([item for history in histories for item in history[1:]])
        index = torch.arange(len(items))
        position = index - torch.repeat_interleave(offsets[:-1], lengths)
        return cls(torch.arange(len(lengths)), items, position, offsets, index, target)

    @property
    def n_sequences(self) -> int:
        return len(self.offsets) - 1

    @property
    def whole(self) -> Batch:
        """The batch that this is a part of; itself where it is all of it."""
        return self if self.shard is None else self.shard.whole

    @property
    def world(self) -> World:
        """The ranks that have the batch's parts."""
        return ALONE if self.shard is None else self.shard.world

    def part(self, world: World) -> Batch:
        """What one of several ranks has of the batch: neighbouring sequences, at least one.

        The parts have about as many tokens each. Where there are fewer sequences than ranks, the
        whole batch.
        """
        n, ranks = self.n_sequences, world.size
        if ranks == 1 or n < ranks:
            return self
        share = torch.arange(1, ranks, dtype=torch.double) / ranks
        cuts = torch.searchsorted(self.offsets.double(), self.offsets[-1] * share).tolist()
        sequences = [0]
        for rank, cut in enumerate(cuts):
            sequences.append(min(max(cut, sequences[-1] + 1), n - (ranks - 1 - rank)))
        sequences.append(n)
        tokens = self.offsets[sequences]
        queries = torch.searchsorted(self.query, tokens)
        bounds: dict[Literal["sequence", "token", "query"], tuple[int, ...]] = {
            "sequence": tuple(sequences),
            "token": tuple(tokens.tolist()),
            "query": tuple(queries.tolist()),
        }
        (first, last), (begin, end), (ask, asked) = (
            of[world.rank : world.rank + 2] for of in bounds.values()
        )
        return replace(
            self,
            user=self.user[first:last],
            items=self.items[begin:end],
            position=self.position[begin:end],
            offsets=self.offsets[first : last + 1] - begin,
            query=self.query[ask:asked] - begin,
            target=self.target[ask:asked],
            seen=None if self.seen is None else self.seen.rows(first, last),
            shard=Shard(self, world, bounds),
        )

    def own(self, rows: Tensor, of: Share | Literal["token"]) -> Tensor:
        """This part's rows of what was made for the whole batch.

        Args:
            rows: (R, ...).
            of: what each row is of; what the whole batch shares is everybody's own.
        """
        if self.shard is None or of == "batch":
            return rows
        bounds, rank = self.shard.bounds[of], self.world.rank
        return rows[bounds[rank] : bounds[rank + 1]]

    def gather(self, rows: Tensor, of: Literal["query", "sequence"]) -> Tensor:
        """All parts' rows, in the order of the whole batch, with gradients.

        Args:
            rows: this part's, (R, ...).
            of: what each row is of.
        """
        if self.shard is None:
            return rows
        return self.world.gather(rows, [b - a for a, b in pairwise(self.shard.bounds[of])])

    @cached_property
    def sequence(self) -> Tensor:
        """The sequence of each token, (T,)."""
        return Jagged(self.items, self.offsets).row

    @cached_property
    def from_end(self) -> Tensor:
        """How many tokens of the same sequence follow each token, (T,); the newest has 0."""
        index = torch.arange(len(self.items), device=self.items.device)
        return self.offsets[1:][self.sequence] - 1 - index

    @cached_property
    def before(self) -> Tensor:
        """How many tokens of the same sequence precede each token, (T,); the oldest has 0."""
        index = torch.arange(len(self.items), device=self.items.device)
        return index - self.offsets[:-1][self.sequence]

    @cached_property
    def last(self) -> Tensor:
        """Index of the newest token of each sequence, (B,)."""
        return self.offsets[1:] - 1

    @cached_property
    def rows(self) -> Rows:
        """The tokens packed for attention: several short sequences share a row."""
        from negrec.packing import pack

        return pack(self.offsets)

    @cached_property
    def whole_rows(self) -> Rows:
        """The same, each token seeing its whole sequence."""
        from negrec.packing import pack

        return pack(self.offsets, causal=False)

    @cached_property
    def times(self) -> Times:
        """The tokens as a recurrent network reads them: all first ones, all second ones."""
        from negrec.packing import by_time

        return by_time(self.offsets, self.sequence, self.before)

    @cached_property
    def window(self) -> ItemSets:
        """The items of each sequence in this batch, targets included."""
        told = self.items != HIDDEN
        items = torch.cat([self.items[told], self.target])
        return ItemSets.of(torch.cat([self.sequence[told], self.sequence[self.query]]), items)

    @cached_property
    def history(self) -> ItemSets:
        """All training items of each sequence's user."""
        if self.seen is None:
            raise ValueError("exclude=history needs batches that carry the users' items (seen)")
        return ItemSets.of(self.seen.row, self.seen.values)

    def with_hidden_end(self) -> Batch:
        """The same sequences with one more item each that is not told, and no queries."""
        shift = torch.arange(len(self.offsets), device=self.offsets.device)
        offsets = self.offsets + shift
        token = torch.arange(len(self.items), device=self.items.device) + self.sequence
        end = offsets[1:] - 1
        items = self.items.new_full((len(self.items) + self.n_sequences,), HIDDEN)
        items[token] = self.items
        position = torch.empty_like(items)
        position[token] = self.position
        position[end] = self.position[self.last] + 1
        none = self.query[:0]
        return replace(
            self,
            items=items,
            position=position,
            offsets=offsets,
            query=none,
            target=none,
            shard=None,
        )

    def padded(self) -> tuple[Tensor, Tensor]:
        """Left-aligned items with zeros behind, (B, Lmax), and where the tokens are, bool."""
        lengths = self.offsets.diff()
        width = int(lengths.max())
        valid = torch.arange(width, device=self.items.device) < lengths[:, None]
        items = self.items.new_zeros(len(lengths), width)
        items[valid] = self.items
        return items, valid

    @property
    def built(self) -> frozenset[str]:
        """What has been asked of this batch and takes a look at its numbers to build."""
        return _BUILT & self.__dict__.keys()

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device, with what is built of it."""
        there = replace(
            self,
            user=moved(self.user, device),
            items=moved(self.items, device),
            position=moved(self.position, device),
            offsets=moved(self.offsets, device),
            query=moved(self.query, device),
            target=moved(self.target, device),
            seen=None if self.seen is None else self.seen.to(device),
            shard=None if self.shard is None else self.shard.to(device),
        )
        for name in self.built:
            there.__dict__[name] = self.__dict__[name].to(device)
        return there


# On a device each of these would make the host wait for it; built on the CPU they move along.
_BUILT = frozenset({"rows", "whole_rows", "times", "window", "history"})


@dataclass(frozen=True)
class ItemSets:
    """A set of items for each sequence of a batch.

    Attributes:
        keys: sequence * stride + item of each member, ascending, (M,).
        stride: more than the largest item.
    """

    keys: Tensor
    stride: int

    @classmethod
    def of(cls, sequence: Tensor, items: Tensor) -> Self:
        """The sets of some (sequence, item) pairs, which may repeat."""
        stride = int(items.max()) + 1
        return cls(torch.unique(sequence * stride + items), stride)

    def to(self, device: torch.device | str) -> ItemSets:
        return ItemSets(moved(self.keys, device), self.stride)


@dataclass(frozen=True)
class Shard:
    """Which part of a batch one of several ranks has.

    Attributes:
        whole: the batch.
        world: the ranks, each with a part of its own.
        bounds: of sequences, tokens and queries: rank r has those numbered ``bounds[r]``, ...,
            ``bounds[r + 1] - 1``, (ranks + 1).
    """

    whole: Batch
    world: World
    bounds: Mapping[Literal["sequence", "token", "query"], tuple[int, ...]]

    def to(self, device: torch.device | str) -> Shard:
        return replace(self, whole=self.whole.to(device))


@dataclass(frozen=True)
class Queries:
    """What a model answers a batch with: N states that ask for their next item.

    Attributes:
        hidden: (N, D).
        target: (N,).
        user: (N,).
        position: index of the query's token in the user's history, (N,).
        sequence: the batch's sequence that each query belongs to, ascending, (N,).
        batch: where the queries come from.
    """

    hidden: Tensor
    target: Tensor
    user: Tensor
    position: Tensor
    sequence: Tensor
    batch: Batch

    @classmethod
    def of(cls, batch: Batch, states: Tensor) -> Self:
        """The queries of a batch, given one state per token (T, D)."""
        sequence = batch.sequence[batch.query]
        # Where every token is a query (next-item targets), the gather would only copy.
        every = len(batch.query) == len(batch.items)
        hidden = states if every else states[batch.query]
        return cls(
            hidden,
            batch.target,
            batch.user[sequence],
            batch.position[batch.query],
            sequence,
            batch,
        )

    def detach(self) -> Queries:
        detached = replace(self, hidden=self.hidden.detach())
        detached.__dict__["excluded"] = self.excluded  # its sets are built once
        return detached

    def select(self, index: Tensor | slice) -> Queries:
        """Some of the queries, in the given order, which must leave sequences ascending."""
        chosen = Queries(
            self.hidden[index],
            self.target[index],
            self.user[index],
            self.position[index],
            self.sequence[index],
            self.batch,
        )
        # The sets of excluded items belong to the batch and are built once.
        chosen.__dict__["excluded"] = self.excluded.select(index)
        return chosen

    @cached_property
    def excluded(self) -> Exclusion:
        return Exclusion(self.target, self.sequence, self.batch)

    @cached_property
    def whole(self) -> Queries:
        """All queries of the whole batch; of a batch in parts without their states, (N, 0)."""
        if self.batch.shard is None:
            return self
        whole = self.batch.whole
        return Queries.of(whole, self.hidden.new_empty(len(whole.items), 0))


class Exclusion:
    """Which items a query must not be given as negatives, for each policy.

    Sets are kept as sorted keys ``sequence * stride + item``: a look-up is a binary search, and
    nothing of the catalogue's size is held for a query.

    Args:
        target: of each query, (N,).
        sequence: of each query, (N,).
        batch: where the queries come from.
    """

    # Not the queries themselves: they keep this object, and in a circle of references a step's
    # states, with the graph behind them, would live on until Python looks for such circles.
    def __init__(self, target: Tensor, sequence: Tensor, batch: Batch) -> None:
        self._target, self._sequence, self._batch = target, sequence, batch

    def select(self, index: Tensor | slice) -> Exclusion:
        """The same for some of the queries."""
        return Exclusion(self._target[index], self._sequence[index], self._batch)

    def contains(self, items: Tensor, index: Tensor, exclude: Exclude) -> Tensor:
        """Whether each item is excluded for the query beside it.

        Args:
            items: (...,) item ids.
            index: (...,) the query each item was drawn for, broadcastable to ``items``.
            exclude: the policy.
        """
        if exclude == "none":
            return torch.zeros_like(items, dtype=torch.bool)
        own = items == self._target[index]
        if exclude == "target":
            return own
        return own | self.members(items, self._sequence[index], exclude)

    def members(self, items: Tensor, sequence: Tensor, exclude: Exclude) -> Tensor:
        """Whether each item is in the set of the sequence beside it, "window" or "history".

        Args:
            items: (...,) item ids.
            sequence: (...,) broadcastable to ``items``, or the other way round.
            exclude: the policy.
        """
        sets = self._sets(exclude)
        keys, stride = sets.keys, sets.stride
        wanted = sequence * stride + items
        # An item beyond the stride is in no set, and its key would be another sequence's.
        at = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
        return (keys[at] == wanted) & (items < stride)

    def pairs(self, exclude: Exclude) -> tuple[Tensor, Tensor]:
        """All excluded (query, item) pairs, each once, two tensors (P,)."""
        index = torch.arange(len(self._target), device=self._target.device)
        if exclude == "none":
            return index[:0], index[:0]
        if exclude == "target":
            return index, self._target
        sets = self._sets(exclude)
        keys, stride = sets.keys, sets.stride
        owner = keys // stride
        every = torch.arange(self._batch.n_sequences + 1, device=owner.device)
        bounds = torch.searchsorted(owner, every)
        sizes = bounds.diff()[self._sequence]
        query = torch.repeat_interleave(sizes)
        first = sizes.cumsum(0) - sizes
        within = torch.arange(len(query), device=query.device) - first[query]
        item = keys[bounds[self._sequence][query] + within] % stride
        other = item != self._target[query]
        return torch.cat([index, query[other]]), torch.cat([self._target, item[other]])

    def _sets(self, exclude: Exclude) -> ItemSets:
        """The sets of "window" or "history", which belong to the batch and are built once."""
        return self._batch.window if exclude == "window" else self._batch.history


Policy = Exclude | tuple[tuple[Exclude, int], ...]


@dataclass(frozen=True)
class Negatives:
    """What a sampler answers queries with.

    Attributes:
        items: candidate ids, (R, K). R = 1: one draw for all queries; R = B: one per sequence
            (``row = queries.sequence``); R = N: one per query.
        row: which row each query reads, ascending, (N,); None when R is 1 or N.
        log_q: log of the density that each candidate was drawn from, (R, K); None where there is
            none.
        target_log_q: log of the proposal density of each target, (N,).
        label: 1 where a candidate counts as a positive (false-negative reversal), (N, K).
        mined: candidates taken for false negatives, (N, K) bool; None where nothing is mined.
        exclude: the policy for accidental hits, applied by ``valid``: one for all columns, or
            (policy, number of columns) from left to right.
        present: False in slots without a candidate, (R, K) bool: a queue that is not yet full, a
            pool with too few valid items. None: every slot has one.
        exhaustive: the candidates are the whole catalogue, 1..V in one row.
        drawn: of a sampler made of others, what each of them answered; they observe that.
    """

    items: Tensor
    row: Tensor | None = None
    log_q: Tensor | None = None
    target_log_q: Tensor | None = None
    label: Tensor | None = None
    mined: Tensor | None = None
    exclude: Policy = "target"
    present: Tensor | None = None
    exhaustive: bool = False
    drawn: tuple[Negatives, ...] = ()

    def __post_init__(self) -> None:
        assert self.items.ndim == 2, self.items.shape

    @property
    def k(self) -> int:
        """K, columns."""
        return self.items.shape[1]

    @property
    def own_rows(self) -> bool:
        """Whether each query has candidates of its own."""
        return self.row is None and len(self.items) != 1

    @property
    def policies(self) -> tuple[tuple[Exclude, int], ...]:
        """Which policy holds for how many columns, from left to right."""
        return self.exclude if isinstance(self.exclude, tuple) else ((self.exclude, self.k),)

    def select(self, index: Tensor | slice) -> Negatives:
        """The negatives of ``queries.select(index)``."""

        def of_queries(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[index]

        own = self.own_rows

        def of_rows(x: Tensor | None) -> Tensor | None:
            return x[index] if own and x is not None else x

        return replace(
            self,
            items=self.items[index] if own else self.items,
            row=of_queries(self.row),
            log_q=of_rows(self.log_q),
            target_log_q=of_queries(self.target_log_q),
            label=of_queries(self.label),
            mined=of_queries(self.mined),
            present=of_rows(self.present),
            drawn=(),
        )

    def of(self, rows: Tensor | None = None) -> Tensor:
        """What is kept by rows (R, K), by query: (N, K), or (1, K) when all share one draw.

        Args:
            rows: ``log_q`` or another tensor (R, K); ``items`` by default.
        """
        rows = self.items if rows is None else rows
        return rows if self.row is None else rows[self.row]

    def valid(self, queries: Queries) -> Tensor:
        """Which candidates stand as negatives (or relabelled positives) of a query, (N, K) bool.

        The one place where accidental hits are ruled out. Of an exhaustive answer ask for a chunk
        of the queries at a time: the result is (N, V).

        Args:
            queries: the queries the candidates were drawn for.
        """
        n, device = len(queries.target), self.items.device
        policies = self.policies
        valid = torch.ones(n, self.k, dtype=torch.bool, device=device)
        if self.present is not None:
            valid &= self.of(self.present)
        if self.exhaustive:  # few pairs are ruled out of many candidates
            for policy, _ in policies:
                query, item = queries.excluded.pairs(policy)
                valid[query, item - 1] = False
            return valid
        start = 0
        for policy, width in policies:
            if policy != "none":
                columns = slice(start, start + width)
                valid[:, columns] &= ~self._hits(queries, self.items[:, columns], policy)
            start += width
        return valid

    def _hits(self, queries: Queries, items: Tensor, policy: Exclude) -> Tensor:
        """Which of some columns (R, k) a policy excludes, (N, k)."""
        own = self.of(items) == queries.target[:, None]
        if policy == "target":
            return own
        sequence = queries.sequence
        if self.own_rows:
            return own | queries.excluded.members(items, sequence[:, None], policy)
        # Sets belong to sequences: a shared candidate is looked up once for each of them.
        every = torch.arange(queries.batch.n_sequences, device=items.device)[:, None]
        return own | queries.excluded.members(items, every, policy)[sequence]


@dataclass(frozen=True)
class Scores:
    """Scores of queries against their target and their candidates.

    Attributes:
        positive: (N,).
        negative: (N, K).
        valid: candidates that count, (N, K) bool.
        n_items: size V of the catalogue.
        log_q: log density of each candidate, broadcastable to (N, K).
        target_log_q: log density of each target, (N,).
        label: 1 where a candidate counts as a positive, (N, K).
    """

    positive: Tensor
    negative: Tensor
    valid: Tensor
    n_items: int
    log_q: Tensor | None = None
    target_log_q: Tensor | None = None
    label: Tensor | None = None

    @cached_property
    def count(self) -> Tensor:
        """Valid candidates of each query, (N,)."""
        return self.valid.sum(1, dtype=torch.int32)  # half the time that int64 takes

    def detach(self) -> Scores:
        return replace(self, positive=self.positive.detach(), negative=self.negative.detach())


@dataclass(frozen=True)
class Judgement:
    """What a loss says of queries and their negatives.

    Attributes:
        loss: of each query, 0 where it was skipped, (N,).
        judged: False where a query was skipped, since none of its candidates was valid, (N,) bool.
        scores: what was read, where it was held at once.
    """

    loss: Tensor
    judged: Tensor
    scores: Scores | None = None

    def mean(self, judged: Tensor | None = None) -> Tensor:
        """The mean over the queries that were judged, 0 where none was; a scalar.

        Args:
            judged: how many were, of a batch of which these are a part: then its share of the mean.
        """
        judged = self.judged.sum() if judged is None else judged
        return self.loss.sum() / judged.clamp(min=1)


Timer = Callable[[str], AbstractContextManager[object]]


def _no_timer(_: str) -> AbstractContextManager[object]:
    return nullcontext()


@dataclass(frozen=True)
class Step:
    """One training step, as samplers and objectives see it.

    Attributes:
        epoch: from 0.
        index: step within the epoch, from 0.
        generator: seeded by (seed, stream, batch key), so that resume and replay are exact.
        batch_key: the key of the batch.
        timer: ``with step.timer("sampler"): ...`` books time under a name.
        shared: where several ranks have parts of the batch, in the same state on all of them;
            ``generator`` is each rank's own then.
    """

    epoch: int
    index: int
    generator: torch.Generator | None = None
    batch_key: tuple[int, ...] = ()
    timer: Timer = field(default=_no_timer)
    shared: torch.Generator | None = None

    @property
    def common(self) -> torch.Generator | None:
        """What draws for the whole batch come from: the same draw on every rank.

        Whoever takes it must take as much from it as all other ranks.
        """
        return self.generator if self.shared is None else self.shared


@dataclass(frozen=True)
class Feedback:
    """What a step left behind, detached: the loss (N,) of each query and what it was made of.

    Scores are None where they were too many to be held. The epoch counts from 0.
    """

    queries: Queries
    negatives: Negatives
    scores: Scores | None
    loss: Tensor
    epoch: int = 0

    @property
    def whole_loss(self) -> Tensor:
        """The loss of each query of the whole batch, (N,): for states that all ranks share."""
        return self.queries.batch.gather(self.loss, "query")


@dataclass(frozen=True)
class Outcome:
    """An objective's answer to a batch, or to a rank's part of it.

    Attributes:
        loss: a scalar with gradient. Of a part: its share, so that the parts' losses add up to
            that of the whole batch.
        feedback: what ``observe`` may learn from.
        skipped: how many queries of the whole batch had no valid candidate, a scalar.
        terms: parts of the loss by name, scalars without gradient, for the log; like ``loss``.
    """

    loss: Tensor
    feedback: Feedback | None = None
    skipped: Tensor | None = None
    terms: Mapping[str, Tensor] = field(default_factory=dict)

    def divided(self, ranks: int) -> Outcome:
        """The share of each of some ranks that have all worked on the whole batch."""
        terms = {name: value / ranks for name, value in self.terms.items()}
        return replace(self, loss=self.loss / ranks, terms=terms)


@dataclass(frozen=True)
class HeldOut:
    """Held-out targets, each with the history that precedes it: M of them.

    Attributes:
        user: user index, (M,).
        target: catalogue id, (M,); 0 where the target is not in the catalogue (cold).
        items: the users' interactions in order, user after user, as catalogue ids.
        start: the history of target m is ``items[start[m]:end[m]]``, (M,).
        end: (M,).
    """

    user: Tensor
    target: Tensor
    items: Tensor
    start: Tensor
    end: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def select(self, index: Tensor | slice) -> HeldOut:
        """The given targets only."""
        return HeldOut(
            self.user[index], self.target[index], self.items, self.start[index], self.end[index]
        )

    def histories(self, newest: int | None = None) -> Jagged:
        """The histories, (M rows); only the ``newest`` items of each where a number is given."""
        start = self.start
        if newest is not None:
            start = torch.maximum(start, self.end - newest)
        return slices(self.items, start, self.end)


def slices(values: Tensor, start: Tensor, end: Tensor) -> Jagged:
    """The rows ``values[start[r]:end[r]]``, gathered without a loop."""
    lengths = end - start
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=values.device)
    torch.cumsum(lengths, 0, out=offsets[1:])
    index = torch.arange(int(offsets[-1]), device=values.device)
    index += torch.repeat_interleave(start - offsets[:-1], lengths, output_size=len(index))
    return Jagged(values[index], offsets)
