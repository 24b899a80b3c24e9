// Vectors of floats as wide as the machine has them; the compiler spells out the instructions.
#pragma once
#include <new>

#include "common.hpp"

#if defined(__AVX512F__)
constexpr int VL = 16;
#elif defined(__AVX__)
constexpr int VL = 8;
#else
constexpr int VL = 4;
#endif

typedef float vec __attribute__((vector_size(VL * 4), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(VL * 4), aligned(4)));

inline vec load(const float* p) { return *reinterpret_cast<const vec*>(p); }
inline void store(float* p, vec x) { *reinterpret_cast<vec*>(p) = x; }
inline vec fill(float x) { return x - vec{}; }
inline vec larger(vec a, vec b) { return a > b ? a : b; }
inline int64_t filled(int64_t n) { return (n + VL - 1) / VL * VL; }

inline float sum_of(vec x) {
  float sum[VL];
  store(sum, x);
  for (int half = VL / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) sum[i] += sum[i + half];
  return sum[0];
}

inline float largest_of(vec x) {
  float most[VL];
  store(most, x);
  for (int half = VL / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) most[i] = std::max(most[i], most[i + half]);
  return most[0];
}

// e^x to a part in 10^7, 0 below 2^-126; x is at most 0, or a NaN, which stays one.
inline vec exp_of(vec x) {
  const float log2e = 1.44269504f, magic = 12582912.f;  // adding 1.5 * 2^23 rounds
  const vec y = x * log2e;
  const vec rounded = y + magic;
  const vec whole = rounded - magic;
  // ln 2 in two parts: whole * its first is exact.
  const vec rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  vec p = fill(1.9875691500e-4f);  // Cephes, expf
  p = p * rest + 1.3981999507e-3f;
  p = p * rest + 8.3334519073e-3f;
  p = p * rest + 4.1665795894e-2f;
  p = p * rest + 1.6666665459e-1f;
  p = p * rest + 5.0000001201e-1f;
  p = p * rest * rest + rest + 1.f;
  const vec scaled = (vec)((ivec)p + ((ivec)rounded << 23));
  return y < fill(-125.5f) ? vec{} : scaled;
}

// Floats that a thread works in, aligned and not initialised.
class Scratch {
 public:
  explicit Scratch(int64_t size)
      : data_(static_cast<float*>(::operator new(std::max<int64_t>(size, 1) * sizeof(float), align))) {}
  ~Scratch() { ::operator delete(data_, align); }
  Scratch(const Scratch&) = delete;
  float* take(int64_t size) {
    float* taken = data_ + used_;
    used_ += size;
    return taken;
  }

 private:
  static constexpr std::align_val_t align{64};
  float* const data_;
  int64_t used_ = 0;
};
