#include "common.hpp"

namespace dropout {

constexpr int64_t TASK = 1 << 14;  // values that are worth waking a thread for

}  // namespace dropout

// out = onto (zero where null) + x where its byte reaches the threshold, scaled, else 0.
NEGREC void dropout_apply(const float* x, const float* onto, const uint8_t* bytes, int64_t n,
                          int64_t threshold, float* out, int64_t threads) {
  const float kept = 256.f / (256 - threshold);
  const uint8_t least = threshold;
  threads = std::min(threads, 1 + n / dropout::TASK);
#pragma omp parallel num_threads(threads)
  {
    if (onto) {
#pragma omp for simd schedule(static)
      for (int64_t i = 0; i < n; i++) out[i] = onto[i] + x[i] * (bytes[i] >= least ? kept : 0.f);
    } else {
#pragma omp for simd schedule(static)
      for (int64_t i = 0; i < n; i++) out[i] = x[i] * (bytes[i] >= least ? kept : 0.f);
    }
  }
}
