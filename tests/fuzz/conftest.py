import gc
from collections.abc import Iterator

import pytest

from tests.fuzz.examples import SEED


def pytest_report_header() -> str:
    return f"fuzz: NEGREC_FUZZ_SEED={SEED} gives the same examples again"


@pytest.fixture(scope="module", autouse=True)
def few_objects() -> Iterator[None]:
    """A run looks for garbage before it measures its memory; what is imported is none."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
