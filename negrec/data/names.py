"""What people call the items: titles, to be printed beside ids."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import polars as pl

from negrec.data.columns import Columns, beside, lacks
from negrec.data.readers.base import unreadable
from negrec.errors import InputError

log = logging.getLogger(__name__)

_KEY = "dataset.items"
# In lower case without blanks and signs, the plainest first.
_NAMES = (
    *("name", "title", "itemname", "itemtitle", "productname", "producttitle", "movietitle"),
    *("tracktitle", "trackname", "songtitle", "booktitle", "articletitle", "label", "description"),
)


def read(path: Path, columns: Columns, item_ids: pl.Series) -> pl.Series:
    """The name of each item by a table of ids and names, null where it has none, (n_items,).

    Ids of any type are compared as they are written. Of several names the first counts.

    Args:
        path: of the table.
        columns: of the interactions' table.
        item_ids: the item's own id of each index.

    Raises:
        InputError: a table that cannot be used, or no item of the data in it.
    """
    table, item, there = beside(_KEY, path, columns)
    plain = {re.sub(r"[\W_]", "", name.lower()): name for name in there if name != item}
    title = next((plain[name] for name in _NAMES if name in plain), None)
    if title is None:
        raise lacks(_KEY, path, "name or title", there)
    try:
        known = (
            table.select(
                id=pl.col(item).cast(pl.String),
                name=pl.col(title).cast(pl.String).str.strip_chars(),
            )
            .filter(pl.col("id").is_not_null(), pl.col("name") != "")
            .unique("id", keep="first", maintain_order=True)
            .collect()
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, error) from error
    wanted = pl.DataFrame({"id": item_ids.cast(pl.String)})
    names = wanted.join(known, on="id", how="left", maintain_order="left")["name"]
    if names.null_count() == len(names):
        raise InputError(
            f"{_KEY}: no item of {path} is in the data: its column {item} has ids such as "
            f"{', '.join(known['id'].head(3))}, the data {', '.join(wanted['id'].head(3))}; give "
            "names of the same preparation, or leave them out with dataset.items=null"
        )
    if names.null_count():
        log.info("%s items have no name in %s", f"{names.null_count():,}", path)
    return names
