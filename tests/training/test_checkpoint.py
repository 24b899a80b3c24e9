import pickle

import pytest
import torch

from negrec.errors import InputError
from negrec.training.checkpoint import Checkpoint, Checkpoints, DamagedError, load, save


def checkpoint(value=1.0):
    tensors = {
        "model.weight": torch.full((3, 2), value),
        "optimizer.0.step": torch.tensor(7.0),
        "objective.alpha": torch.tensor(2.5),
    }
    return Checkpoint(tensors, {"epoch": int(value), "best_value": float("-inf")})


def test_a_round_trip(tmp_path):
    save(checkpoint(), tmp_path / "a.safetensors")
    read = load(tmp_path / "a.safetensors")
    assert read.record == {"epoch": 1, "best_value": float("-inf")}
    assert read.tensors.keys() == checkpoint().tensors.keys()
    assert torch.equal(read.part("model")["weight"], torch.ones(3, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("position", [0, 8, 40, -1, -20])
def test_a_flipped_byte_is_noticed(tmp_path, position):
    path = tmp_path / "a.safetensors"
    save(checkpoint(), path)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"a\.safetensors"):
        load(path)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_file_cut_short_is_noticed(tmp_path, kept):
    path = tmp_path / "a.safetensors"
    save(checkpoint(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DamagedError):
        load(path)


def test_a_pickle_is_not_loaded(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (pytest.fail, ("code of a checkpoint ran",))

    path = tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(DamagedError):
        load(path)


def test_the_one_before_replaces_a_damaged_last(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load_last() is None
    for value in (1.0, 2.0):
        checkpoints.save_last(checkpoint(value))
    assert checkpoints.load_last().record["epoch"] == 2
    checkpoints.last.write_bytes(b"torn")
    assert checkpoints.load_last().record["epoch"] == 1
    assert "damaged" in caplog.text
    checkpoints.previous.write_bytes(b"torn")
    with pytest.raises(InputError, match=r"every checkpoint .* is damaged"):
        checkpoints.load_last()


def test_a_death_between_the_two_renames_loses_nothing(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_last(checkpoint(1.0))
    checkpoints.last.rename(checkpoints.previous)
    save(checkpoint(2.0), tmp_path / "fresh.safetensors")
    assert checkpoints.load_last().record["epoch"] == 2


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file/a\.safetensors"):
        save(checkpoint(), tmp_path / "file" / "a.safetensors")
