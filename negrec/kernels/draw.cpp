#include "catalogue.hpp"

// Draws k items of each state by exp(score) without the pairs that are ruled out: u (n, k) are
// uniform numbers, out (n, k) columns, -1 where nothing is left. Two levels of inverse CDF: the
// blocks' sums, and the scores of the block that is met, computed once more.
NEGREC void softmax_draw(const float* hidden, int64_t n, const float* matrix, int64_t v, int64_t d,
                         const int64_t* pair_row, const int64_t* pair_column, int64_t n_pairs,
                         const double* u, int64_t k, int64_t* out, int64_t threads) {
  using namespace catalogue;
  const Pairs ruled_out{pair_row, pair_column, n_pairs};
  const int64_t blocks = (v + BLOCK - 1) / BLOCK, size = std::min(n, states_at_once(v));
  Sums sums(blocks, size);
  for (int64_t start = 0; start < n; start += size) {
    const int64_t stop = std::min(start + size, n), groups = (stop - start + VL - 1) / VL;
    sums.take(hidden, start, stop, matrix, v, d, ruled_out, threads);
#pragma omp parallel num_threads(threads)
    {
      Buffer<double> cumulated(blocks * VL);
#pragma omp for schedule(dynamic)
      for (int64_t group = 0; group < groups; group++) {
        const int64_t first = group * VL, states = std::min<int64_t>(VL, stop - start - first);
        float highest[VL];
        double whole[VL];
        sums.whole(first, highest, whole, [&](int64_t p, const double* total) {
          for (int s = 0; s < VL; s++) cumulated.data[s * blocks + p] = total[s];
        });
        int64_t at = std::lower_bound(pair_row, pair_row + n_pairs, start + first) - pair_row;
        for (int64_t s = 0; s < states; s++) {
          const int64_t i = start + first + s, own = at;
          const double* cdf = cumulated.data + s * blocks;
          while (at < n_pairs && pair_row[at] == i) at++;
          for (int64_t c = 0; c < k; c++) {
            if (!(whole[s] > 0)) {  // nothing is left, or a score is no number
              out[i * k + c] = -1;
              continue;
            }
            const double wanted = std::min(u[i * k + c] * whole[s], std::nextafter(whole[s], 0.));
            const int64_t p = std::min<int64_t>(
                std::upper_bound(cdf, cdf + blocks, wanted) - cdf, blocks - 1);
            const int64_t items = std::min(BLOCK, v - p * BLOCK);
            float score[BLOCK];
            for (int64_t j = 0; j < items; j++) {
              const float *a = hidden + i * d, *b = matrix + (p * BLOCK + j) * d;
              vec sum = {};
              int64_t x = 0;
              for (; x + VL <= d; x += VL) sum += load(a + x) * load(b + x);
              score[j] = folded(sum, [](auto y, auto z) { return y + z; });
              for (; x < d; x++) score[j] += a[x] * b[x];
            }
            for (int64_t j = items; j < BLOCK; j++) score[j] = -INFINITY;
            for (int64_t q = own; q < at; q++)
              if (pair_column[q] / BLOCK == p) score[pair_column[q] % BLOCK] = -INFINITY;
            const float top = sums.top.data[p * sums.n + first + s];
            for (int64_t j = 0; j < BLOCK; j += VL)
              store(score + j, exp_from(load(score + j), top * LOG2E));
            double inner[BLOCK], sum = 0;
            for (int64_t j = 0; j < BLOCK; j++) inner[j] = sum += score[j];
            double rest = (wanted - (p ? cdf[p - 1] : 0)) / std::exp(double(top) - highest[s]);
            // Rounding may leave the number beyond the block's own end.
            rest = std::max(0., std::min(rest, std::nextafter(sum, 0.)));
            const int64_t j = std::upper_bound(inner, inner + BLOCK, rest) - inner;
            out[i * k + c] = p * BLOCK + std::min(j, items - 1);
          }
        }
      }
    }
  }
}
