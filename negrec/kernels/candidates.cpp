// Scores of queries against candidates that are rows of a table, and their gradients: see
// candidates.py. A row is a multiple of 16 numbers long.
#include <type_traits>

#include "vectors.hpp"

namespace candidates {

constexpr int MOST = 8;               // vectors of a row that are kept in registers
constexpr int64_t AHEAD = 8;          // candidates; rows that are written come from far away
constexpr int64_t ALONE = 1 << 17;    // products; below, other threads cost more than they give

inline float sum(vec x) {  // in fours: lane by lane it would take as long as the products
  typedef float four __attribute__((vector_size(16)));
  four part[VL / 4];
  std::memcpy(part, &x, sizeof x);
  for (int i = 1; i < VL / 4; i++) part[0] += part[i];
  return (part[0][0] + part[0][1]) + (part[0][2] + part[0][3]);
}

// out[c] = h . v[c]; each sum in the same order, whatever C.
template <int C>
inline void dots(const float* h, const float* const* v, int64_t dim, float* out) {
  vec total[C] = {};
  for (int64_t d = 0; d < dim; d += VL)
    for (int c = 0; c < C; c++) total[c] += load(h + d) * load(v[c] + d);
  for (int c = 0; c < C; c++) out[c] = sum(total[c]);
}

// Calls f with a number of vectors, 1 to MOST, as a constant.
template <int L = 1, class F>
inline void with_constant(int64_t vectors, F f) {
  if constexpr (L < MOST)
    if (vectors > L) return with_constant<L + 1>(vectors, f);
  f(std::integral_constant<int, L>{});
}

// out = sum_j weight[j] * table[at[j]], and first of all one more, for L vectors of a row.
template <int L>
inline void combine(const float* weight, const int64_t* at, int64_t k, const float* table,
                    int64_t dim, float more, const float* of_more, float* out) {
  vec total[L] = {};
  if (of_more)
    for (int l = 0; l < L; l++) total[l] = more * load(of_more + l * VL);
  for (int64_t j = 0; j < k; j++)
    for (int l = 0; l < L; l++) total[l] += weight[j] * load(table + at[j] * dim + l * VL);
  for (int l = 0; l < L; l++) store(out + l * VL, total[l]);
}

// table[at[j]] += weight[j] * h for the j with low <= at[j] < high, for L vectors of a row.
template <int L>
inline void spread(const float* weight, const int64_t* at, int64_t k, const float* from,
                   int64_t dim, int64_t low, int64_t high, float* table) {
  vec h[L];
  for (int l = 0; l < L; l++) h[l] = load(from + l * VL);
  for (int64_t j = 0; j < k; j++) {
    if (j + AHEAD < k)
      for (int l = 0; l < L; l++) __builtin_prefetch(table + at[j + AHEAD] * dim + l * VL, 1);
    if (at[j] < low || at[j] >= high) continue;
    float* to = table + at[j] * dim;
    for (int l = 0; l < L; l++) store(to + l * VL, load(to + l * VL) + weight[j] * h[l]);
  }
}

}  // namespace candidates

// Everywhere: a query's target, where there is one, is scored beside its candidates.

NEGREC void candidates_scores(const float* hidden, const float* vectors, const int64_t* index,
                              const int64_t* row, const int64_t* target, int64_t n, int64_t k,
                              int64_t dim, int64_t rows, float* out, float* of_target,
                              int64_t* outside, int64_t threads) {
  using namespace candidates;
  int64_t bad = 0;
  threads = n * k * dim > ALONE ? threads : 1;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : bad)
  for (int64_t i = 0; i < n; i++) {
    const int64_t* at = index + (row ? row[i] : i) * k;
    const float* h = hidden + i * dim;
    for (int64_t j = 0; j < k; j++) bad += at[j] < 0 || at[j] >= rows;
    if (target) bad += target[i] < 0 || target[i] >= rows;
    if (bad) continue;
    int64_t j = 0;
    for (; j + 4 <= k; j += 4) {
      const float* v[] = {vectors + at[j] * dim, vectors + at[j + 1] * dim,
                          vectors + at[j + 2] * dim, vectors + at[j + 3] * dim};
      dots<4>(h, v, dim, out + i * k + j);
    }
    for (; j < k; j++) {
      const float* v[] = {vectors + at[j] * dim};
      dots<1>(h, v, dim, out + i * k + j);
    }
    if (target) {
      const float* v[] = {vectors + target[i] * dim};
      dots<1>(h, v, dim, of_target + i);
    }
  }
  *outside = bad;
}

NEGREC void candidates_of_hidden(const float* gradient, const float* of_target,
                                 const float* vectors, const int64_t* index, const int64_t* row,
                                 const int64_t* target, int64_t n, int64_t k, int64_t dim,
                                 float* out, int64_t threads) {
  using namespace candidates;
  threads = n * k * dim > ALONE ? threads : 1;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; i++) {
    const int64_t* at = index + (row ? row[i] : i) * k;
    const float* own = target ? vectors + target[i] * dim : nullptr;
    for (int64_t d = 0; d < dim; d += MOST * VL)
      with_constant((dim - d) / VL, [&](auto L) {
        combine<L>(gradient + i * k, at, k, vectors + d, dim, own ? of_target[i] : 0,
                   own ? own + d : nullptr, out + i * dim + d);
      });
  }
}

NEGREC void candidates_of_vectors(const float* gradient, const float* of_target,
                                  const float* hidden, const int64_t* index, const int64_t* row,
                                  const int64_t* target, int64_t n, int64_t k, int64_t dim,
                                  int64_t rows, float* out, int64_t threads) {
  using namespace candidates;
  threads = n * k * dim > ALONE ? threads : 1;
  // A thread owns some columns of all rows, or of a range of them: every number is a sum over the
  // queries in their order, however many threads there are.
  const int64_t all = dim / VL, least = std::min<int64_t>(2, all);
  const int64_t wide = std::clamp<int64_t>(all / threads, least, MOST);
  const int64_t slices = (all + wide - 1) / wide, ranges = (threads + slices - 1) / slices;
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
  for (int64_t slice = 0; slice < slices; slice++)
    for (int64_t range = 0; range < ranges; range++) {
      const int64_t d = slice * wide * VL;
      const int64_t low = rows * range / ranges, high = rows * (range + 1) / ranges;
      with_constant(std::min(wide, all - slice * wide), [&](auto L) {
        for (int64_t i = 0; i < n; i++) {
          const float* h = hidden + i * dim + d;
          if (target) spread<L>(of_target + i, target + i, 1, h, dim, low, high, out + d);
          spread<L>(gradient + i * k, index + (row ? row[i] : i) * k, k, h, dim, low, high,
                    out + d);
        }
      });
    }
}
