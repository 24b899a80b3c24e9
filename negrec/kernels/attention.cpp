#include "attention.hpp"

NEGREC void attention_forward(const float* qkv, int64_t dim, const int64_t* offsets,
                              const int64_t* slot, const int64_t* blocks, int64_t sequences,
                              int64_t n_blocks, int64_t heads, int64_t causal,
                              const uint8_t* bytes, int64_t threshold, float* out, int64_t threads) {
  const attention::Given g{qkv, offsets, slot, blocks, sequences, n_blocks, heads, dim / heads,
                           causal != 0, bytes, threshold};
  const int64_t longest = g.longest();
#pragma omp parallel num_threads(threads)
  {
    attention::Workspace at(g, longest);
#pragma omp for schedule(dynamic, 8)
    for (int64_t b = 0; b < sequences; b++)
      attention::forward(g, b, at, out + offsets[b] * dim);
  }
}

NEGREC void attention_backward(const float* qkv, int64_t dim, const int64_t* offsets,
                               const int64_t* slot, const int64_t* blocks, int64_t sequences,
                               int64_t n_blocks, int64_t heads, int64_t causal,
                               const uint8_t* bytes, int64_t threshold, const float* gradient, float* of_qkv,
                               int64_t threads) {
  const attention::Given g{qkv, offsets, slot, blocks, sequences, n_blocks, heads, dim / heads,
                           causal != 0, bytes, threshold};
  const int64_t longest = g.longest();
#pragma omp parallel num_threads(threads)
  {
    attention::Workspace at(g, longest);
#pragma omp for schedule(dynamic, 8)
    for (int64_t b = 0; b < sequences; b++)
      attention::backward(g, b, at, gradient + offsets[b] * dim, of_qkv + offsets[b] * 3 * dim);
  }
}
