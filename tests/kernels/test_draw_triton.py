from pathlib import Path

import pytest
import torch

from tests.kernels import alone


def test_in_the_interpreter(tmp_path: Path):
    alone.passes("interpret_draw.py", interpret=True, cache=tmp_path)


@pytest.mark.slow
def test_it_compiles_for_gpus_that_are_not_here(tmp_path: Path):
    alone.passes("compile_draw.py", interpret=False, cache=tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("width", [16, 50, 64, 129])
def test_on_a_gpu(width: int):
    from negrec.kernels import draw_triton

    assert draw_triton.works(torch.device("cuda"), width)
