"""Nothing that is loaded can run code."""

import io
import pickle
import re
from pathlib import Path

import pytest
import torch

import negrec
from negrec.training.checkpoint import Checkpoints, DamagedError, load
from tests.serving.test_bundle import Trap

# Loaders that run what a file says; numpy.load and torch.load refuse code as they are called here.
_UNSAFE = re.compile(
    r"\bpickle\b|\bcloudpickle\b|\bdill\b|\bjoblib\.load|\bshelve\b|\bmarshal\b|torch\.load\("
    r"|allow_pickle|weights_only=False|torch\.export\.load\(|torch\.jit\.load\(|yaml\.(unsafe_)?load\("
)


def test_no_module_loads_what_could_be_code():
    found = [
        f"{path.name}: {line.strip()}"
        for path in Path(negrec.__file__).parent.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if _UNSAFE.search(line)
    ]
    # The README of an export says how others load it, and what they trust by that.
    told = [line for line in found if line.startswith("export.py: encoder = torch.export.load(")]
    assert len(told) == 1
    assert found == told


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_in_a_checkpoints_place_is_not_run(zipped, tmp_path):
    sprung = tmp_path / "sprung"
    buffer = io.BytesIO()
    if zipped:
        torch.save({"w": Trap(sprung)}, buffer)
    else:
        pickle.dump(Trap(sprung), buffer)
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    checkpoints.folder.mkdir()
    checkpoints.best.write_bytes(buffer.getvalue())
    with pytest.raises(DamagedError):
        load(checkpoints.best)
    assert not sprung.exists()
    buffer.seek(0)
    if zipped:  # the trap itself works
        torch.load(buffer, weights_only=False)
    else:
        pickle.load(buffer)
    assert sprung.exists()
