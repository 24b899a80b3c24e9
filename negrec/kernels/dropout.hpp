// Dropout of a stretch of numbers.
#pragma once
#include "common.hpp"

namespace dropout {

// out = onto (zero where null) + x where its byte reaches the threshold, scaled, else 0; null
// bytes drop nothing.
inline void apply(const float* x, const float* onto, const uint8_t* bytes, int64_t n,
                  int64_t threshold, float* out) {
  const float kept = 256.f / (256 - threshold);
  const uint8_t least = threshold;
  if (!bytes)
    for (int64_t i = 0; i < n; i++) out[i] = onto ? onto[i] + x[i] : x[i];
  else if (onto)
    for (int64_t i = 0; i < n; i++) out[i] = onto[i] + x[i] * (bytes[i] >= least ? kept : 0.f);
  else
    for (int64_t i = 0; i < n; i++) out[i] = x[i] * (bytes[i] >= least ? kept : 0.f);
}

}  // namespace dropout
