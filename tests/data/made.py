"""Small interactions that tests share."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import polars as pl

from negrec.data.cleaning import Rules, clean
from negrec.data.columns import Columns
from negrec.data.interactions import Interactions
from negrec.data.readers.base import ROW
from negrec.data.splits.base import Split
from negrec.types import HeldOut


def interactions(rows: Sequence[tuple[int, ...]], **rules: object) -> Interactions:
    """Interactions of (user, item) or (user, item, time in seconds) rows."""
    names = ["user", "item", "timestamp"][: len(rows[0])]
    table = pl.DataFrame(rows, schema=names, orient="row").with_row_index(ROW, 1)
    columns = Columns("user", "item", names[2] if len(names) > 2 else None, None, None)
    return clean("made", Path("made.csv"), table.lazy(), columns, Rules(**rules))


def own_ids(data: Interactions) -> list[tuple[int, ...]]:
    """The interactions as (user, item) or (user, item, time in seconds) rows of own ids."""
    users, items = data.user_ids.gather(data.user), data.item_ids.gather(data.item)
    columns = [users.to_list(), items.to_list()]
    if data.timestamp is not None:
        columns.append((data.timestamp // 10**6).tolist())
    return list(zip(*columns, strict=True))


def trained(data: Interactions, split: Split) -> dict[int, list[int]]:
    """User -> training items, all as own ids."""
    items = [None, *data.item_ids.gather(split.catalogue)]
    values, offsets = split.train.values.tolist(), split.train.offsets.tolist()
    rows = [[items[i] for i in values[begin:end]] for begin, end in pairwise(offsets)]
    return dict(zip(data.user_ids, rows, strict=True))


def held(data: Interactions, split: Split, part: HeldOut) -> list[tuple[int, list[int], int]]:
    """(user, history, target) of each target as own ids; None for a target outside."""
    items = [None, *data.item_ids.gather(split.catalogue)]
    histories, offsets = part.histories().values.tolist(), part.histories().offsets.tolist()
    return [
        (data.user_ids[user], [items[i] for i in histories[begin:end]], items[target])
        for user, target, begin, end in zip(
            part.user.tolist(), part.target.tolist(), offsets[:-1], offsets[1:], strict=True
        )
    ]
