"""``make bench-gpu``, where there is no GPU: it must run where nobody could try it."""

import pytest
import torch

from tests.benchmarks import gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capfd: pytest.CaptureFixture[str]):
    assert gpu.main([]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "PyTorch finds none here" in printed.err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_all_tables_on_a_cpu(capfd: pytest.CaptureFixture[str]):
    assert gpu.main(["--device", "cpu", "--tiny"]) == 0
    printed = capfd.readouterr().out
    for name in (*gpu.BEAUTY, *gpu.ML_1M, *(shape.name for shape in gpu.SHAPES), "processes"):
        assert name in printed
