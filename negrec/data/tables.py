"""Data sets that lie in a file: a named one, or a person's own table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from negrec.data import attributes as attributes_
from negrec.data import cache
from negrec.data import names as names_
from negrec.data.cleaning import Duplicates, Rules, clean
from negrec.data.columns import Columns, find
from negrec.data.interactions import Counts, Interactions
from negrec.data.preparation import Preparation
from negrec.data.readers.base import scan
from negrec.data.sources.base import Layout
from negrec.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where a named data set comes from.

    Attributes:
        url: of the original data.
        preparation: what was done to them; the file holds the result.
        licence: what its owners allow: its short name, and more after " - ".
        citation: whom to cite.
        counts: what the file should hold; None: not known.
        core: k, where the preparation kept the k-core only.
        checksum: of what lies at the URL, such as "md5:..." or "sha256:..."; None: not known.
        member: the file that is needed, where an archive lies at the URL.
        reader: the layout of that file; None: ``negrec data fetch`` cannot convert it.
        prepare: the preparation as data.
        manual: where nobody but the user can download it, what to do.
    """

    url: str
    preparation: str
    licence: str
    citation: str
    counts: Counts | None
    core: int | None = None
    checksum: str | None = None
    member: str = ""
    reader: Layout | None = None
    prepare: Preparation = field(default_factory=Preparation)
    manual: str | None = None


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
    items: str | None = None,
    events: Sequence[str] | str | None = None,
) -> Interactions:
    """The interactions of a table, prepared once and cached.

    Args:
        name: the data set's; None: the file's.
        path: of the file, or of a folder of Parquet files; relative to ``data_dir`` for a named
            data set, which has a source.
        columns: by name, or "auto" where they are to be guessed.
        cache_dir: where prepared data are kept.
        data_dir: where named data sets lie.
        source: of a named data set.
        min_rating: see ``Rules``.
        duplicates: see ``Rules``.
        min_interactions: see ``Rules``.
        attributes: table of the items' attributes, see ``attributes.read``; it lies where ``path``
            does, and a named data set is good without it until something needs it.
        items: table of the items' names, see ``names.read``; it lies where attributes do.
        events: see ``Rules``; a single one may stand alone.

    Raises:
        InputError: a missing or damaged file, columns or values that cannot be used.
    """
    wanted = [events] if isinstance(events, str) else events
    rules = Rules(
        min_rating,
        duplicates,
        min_interactions,
        None if wanted is None else tuple(str(event) for event in wanted),
    )
    if rules.events is None:  # its column is not needed, and no question about it either
        columns = replace(columns, event=None)
    for given in (path, attributes):
        if source is not None and given is not None:
            _refuse_outside(str(name), given)
    file = Path(path) if source is None else Path(data_dir) / path
    name = name or file.name.partition(".")[0]
    if source is not None and not file.exists():
        raise InputError(_missing(name, file, columns, source))
    table = scan(file)
    found = find(file, table, columns)
    if source is None:
        log.debug("%s: columns %s", file, found)
    folder = Path(cache_dir) / "interactions"
    prepared = cache.cached(
        folder,
        cache.key(file, (found, rules), folder / cache.DIGESTS),
        lambda: clean(name, file, table, found, rules),
    )
    prepared = replace(prepared, name=name)
    if attributes is not None:
        beside = Path(attributes) if source is None else Path(data_dir) / attributes
        if source is None or beside.exists():
            # Not from the cache, which would have to find out whether they changed.
            known = attributes_.read(beside, found, prepared.item_ids)
            prepared = replace(prepared, attributes=known)
    if items is not None:
        beside = Path(items) if source is None else Path(data_dir) / items
        if source is None or beside.exists():
            titles = names_.read(beside, found, prepared.item_ids)
            prepared = replace(prepared, names=titles)
    if source is None:
        return prepared
    read = prepared.cleaning.read
    if source.counts is not None and read != source.counts:
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


def _refuse_outside(name: str, path: str) -> None:
    """A named data set lies in its folder, whoever wrote its configuration.

    Raises:
        InputError: the path leads out of it.
    """
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise InputError(
            f"dataset={name}: {path} leads out of the folder of data: name another folder with "
            "paths.data_dir=FOLDER, or read any table with dataset=file dataset.path=FILE"
        )


def _missing(name: str, file: Path, columns: Columns, source: Source) -> str:
    fetch, folder = f"`negrec data fetch {name}", f"paths.data_dir={file.parent}`"
    if source.reader is None:
        how = (
            f"download {source.url}, prepare it ({source.preparation}) and save it there as "
            f"Parquet with the columns {', '.join(columns.present().values())}"
        )
    elif source.manual is not None:
        how = f"{source.url}: {source.manual}; then {fetch} from=FILE {folder} converts it"
    else:
        how = f"{fetch} {folder} downloads {source.url} and prepares it ({source.preparation})"
    return (
        f"dataset={name}: there is no file {file}: {how}; or name the folder where {file.name} "
        "lies with paths.data_dir=FOLDER or the variable NEGREC_DATA_DIR"
    )
