"""From histories in the user's own ids to lists in the user's own ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from negrec.data.interactions import Ints
from negrec.errors import InputError
from negrec.evaluation.evaluator import batch_of, evaluating
from negrec.evaluation.ranks import Seen, top
from negrec.kernels.tiles import Scratch, chunks
from negrec.models.base import SequenceModel
from negrec.models.popularity import Popularity
from negrec.types import Batch, DatasetInfo, HeldOut, Jagged, slices

_BATCH = 512  # histories that the model reads at once


@dataclass(frozen=True)
class Taken:
    """Who took what, in order: n interactions of M people.

    Attributes:
        user_ids: own id of each of the people, (M,).
        item_ids: own id of each item that was taken.
        user: index into ``user_ids``, ascending, (n,).
        item: index into ``item_ids``, each person's oldest first, (n,).
    """

    user_ids: pl.Series
    item_ids: pl.Series
    user: Ints
    item: Ints


@dataclass(frozen=True)
class Histories:
    """What M people took.

    Attributes:
        user: index of each in the data that was trained on, -1 for somebody else, (M,).
        items: catalogue ids, oldest first (M rows).
        skipped: how many items were left out, since the catalogue does not have them.
    """

    user: Tensor
    items: Jagged
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.user)

    def select(self, index: Tensor | slice) -> Histories:
        """Some of the people, in the given order; ``skipped`` is everybody's."""
        start, end = self.items.offsets[:-1], self.items.offsets[1:]
        items = slices(self.items.values, start[index], end[index])
        return Histories(self.user[index], items, self.skipped)


