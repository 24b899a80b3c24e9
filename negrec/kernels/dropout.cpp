#include "dropout.hpp"

// See dropout.hpp.
NEGREC void dropout_apply(const float* x, const float* onto, const uint8_t* bytes, int64_t n,
                          int64_t threshold, float* out, int64_t threads) {
  constexpr int64_t PART = 1 << 12;
  threads = std::min(threads, 1 + n / (4 * PART));  // few numbers are not worth waking a thread for
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; i += PART)
    dropout::apply(x + i, onto ? onto + i : nullptr, bytes + i, std::min(PART, n - i), threshold,
                   out + i);
}
