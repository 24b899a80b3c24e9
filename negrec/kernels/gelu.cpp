#include "gelu.hpp"

// slope: the derivative at each value, kept for the backward pass; null where none follows.
NEGREC void gelu_forward(const float* x, int64_t n, float* out, float* slope, int64_t threads) {
  const int64_t vectors = n / VL;
  threads = std::min(threads, 1 + n / (1 << 13));
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t v = 0; v < vectors; v++) {
    vec value, own;
    gelu::both(load(x + v * VL), value, own);
    store(out + v * VL, value);
    if (slope) store(slope + v * VL, own);
  }
  if (n > vectors * VL) {
    float last[3][VL] = {};
    const int64_t at = vectors * VL, left = n - at;
    std::copy(x + at, x + n, last[0]);
    vec value, own;
    gelu::both(load(last[0]), value, own);
    store(last[1], value), store(last[2], own);
    std::copy(last[1], last[1] + left, out + at);
    if (slope) std::copy(last[2], last[2] + left, slope + at);
  }
}

NEGREC void gelu_backward(const float* slope, const float* gradient, int64_t n, float* out,
                          int64_t threads) {
  threads = std::min(threads, 1 + n / (1 << 14));
#pragma omp parallel for simd num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; i++) out[i] = gradient[i] * slope[i];
}
