"""Checkpoints that a disk or a crash has damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import Came, folder_of, go_on, run_id
from tests.faults.forks import Forks


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "damage", [flip_a_byte, pytest.param(cut_short, marks=LONG), pytest.param(empty, marks=LONG)]
)
def test_the_one_before_is_used(
    forks: Forks, whole: Came, cut: Path, damage: Callable[[Path], None]
) -> None:
    last = folder_of(cut) / "checkpoint" / "last.safetensors"
    damage(last)
    again = go_on(forks, cut)
    assert again.code == 0, again.said
    assert f"checkpoint is damaged and left aside: {last}" in again.said
    assert "resumed at epoch 2, step 0" in again.said
    assert Came.to(folder_of(cut)) == whole


@LONG
def test_a_damaged_one_never_takes_the_place_of_a_good_one(
    forks: Forks, whole: Came, cut: Path
) -> None:
    # Killed again right after the next checkpoint, which a disk damages too.
    folder = folder_of(cut) / "checkpoint"
    flip_a_byte(folder / "last.safetensors")
    fault = ("die_in", "negrec.training.trainer._Run.step", 10)
    assert forks.run(cut, "train", f"run={run_id(cut)}", faults=[fault]).code == -9
    flip_a_byte(folder / "last.safetensors")
    again = go_on(forks, cut)
    assert again.code == 0, again.said
    assert Came.to(folder_of(cut)) == whole


@LONG
def test_all_are_damaged(forks: Forks, cut: Path) -> None:
    for path in (folder_of(cut) / "checkpoint").iterdir():
        empty(path)
    again = go_on(forks, cut)
    assert again.code == 2
    assert "Traceback" not in again.said
    error = again.said.splitlines()[-1]
    assert error.startswith(f"negrec: every checkpoint in {cut}/multirun/")
    assert error.endswith("is damaged: start the run anew")


@LONG
@pytest.mark.parametrize("damage", [flip_a_byte, Path.unlink])
def test_the_best_one_is_made_again(
    forks: Forks, whole: Came, cut: Path, damage: Callable[[Path], None]
) -> None:
    # The best epoch so far is the last one, whose weights the last checkpoint has.
    damage(folder_of(cut) / "checkpoint" / "best.safetensors")
    again = go_on(forks, cut)
    assert again.code == 0, again.said
    assert "the best checkpoint is damaged" in again.said
    assert Came.to(folder_of(cut)) == whole


@LONG
def test_a_best_one_that_is_lost_is_said_before_anything_is_trained(
    forks: Forks, cut: Path
) -> None:
    folder = folder_of(cut) / "checkpoint"
    for path in folder.iterdir():
        if path.name != "last.safetensors":
            empty(path)
    # The last checkpoint says that an epoch before it was the best.
    from negrec.training.checkpoint import Checkpoint, load, save

    last = load(folder / "last.safetensors")
    record = {**last.record, "best_epoch": 0, "waited": 1}
    save(Checkpoint(last.tensors, record), folder / "last.safetensors")
    again = go_on(forks, cut)
    assert again.code == 2
    assert "the best checkpoint is damaged" in again.said
    assert "start the run anew" in again.said.splitlines()[-1]
    assert "epoch 3:" not in again.said
