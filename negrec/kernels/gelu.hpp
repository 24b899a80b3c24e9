// GELU of a vector.
#pragma once
#include "vectors.hpp"

namespace gelu {

// x Phi(x) and its derivative Phi(x) + x phi(x): they share one exponential. The tail of the normal
// distribution by Abramowitz & Stegun 7.1.26, |error| <= 1.5e-7, as PyTorch's own vectors have it.
inline void both(vec x, vec& value, vec& slope) {
  const vec z = (x < 0.f ? -x : x) * 0.70710678f;
  const vec t = 1.f / (1.f + 0.3275911f * z);
  const vec bell = exp_from(-z * z, 0.f);
  vec p = fill(1.061405429f);
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const vec tail = 0.5f * p * t * bell;  // Phi(-|x|)
  const vec below = x < 0.f ? tail : 1.f - tail;
  value = x * below;
  slope = below + x * bell * 0.39894228f;
}

}  // namespace gelu
