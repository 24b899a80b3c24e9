"""How many examples a test has: few and always the same, or with --long many and new ones."""

import os
import secrets
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

SEED = int(os.environ.get("NEGREC_FUZZ_SEED", secrets.randbelow(2**32)))
_SETTINGS = settings(
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)

Test = Callable[..., None]


def few(n: int, **strategies: SearchStrategy[object]) -> Callable[[Test], Test]:
    """The same n examples each time."""
    return lambda test: settings(_SETTINGS, max_examples=n, derandomize=True)(
        given(**strategies)(test)
    )


def many(n: int, **strategies: SearchStrategy[object]) -> Callable[[Test], Test]:
    """n examples that ``SEED`` decides, only with --long."""

    def decorate(test: Test) -> Test:
        return pytest.mark.long(
            settings(_SETTINGS, max_examples=n)(seed(SEED)(given(**strategies)(test)))
        )

    return decorate
