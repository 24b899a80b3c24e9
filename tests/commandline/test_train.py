import logging
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hydra.conf import HydraConf

from negrec.commandline.train import withdraw


@pytest.mark.usefixtures("untouched_logging")
def test_a_run_that_never_began_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "day" / "run"
    (folder / ".hydra").mkdir(parents=True)
    logging.getLogger().addHandler(logging.FileHandler(folder / "train.log"))
    settings = SimpleNamespace(
        runtime=SimpleNamespace(output_dir=str(folder)),
        job=SimpleNamespace(name="train"),
        output_subdir=".hydra",
    )
    withdraw(cast(HydraConf, settings))
    logging.getLogger("another").error("said when the process ends")
    assert not list(tmp_path.iterdir())
    assert "Logging error" not in capsys.readouterr().err
