// Sums of softplus over the valid candidates of a query, and their gradient: see softplus.py.
#include "vectors.hpp"

namespace softplus {

typedef uint8_t bytes __attribute__((vector_size(VL), aligned(1)));

constexpr int64_t ALONE = 1 << 15;  // cells; below, other threads cost more than they give
constexpr int64_t CELLS = 1024;     // terms that are kept until they are summed up

inline vec small(vec x) { return exp_from(x < 0.f ? x : -x, 0.f); }  // e^-|x|

// log(1 + e) = 2 artanh(e / (2 + e)) for e in [0, 1]: exact also where e is far below 1.
inline vec log1p_of(vec e) {
  const vec z = e / (2.f + e), square = z * z;  // z is at most 1/3
  vec y = fill(1.f / 15);
  for (const float c : {1.f / 13, 1.f / 11, 1.f / 9, 1.f / 7, 1.f / 5, 1.f / 3, 1.f})
    y = y * square + c;
  return 2.f * z * y;
}

// out = f(score, label or 0) where a cell is valid, else 0, for n cells.
template <bool labelled, class F>
inline void each(const float* score, const uint8_t* valid, const float* label, int64_t n,
                 float* out, F f) {
  const auto some = [&](const float* score, const uint8_t* valid, const float* label, float* out) {
    const vec there = __builtin_convertvector(*reinterpret_cast<const bytes*>(valid), vec);
    const vec x = load(score);
    store(out, there > 0.f ? f(x, labelled ? load(label) : vec{}) : vec{});
  };
  int64_t j = 0;
  for (; j + VL <= n; j += VL) some(score + j, valid + j, labelled ? label + j : nullptr, out + j);
  if (j == n) return;
  float x[VL] = {}, y[VL] = {}, result[VL];
  uint8_t there[VL] = {};
  std::copy(score + j, score + n, x);
  std::copy(valid + j, valid + n, there);
  if (labelled) std::copy(label + j, label + n, y);
  some(x, there, y, result);
  std::copy(result, result + (n - j), out + j);
}

template <bool labelled>
inline void terms(const float* score, const uint8_t* valid, const float* label, int64_t n,
                  float* out) {
  each<labelled>(score, valid, label, n, out, [](vec x, vec y) {
    const vec term = (x > 0.f ? x : vec{}) + log1p_of(small(x));
    return labelled ? term - y * x : term;  // without a label nothing is infinite by 0
  });
}

template <bool labelled>
inline void slopes(const float* score, const uint8_t* valid, const float* label, int64_t n,
                   float* out) {
  each<labelled>(score, valid, label, n, out, [](vec x, vec y) {
    const vec e = small(x);
    return (x > 0.f ? fill(1.f) : e) / (1.f + e) - y;
  });
}

inline float total(const float* x, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) sum += x[j];
  return sum;
}

// Calls f(first row, rows, first cell, cells) for parts that have CELLS cells at most: short rows
// are worked on side by side, long ones in parts.
template <class F>
inline void parts(int64_t n, int64_t k, int64_t threads, F f) {
  const int64_t rows = std::max<int64_t>(1, CELLS / std::max<int64_t>(1, k));
  threads = n * k > ALONE ? threads : 1;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; i += rows) {
    const int64_t m = std::min(rows, n - i), end = (i + m) * k;
    for (int64_t at = i * k; at < end; at += CELLS) f(i, m, at, std::min(CELLS, end - at));
  }
}

}  // namespace softplus

NEGREC void softplus_sum(const float* score, const uint8_t* valid, const float* label, int64_t n,
                         int64_t k, float* out, int64_t threads) {
  using namespace softplus;
  std::fill(out, out + n, 0.f);
  parts(n, k, threads, [=](int64_t row, int64_t rows, int64_t at, int64_t size) {
    float term[CELLS];
    if (label)
      terms<true>(score + at, valid + at, label + at, size, term);
    else
      terms<false>(score + at, valid + at, nullptr, size, term);
    const int64_t width = size / rows;
    for (int64_t r = 0; r < rows; r++) out[row + r] += total(term + r * width, width);
  });
}

NEGREC void softplus_slope(const float* gradient, const float* score, const uint8_t* valid,
                           const float* label, int64_t n, int64_t k, float* out, int64_t threads) {
  using namespace softplus;
  parts(n, k, threads, [=](int64_t row, int64_t rows, int64_t at, int64_t size) {
    if (label)
      slopes<true>(score + at, valid + at, label + at, size, out + at);
    else
      slopes<false>(score + at, valid + at, nullptr, size, out + at);
    const int64_t width = size / rows;
    for (int64_t r = 0; r < rows; r++) {
      float *cells = out + at + r * width, own = gradient[row + r];
      for (int64_t j = 0; j < width; j++) cells[j] *= own;
    }
  });
}
