from pathlib import Path

import pytest
import torch

from tests.kernels import alone


def test_in_the_interpreter(tmp_path: Path):
    alone.passes("interpret_attention.py", interpret=True, cache=tmp_path)


@pytest.mark.slow
def test_it_compiles_for_gpus_that_are_not_here(tmp_path: Path):
    alone.passes("compile_attention.py", interpret=False, cache=tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("longest", [16, 50, 512])
@pytest.mark.parametrize("width", [25, 32, 64, 128])
def test_on_a_gpu(dtype: torch.dtype, causal: bool, longest: int, width: int):
    from negrec.kernels import attention_triton

    qkv = torch.zeros(1, 3 * width, dtype=dtype, device="cuda")
    assert attention_triton.works(qkv, 1, longest, causal)
