"""Run by test_draw_triton.py: the kernels through Triton's compiler, without a GPU."""

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from negrec.kernels import draw_triton

KERNELS = {kernel.__name__: kernel for kernel in (draw_triton._sums, draw_triton._pick)}
SHARED = 99 * 1024  # bytes of shared memory that every GPU since Ampere gives a block


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("capability", "width"), [(80, 64), (90, 129)])
def test_it_compiles(kernel: str, capability: int, width: int):
    kinds = dict.fromkeys(("hidden", "matrix", "top", "total", "share"), "*fp32")
    kinds |= dict.fromkeys(("pair_row", "pair_column", "bounds", "chosen", "drawn"), "*i64")
    kinds |= dict.fromkeys(("first", "n", "n_items", "n_tiles", "k"), "i32")
    source = ASTSource(
        fn=KERNELS[kernel],
        signature={name: kinds.get(name, "constexpr") for name in KERNELS[kernel].arg_names},
        constexprs=draw_triton.launch(width),
    )
    options = {"num_warps": 8 if kernel == "_sums" else 4, "num_stages": 1}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert "cubin" in compiled.asm
    assert compiled.metadata.shared <= SHARED
