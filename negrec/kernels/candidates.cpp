// Scores of queries against candidates that are rows of a table, and their gradients: see
// candidates.py. Rows are a multiple of 16 numbers long.
#include "common.hpp"

namespace candidates {

// One register with AVX-512, several on narrower machines; any address will do.
typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
constexpr int64_t LANES = 16;
constexpr int MOST = 8;       // registers of a row that are kept at once
constexpr int64_t AHEAD = 8;  // candidates; rows that are written come from far away

static inline const Lanes &lanes(const float *p) { return *reinterpret_cast<const Lanes *>(p); }
static inline Lanes &lanes(float *p) { return *reinterpret_cast<Lanes *>(p); }

static inline float sum(const Lanes &x) {
    typedef float Half __attribute__((vector_size(32)));
    typedef float Quarter __attribute__((vector_size(16)));
    Half half[2];
    std::memcpy(half, &x, sizeof x);
    const Half two = half[0] + half[1];
    Quarter quarter[2];
    std::memcpy(quarter, &two, sizeof two);
    const Quarter four = quarter[0] + quarter[1];
    return (four[0] + four[1]) + (four[2] + four[3]);
}

// out[c] = h . v[c]; each sum in the same order, whatever C.
template <int C>
static inline void dots(const float *h, const float *const *v, int64_t dim, float *out) {
    Lanes total[C] = {};
    for (int64_t d = 0; d < dim; d += LANES)
        for (int c = 0; c < C; ++c) total[c] += lanes(h + d) * lanes(v[c] + d);
    for (int c = 0; c < C; ++c) out[c] = sum(total[c]);
}

// Calls f with the number of registers, 1 to MOST, as a constant.
template <int L = 1, class F>
static inline void with_constant(int64_t registers, F f) {
    if constexpr (L < MOST)
        if (registers > L) return with_constant<L + 1>(registers, f);
    f(std::integral_constant<int, L>{});
}

// out = sum_j weight[j] * table[at[j]], for L registers of a row.
template <int L>
static inline void combine(const float *weight, const int64_t *at, int64_t k, const float *table,
                           int64_t dim, float *out) {
    Lanes total[L] = {};
    for (int64_t j = 0; j < k; ++j)
        for (int l = 0; l < L; ++l) total[l] += weight[j] * lanes(table + at[j] * dim + l * LANES);
    for (int l = 0; l < L; ++l) lanes(out + l * LANES) = total[l];
}

// table[at[j]] += weight[j] * h for the j with low <= at[j] < high, for L registers of a row.
template <int L>
static inline void spread(const float *weight, const int64_t *at, int64_t k, const float *from,
                          int64_t dim, int64_t low, int64_t high, float *table) {
    Lanes h[L];
    for (int l = 0; l < L; ++l) h[l] = lanes(from + l * LANES);
    for (int64_t j = 0; j < k; ++j) {
        if (j + AHEAD < k)
            for (int l = 0; l < L; ++l)
                __builtin_prefetch(table + at[j + AHEAD] * dim + l * LANES, 1);
        if (at[j] < low || at[j] >= high) continue;
        for (int l = 0; l < L; ++l) lanes(table + at[j] * dim + l * LANES) += weight[j] * h[l];
    }
}

}  // namespace candidates

NEGREC void candidates_scores(const float *hidden, const float *vectors, const int64_t *index,
                              const int64_t *row, int64_t n, int64_t k, int64_t dim, int64_t rows,
                              float *out, int64_t *outside, int64_t threads) {
    using namespace candidates;
    int64_t bad = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : bad)
    for (int64_t i = 0; i < n; ++i) {
        const int64_t *at = index + (row ? row[i] : i) * k;
        const float *h = hidden + i * dim;
        for (int64_t j = 0; j < k; ++j) bad += at[j] < 0 || at[j] >= rows;
        if (bad) continue;
        int64_t j = 0;
        for (; j + 4 <= k; j += 4) {
            const float *v[] = {vectors + at[j] * dim, vectors + at[j + 1] * dim,
                                vectors + at[j + 2] * dim, vectors + at[j + 3] * dim};
            dots<4>(h, v, dim, out + i * k + j);
        }
        for (; j < k; ++j) {
            const float *v[] = {vectors + at[j] * dim};
            dots<1>(h, v, dim, out + i * k + j);
        }
    }
    *outside = bad;
}

NEGREC void candidates_of_hidden(const float *gradient, const float *vectors, const int64_t *index,
                                 const int64_t *row, int64_t n, int64_t k, int64_t dim, float *out,
                                 int64_t threads) {
    using namespace candidates;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; ++i) {
        const int64_t *at = index + (row ? row[i] : i) * k;
        for (int64_t d = 0; d < dim; d += MOST * LANES)
            with_constant((dim - d) / LANES, [&](auto L) {
                combine<L>(gradient + i * k, at, k, vectors + d, dim, out + i * dim + d);
            });
    }
}

NEGREC void candidates_of_vectors(const float *gradient, const float *hidden, const int64_t *index,
                                  const int64_t *row, int64_t n, int64_t k, int64_t dim,
                                  int64_t rows, float *out, int64_t threads) {
    using namespace candidates;
    // A thread owns some columns of all rows, or of some rows: every number is a sum over the
    // queries in their order, however many threads there are.
    const int64_t registers = dim / LANES;
    const int64_t wide = std::clamp<int64_t>(registers / threads, std::min<int64_t>(2, registers), MOST);
    const int64_t slices = (registers + wide - 1) / wide;
    const int64_t ranges = (threads + slices - 1) / slices;
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
    for (int64_t slice = 0; slice < slices; ++slice)
        for (int64_t range = 0; range < ranges; ++range) {
            const int64_t d = slice * wide * LANES;
            const int64_t low = rows * range / ranges, high = rows * (range + 1) / ranges;
            with_constant(std::min(wide, registers - slice * wide), [&](auto L) {
                for (int64_t i = 0; i < n; ++i)
                    spread<L>(gradient + i * k, index + (row ? row[i] : i) * k, k,
                              hidden + i * dim + d, dim, low, high, out + d);
            });
        }
}
