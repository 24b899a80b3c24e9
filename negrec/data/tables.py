"""Data sets that lie in a file: a named one, or a person's own table."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from negrec.data import attributes as attributes_
from negrec.data import cache
from negrec.data.cleaning import Duplicates, Rules, clean
from negrec.data.columns import Columns, find
from negrec.data.interactions import Counts, Interactions
from negrec.data.readers.base import scan
from negrec.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where a named data set comes from.

    Attributes:
        url: of the original data.
        preparation: what was done to them; the file holds the result.
        licence: what its owners allow.
        citation: whom to cite.
        counts: what the file should hold.
        core: k, where the preparation kept the k-core only.
        md5: of what lies at the URL, where known.
    """

    url: str
    preparation: str
    licence: str
    citation: str
    counts: Counts
    core: int | None = None
    md5: str | None = None


def load(
    name: str | None,
    path: str,
    columns: Columns,
    cache_dir: str | Path,
    data_dir: str | Path,
    source: Source | None = None,
    min_rating: float | None = None,
    duplicates: Duplicates = "keep",
    min_interactions: int | None = None,
    attributes: str | None = None,
) -> Interactions:
    """The interactions of a Parquet or CSV file, prepared once and cached.

    Args:
        name: the data set's; None: the file's.
        path: of the file; relative to ``data_dir`` for a named data set, which has a source.
        columns: by name, or "auto" where they are to be guessed.
        cache_dir: where prepared data are kept.
        data_dir: where named data sets lie.
        source: of a named data set.
        min_rating: see ``Rules``.
        duplicates: see ``Rules``.
        min_interactions: see ``Rules``.
        attributes: table of the items' attributes, see ``attributes.read``; it lies where ``path``
            does, and a named data set is good without it until something needs it.

    Raises:
        InputError: a missing or damaged file, columns or values that cannot be used.
    """
    rules = Rules(min_rating, duplicates, min_interactions)
    file = Path(path) if source is None else Path(data_dir) / path
    name = name or file.name.partition(".")[0]
    if source is not None and not file.exists():
        raise InputError(_missing(name, file, columns, source))
    table = scan(file)
    found = find(file, table, columns)
    if source is None:
        log.debug("%s: columns %s", file, found)
    prepared = cache.cached(
        Path(cache_dir) / "interactions",
        cache.key(file, (found, rules)),
        lambda: clean(name, file, table, found, rules),
    )
    prepared = replace(prepared, name=name)
    if attributes is not None:
        beside = Path(attributes) if source is None else Path(data_dir) / attributes
        if source is None or beside.exists():
            # Not from the cache, which would have to find out whether they changed.
            known = attributes_.read(beside, found, prepared.item_ids)
            prepared = replace(prepared, attributes=known)
    if source is None:
        return prepared
    read = prepared.cleaning.read
    if read != source.counts:
        log.warning(
            "%s holds %s, and %s should hold %s: it was prepared in another way",
            file,
            read,
            name,
            source.counts,
        )
    if source.core is not None and prepared.cleaning.core is None:
        return replace(prepared, cleaning=replace(prepared.cleaning, core=source.core))
    return prepared


def _missing(name: str, file: Path, columns: Columns, source: Source) -> str:
    return (
        f"dataset={name}: there is no file {file}: download {source.url}, prepare it "
        f"({source.preparation}; {source.counts}) and save it there as Parquet with the columns "
        f"{', '.join(columns.present().values())}; or name the folder where {file.name} lies with "
        "paths.data_dir=FOLDER or the variable NEGREC_DATA_DIR"
    )
