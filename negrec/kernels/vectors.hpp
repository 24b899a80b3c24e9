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

template <class T>
struct Buffer {  // aligned for whole vectors, not initialised
  explicit Buffer(int64_t size)
      : data(static_cast<T*>(::operator new(std::max<int64_t>(size, 1) * sizeof(T), align))) {}
  ~Buffer() { ::operator delete(data, align); }
  Buffer(const Buffer&) = delete;
  static constexpr std::align_val_t align{64};
  T* const data;
};

inline vec load(const float* p) { return *reinterpret_cast<const vec*>(p); }
inline void store(float* p, vec x) { *reinterpret_cast<vec*>(p) = x; }
inline vec fill(float x) { return x - vec{}; }
inline vec larger(vec a, vec b) { return a > b ? a : b; }

// Folds the lanes of a vector in halves.
template <class V, class Op>
inline auto folded(V v, Op op) {
  decltype(v[0] + 0) lane[VL];
  std::memcpy(lane, &v, sizeof v);
  for (int half = VL / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) lane[i] = op(lane[i], lane[i + half]);
  return lane[0];
}

// 2^x to a part in 10^7 for x in [-126, 127]; NaN of NaN.
inline vec exp2_of(vec x) {
  const float magic = 12582912.f;  // 1.5 * 2^23: what is added to it is rounded to a whole number
  vec rounded = x + magic, rest = x - (rounded - magic);
  vec y = fill(1.5353362e-4f);
  y = y * rest + 1.3398874e-3f;
  y = y * rest + 9.6184373e-3f;
  y = y * rest + 5.5503324e-2f;
  y = y * rest + 2.4022648e-1f;
  y = y * rest + 6.9314720e-1f;
  y = y * rest + 1.f;
  return (vec)((ivec)y + ((ivec)rounded << 23));
}

constexpr float LOG2E = 1.44269504f;

// exp(x - base / log2(e)), and exactly 0 below 2^-126; x = -inf is 0 for any base but -inf.
template <class Base>
inline vec exp_from(vec x, Base base) {
  vec y = x * LOG2E - base;
  return y < fill(-126.f) ? vec{} : exp2_of(y);
}

// The next multiple of VL.
inline int64_t filled(int64_t n) { return (n + VL - 1) / VL * VL; }
