"""A JSON object on each line: Amazon's reviews, Yelp."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from negrec.data.sources.base import Meaning


@dataclass(frozen=True)
class JsonLines(Meaning):
    """Objects with the named fields; other fields are not looked at."""

    def scan(self, path: Path) -> pl.LazyFrame:
        names = {meaning: str(name) for meaning, name in self.columns.items()}
        schema = {names[meaning]: dtype for meaning, dtype in self.dtypes.items()}
        return self.typed(pl.scan_ndjson(path, schema=schema), names)
