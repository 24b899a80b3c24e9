"""Run by test_attention_triton.py: the kernels through Triton's compiler, without a GPU."""

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from negrec.kernels import attention_triton

KERNELS = {
    kernel.__name__: kernel
    for kernel in (
        attention_triton._forward,
        attention_triton._backward_queries,
        attention_triton._backward_keys,
    )
}
SHARED = 99 * 1024  # bytes of shared memory that every GPU since Ampere gives a block


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("capability", "dtype", "width", "longest"),
    [
        (80, torch.float32, 64, 16),
        (90, torch.float32, 32, 50),
        (90, torch.bfloat16, 64, 512),
    ],
)
def test_it_compiles(kernel: str, capability: int, dtype: torch.dtype, width: int, longest: int):
    kind = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}[dtype]
    kinds = dict.fromkeys(("qkv", "out", "gradient", "of_qkv"), kind)
    kinds |= {"offsets": "*i64", "total": "*fp32", "delta": "*fp32", "seed": "i64"}
    kinds |= {"scale": "fp32", "dropout": "fp32", "n_heads": "i32", "longest": "i32"}
    sizes = attention_triton.launch(width, longest, dtype)
    options = {name: sizes.pop(name) for name in ("num_warps", "num_stages")}
    constants = {**sizes, "causal": True, "drops": True}
    names = KERNELS[kernel].arg_names
    source = ASTSource(
        fn=KERNELS[kernel],
        signature={name: kinds.get(name, "constexpr") for name in names},
        constexprs=constants,
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert "cubin" in compiled.asm
    assert compiled.metadata.shared <= SHARED