class Recommender:
    """A trained model that speaks the user's own ids.

    People of whom the model knows nothing get the most popular items: a model need not have an
    opinion on what it was never trained for, and many give all items the same score there.

    Args:
        model: turns histories into states, which its scorer scores against the catalogue.
        info: what it was trained on; it reads the newest ``max_length`` items.
        item_ids: own id of catalogue ids 1..V, (V,).
        user_ids: own id of each user index; somebody else is ranked for by the history alone.
        names: of catalogue ids 1..V, for people to read; null where an item has none, (V,).
    """

    def __init__(
        self,
        model: SequenceModel,
        info: DatasetInfo,
        item_ids: pl.Series,
        user_ids: pl.Series,
        names: pl.Series | None = None,
    ) -> None:
        self.model = model
        self.popularity = Popularity(info).to(model.scorer.weight.device)
        self.max_length = info.max_length
        self.item_ids = item_ids
        self.user_ids = user_ids
        self.names = names
        self._scratch = Scratch()

    def read(self, people: pl.Series | None, histories: pl.Series) -> Histories:
        """Histories by own ids as the model reads them.

        Args:
            people: own id of each, known or not; None: nobody is known.
            histories: lists of own item ids, oldest first; null is an empty one, (M,).

        Raises:
            InputError: ids of a kind that cannot be compared with those trained on.
        """
        lists = histories.fill_null([])
        own = lists.list.explode(keep_nulls=True, empty_as_null=False)
        row = np.repeat(np.arange(len(lists)), lists.list.len().to_numpy())
        return self._histories(people, len(lists), row, self._catalogue(own))

    def of(self, taken: Taken) -> Histories:
        """Everybody's history in an indexed table.

        Raises:
            InputError: ids of a kind that cannot be compared with those trained on.
        """
        items = self._catalogue(taken.item_ids)[taken.item]
        return self._histories(taken.user_ids, len(taken.user_ids), taken.user, items)

    def _catalogue(self, own: pl.Series) -> Ints:
        """Catalogue ids of own ids, 0 for others."""
        items: Ints = (found(own, self.item_ids, "item") + 1).fill_null(0).to_numpy()
        return items

    def _histories(self, people: pl.Series | None, m: int, row: Ints, items: Ints) -> Histories:
        """The histories of m people from their items, row after row."""
        known = items > 0
        lengths = np.bincount(row[known], minlength=m)
        offsets = torch.from_numpy(np.concatenate([[0], lengths.cumsum()]))
        if people is None:
            user = np.full(m, -1)
        else:
            user = found(people, self.user_ids, "user").fill_null(-1).to_numpy(writable=True)
        return Histories(
            torch.from_numpy(user),
            Jagged(torch.from_numpy(items[known]), offsets),
            int(len(items) - known.sum()),
        )

    def knows(self, histories: Histories) -> Tensor:
        """Of whom the model knows anything, (M,): an item, or who it is where that is all it reads.

        Users that training never showed have no vector, so that all of them are the same to it.
        """
        if self.model.reads:
            return histories.items.lengths > 0
        with evaluating(self.model):
            states = self.model.represent(self._batch(self.model, _asked(histories)))
            return (states != self.model.scorer.nobody(1)).any(1).cpu()

    def top(self, histories: Histories, k: int, seen: Seen = "filter") -> tuple[Tensor, Tensor]:
        """The k best items for each history, best first, ties by id, and their scores.

        Where fewer are left, the rest is item 0 with the score -inf. Of whom the model knows
        nothing gets the most popular items, and how often training shows them as their scores.

        Args:
            histories: M of them; the model reads the newest items of each.
            k: length of the lists.
            seen: "filter" leaves out all items of the history, "keep" none.

        Returns:
            Catalogue ids (M, k), int64, and scores (M, k), on the CPU.

        Raises:
            InputError: a score is not finite.
        """
        part = _asked(histories)
        items = torch.empty(len(part), k, dtype=torch.int64)
        scores = torch.empty(len(part), k)
        # Batches of similar lengths: short histories share a row of attention.
        order = histories.items.lengths.clamp(max=self.max_length).argsort(stable=True)
        known = self.knows(histories)[order]
        for model, some in ((self.model, order[known]), (self.popularity, order[~known])):
            with evaluating(model):
                scorer = model.scorer.fixed()
                for batch in chunks(len(some), _BATCH):
                    rows = some[batch]
                    of_batch = part.select(rows)
                    hidden = model.represent(self._batch(model, of_batch))
                    items[rows], scores[rows] = top(
                        hidden, scorer, of_batch, seen, k, self._scratch
                    )
        return items, scores

    def _batch(self, model: SequenceModel, part: HeldOut) -> Batch:
        """What a model reads of people: their newest items, or only who they are."""
        if model.reads:
            batch = batch_of(part, self.max_length)
        else:
            none = part.user[:0]
            batch = Batch(part.user, none, none, part.start.new_zeros(len(part) + 1), none, none)
        return batch.to(model.scorer.weight.device)

    def own(self, items: Tensor) -> pl.Series:
        """Own ids of catalogue ids, null for 0, in one column."""
        return self._of(self.item_ids, items)

    def named(self, items: Tensor) -> pl.Series:
        """Names of catalogue ids, null where there is none, in one column."""
        names = self.names
        if names is None:
            names = pl.repeat(None, len(self.item_ids), dtype=pl.String, eager=True)
        return self._of(names, items)

    def frame(self, people: pl.Series, items: Tensor, scores: Tensor) -> pl.DataFrame:
        """Lists as a table of user, rank (from 1), item, score, and name where there are names.

        Args:
            people: own id of each, (M,).
            items: catalogue ids, (M, k); 0 makes no row.
            scores: (M, k).
        """
        m, k = items.shape
        row = torch.arange(m).repeat_interleave(k).numpy()
        columns = {
            "user": people.gather(row),
            "rank": torch.arange(1, k + 1, dtype=torch.int32).repeat(m).numpy(),
            "item": self.own(items),
            "score": scores.flatten().numpy(),
        }
        if self.names is not None:
            columns["name"] = self.named(items)
        table = pl.DataFrame(columns)
        filled = items.flatten() > 0
        return table if bool(filled.all()) else table.filter(pl.Series(filled.numpy()))

    def _of(self, values: pl.Series, items: Tensor) -> pl.Series:
        index = pl.Series((items.flatten() - 1).numpy())
        return values.gather(index.set(index < 0, None))


def _asked(histories: Histories) -> HeldOut:
    """Histories as the evaluation has them, without targets."""
    items = histories.items
    no_target = torch.zeros_like(histories.user)
    return HeldOut(histories.user, no_target, items.values, items.offsets[:-1], items.offsets[1:])


def found(own: pl.Series, ids: pl.Series, what: str) -> pl.Series:
    """The place of each own id among ``ids``, null where it is none of them.

    Ids are compared as what ``ids`` are: the text "12" is the number 12, as a CSV file has it, and
    "012" is not.

    Args:
        own: ids of any kind.
        ids: distinct.
        what: what they are ids of, for messages.

    Raises:
        InputError: the two cannot be compared.
    """
    if isinstance(own.dtype, pl.Categorical | pl.Enum):
        own = own.cast(pl.String)
    try:
        alike = own.cast(ids.dtype, strict=False)
        same = own if own.dtype == ids.dtype else alike.cast(own.dtype, strict=False)
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"{what} ids are {own.dtype}, and those of the data are {ids.dtype}, such as "
            f"{ids[0]!r}: give ids as the data have them"
        ) from error
    alike = alike.set((own != same).fill_null(True), None)
    places = pl.DataFrame({"id": ids}).with_row_index("place")
    asked = pl.DataFrame({"id": alike})
    return asked.join(places, on="id", how="left", maintain_order="left")["place"].cast(pl.Int64)
