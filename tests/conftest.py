"""What every test starts from."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import logs

# A slow machine is no defect.
settings.register_profile("negrec", deadline=None)
settings.load_profile("negrec")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked long too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


# Before any test imports MLflow.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests are small; several workers on a few cores would only wait for each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the named real data sets; tests on them are skipped where it is not known."""
    folder = os.environ.get("NEGREC_DATA_DIR")
    if folder is None:
        pytest.skip("NEGREC_DATA_DIR is not set: no real data here")
    return Path(folder)


@pytest.fixture
def compiled() -> None:
    """Compiled code is there: what compares it with PyTorch makes no sense without."""
    from negrec.kernels import native

    if not native.available():
        pytest.skip("no C++ compiler here, or NEGREC_KERNELS=torch")


@pytest.fixture
def untouched_logging() -> Iterator[None]:
    with logs.untouched():
        yield


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store; making one takes seconds, copying it none."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    code = "from mlflow.tracking import MlflowClient as C; import sys; C(sys.argv[1])"
    code += ".search_experiments()"
    subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{path}"],
        check=True,
        capture_output=True,
    )
    return path
