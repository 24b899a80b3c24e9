"""What is known of items beside who took them: brand, category and the like."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from negrec.data.columns import Columns, beside, lacks
from negrec.data.readers.base import unreadable
from negrec.errors import InputError

log = logging.getLogger(__name__)

_KEY = "dataset.attributes"
_ATTRIBUTE = "attribute"  # the column


@dataclass(frozen=True)
class Attributes:
    """The attributes of a data set's items, each pair once, ascending.

    Attributes:
        item: index of the item, 0..n_items - 1, (n,).
        attribute: index of the attribute, 0..A - 1, (n,).
        ids: the attribute's own id of each index, as text, (A,).
        hash: of all of the above: the same attributes give the same hash wherever the file lies.
    """

    item: NDArray[np.int64]
    attribute: NDArray[np.int64]
    ids: pl.Series
    hash: str


def read(path: Path, columns: Columns, item_ids: pl.Series) -> Attributes:
    """The attributes in a Parquet or CSV table with one row for each item and attribute.

    Ids of any type are compared as they are written; the columns are ``attribute`` and, for the
    items, the name it has in the interactions' table, ``item_id`` or ``item``. Items that are not
    in the data are counted and left out.

    Args:
        path: of the table.
        columns: of the interactions' table.
        item_ids: the item's own id of each index.

    Raises:
        InputError: a table that cannot be used, or no item of the data in it.
    """
    table, item, there = beside(_KEY, path, columns)
    if _ATTRIBUTE not in there:
        raise lacks(_KEY, path, _ATTRIBUTE, there)
    try:
        pairs = (
            table.select(
                id=pl.col(item).cast(pl.String), attribute=pl.col(_ATTRIBUTE).cast(pl.String)
            )
            .drop_nulls()
            .filter(pl.col(_ATTRIBUTE) != "")
            .unique()
            .collect()
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, error) from error
    if len(pairs) == 0:
        raise InputError(f"{_KEY}: {path} has no row with an item and an attribute")
    index = pl.DataFrame({"id": item_ids.cast(pl.String)}).with_row_index("item")
    known = pairs.join(index, on="id").sort("item", _ATTRIBUTE)
    if len(known) == 0:
        raise InputError(
            f"{_KEY}: no item of {path} is in the data: its column {item} has ids such "
            f"as {', '.join(pairs['id'].head(3))}, the data {', '.join(index['id'].head(3))}; give "
            "attributes of the same preparation, or leave them out with dataset.attributes=null"
        )
    outside = pairs["id"].n_unique() - known["id"].n_unique()
    if outside:
        log.info("attributes: %s items of %s are not in the data", f"{outside:,}", path)
    ids = known[_ATTRIBUTE].unique().sort()
    return _made(
        known["item"].cast(pl.Int64).to_numpy(),
        ids.search_sorted(known[_ATTRIBUTE]).cast(pl.Int64).to_numpy(),
        ids,
    )


def _made(item: NDArray[np.int64], attribute: NDArray[np.int64], ids: pl.Series) -> Attributes:
    digest = hashlib.blake2b(digest_size=16)
    for values in (item, attribute):
        digest.update(b"%d:" % len(values))
        digest.update(np.ascontiguousarray(values, dtype="<i8").data)
    digest.update("\0".join(ids).encode())
    return Attributes(item, attribute, ids, digest.hexdigest())
