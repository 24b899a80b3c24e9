"""Parquet as published: Yambda."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from negrec.data.sources.base import Meaning


@dataclass(frozen=True)
class Columnar(Meaning):
    """A Parquet file with the named columns."""

    def scan(self, path: Path) -> pl.LazyFrame:
        names = {meaning: str(name) for meaning, name in self.columns.items()}
        return self.typed(pl.scan_parquet(path, glob=False), names)
