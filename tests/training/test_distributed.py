"""Several processes train as one does."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from negrec.world import ALONE
from tests.training import ranks

# What was cut off ends as what was not.
SAME_AS = {"resumed": "srns", "interrupted": "uniform query", "lazy, resumed": "lazy query"}
SIZES = {2: [*ranks.CASES], 3: ["evaluation", "uniform query", "in batch sequence", "srns"]}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, object]]]:
    """By number of ranks: what each rank found."""
    return {
        size: ranks.together(size, tmp_path_factory.mktemp(f"ranks{size}"), [*names, *ranks.OTHERS])
        for size, names in SIZES.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "name"), [(size, name) for size, names in SIZES.items() for name in names]
)
def test_several_ranks_find_what_one_process_finds(
    tmp_path: Path, found: dict[int, list[dict[str, object]]], size: int, name: str
) -> None:
    expected = ranks.CASES[SAME_AS.get(name, name)](ALONE, tmp_path)
    for rank in range(size):
        alike(found[size][rank][name], expected, f"rank {rank}")


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_what_cannot_be_right_is_refused_by_all_ranks(
    found: dict[int, list[dict[str, object]]], size: int
) -> None:
    for messages in (found[size][rank]["refused"] for rank in range(size)):
        assert f"cannot be trained by {size} ranks: it does not say" in messages["objective"]
        assert messages["state"].startswith(
            f"objective.sampler.drawn is no longer the same on all {size} ranks: "
        )
        assert "the loss is not finite at epoch 1, step 3 " in messages["loss"]
        assert messages["batch"].endswith(f"{size} ranks want at least as many sequences")


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_ranks_have_dropout_of_their_own_and_draws_in_common(
    tmp_path: Path, found: dict[int, list[dict[str, object]]], size: int
) -> None:
    alone = ranks.streams(ALONE, tmp_path)
    several = [found[size][rank]["streams"] for rank in range(size)]
    assert len(alone) == 6
    for step, of_one in enumerate(alone):
        dropout, own, common = zip(*(of_rank[step] for of_rank in several), strict=True)
        assert set(common) == {of_one[2]}  # what one process draws from
        # The last batch has one sequence: all ranks work on it alike.
        assert len(set(dropout)) == len(set(own)) == (1 if step == 5 else size)
    assert several[0][5] == alone[5]


def alike(one: object, other: object, where: str) -> None:
    """Asserts equality up to the rounding of sums in another order."""
    match other:
        case torch.Tensor():
            assert isinstance(one, torch.Tensor)
            torch.testing.assert_close(
                one, other, rtol=1e-7, atol=1e-10, equal_nan=True, msg=lambda m: f"{where}: {m}"
            )
        case Mapping():
            assert one.keys() == other.keys(), where
            for key, value in other.items():
                alike(one[key], value, f"{where} {key}")
        case str() | int() | None:
            assert one == other, where
        case float():
            assert one == pytest.approx(other, rel=1e-7, abs=1e-10, nan_ok=True), where
        case Sequence():
            assert len(one) == len(other), where
            for index, (x, y) in enumerate(zip(one, other, strict=True)):
                alike(x, y, f"{where} {index}")
        case _:
            raise AssertionError(type(other))
