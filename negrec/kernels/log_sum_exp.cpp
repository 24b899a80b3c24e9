#include "catalogue.hpp"

// log sum exp(score) of each state without the pairs that are ruled out, (n,).
NEGREC void log_sum_exp(const float* hidden, int64_t n, const float* matrix, int64_t v, int64_t d,
                        const int64_t* pair_row, const int64_t* pair_column, int64_t n_pairs,
                        float* out, int64_t threads) {
  using namespace catalogue;
  const Pairs ruled_out{pair_row, pair_column, n_pairs};
  const int64_t blocks = (v + BLOCK - 1) / BLOCK, size = std::min(n, states_at_once(v));
  Sums sums(blocks, size);
  for (int64_t start = 0; start < n; start += size) {
    const int64_t stop = std::min(start + size, n), groups = (stop - start + VL - 1) / VL;
    sums.take(hidden, start, stop, matrix, v, d, ruled_out, threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t group = 0; group < groups; group++) {
      const int64_t first = group * VL, states = std::min<int64_t>(VL, stop - start - first);
      float highest[VL];
      double whole[VL];
      sums.whole(first, highest, whole, [](int64_t, const double*) {});
      for (int64_t s = 0; s < states; s++)
        out[start + first + s] = whole[s] == 0 ? -INFINITY : std::log(whole[s]) + highest[s];
    }
  }
}

// Gradients of sum_n gradient_n log_sum_exp_n: with P = gradient exp(score - total), 0 for pairs
// that are ruled out, of_hidden = P matrix and of_matrix = P' hidden.
NEGREC void log_sum_exp_backward(const float* hidden, int64_t n, const float* matrix, int64_t v,
                                 int64_t d, const int64_t* pair_row, const int64_t* pair_column,
                                 int64_t n_pairs, const float* total, const float* gradient,
                                 float* of_hidden, float* of_matrix, int64_t threads) {
  using namespace catalogue;
  constexpr int64_t AT_ONCE = 42 * MR;  // states whose P lies in the second cache
  const int64_t blocks = (v + BLOCK - 1) / BLOCK, wide = (d + WIDE - 1) / WIDE * WIDE;
  const int64_t shares = std::min(threads, blocks);
  const ByBlock set({pair_row, pair_column, n_pairs}, blocks);
  Buffer<float> states(n * wide), parts(shares * n * wide);  // filled up to whole vectors
  for (int64_t i = 0; i < n; i++) {
    std::copy(hidden + i * d, hidden + (i + 1) * d, states.data + i * wide);
    std::fill(states.data + i * wide + d, states.data + (i + 1) * wide, 0.f);
  }
  // A share of the blocks for each thread, whose sums are added in order: the same bits each time.
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int64_t share = 0; share < shares; share++) {
    float* own = parts.data + share * n * wide;
    std::fill(own, own + n * wide, 0.f);
    Buffer<float> block(BLOCK * d), items(BLOCK * wide), tile(AT_ONCE * BLOCK);
    Buffer<float> of_items((BLOCK + MR) * wide);
    for (int64_t p = blocks * share / shares; p < blocks * (share + 1) / shares; p++) {
      const int64_t width = std::min(BLOCK, v - p * BLOCK);
      lay_out([&](int64_t j) { return matrix + (p * BLOCK + j) * d; }, width, d, block.data);
      std::fill(items.data, items.data + BLOCK * wide, 0.f);
      for (int64_t j = 0; j < width; j++)
        std::copy(matrix + (p * BLOCK + j) * d, matrix + (p * BLOCK + j + 1) * d,
                  items.data + j * wide);
      std::fill(of_items.data, of_items.data + BLOCK * wide, 0.f);
      int64_t at = set.bounds[p];
      for (int64_t start = 0; start < n; start += AT_ONCE) {
        const int64_t stop = std::min(start + AT_ONCE, n);
        for (int64_t i = start; i < stop; i += MR) {
          const int rows = std::min<int64_t>(MR, stop - i);
          float* weights = tile.data + (i - start) * BLOCK;
          scores(hidden + i * d, d, rows, block.data, weights);
          for (; at < set.bounds[p + 1] && set.row[at] < i + rows; at++)
            weights[(set.row[at] - i) * BLOCK + set.column[at]] = -INFINITY;
          for (int r = 0; r < rows; r++) {
            float* w = weights + r * BLOCK;
            std::fill(w + width, w + BLOCK, -INFINITY);
            // Where nothing is left to sum, all is 0.
            const float base = total[i + r] == -INFINITY ? INFINITY : total[i + r] * LOG2E;
            for (int j = 0; j < BLOCK; j += VL)
              store(w + j, exp_from(load(w + j), base) * gradient[i + r]);
          }
          for (int64_t x = 0; x < wide; x += WIDE)
            product<true>(weights, BLOCK, 1, rows, items.data + x, wide, width, own + i * wide + x,
                          wide);
        }
        for (int64_t j = 0; j < width; j += MR)
          for (int64_t x = 0; x < wide; x += WIDE)
            product<true>(tile.data + j, 1, BLOCK, std::min<int64_t>(MR, width - j),
                          states.data + start * wide + x, wide, stop - start,
                          of_items.data + j * wide + x, wide);
      }
      for (int64_t j = 0; j < width; j++)
        std::copy(of_items.data + j * wide, of_items.data + j * wide + d,
                  of_matrix + (p * BLOCK + j) * d);
    }
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; i++)
    for (int64_t x = 0; x < d; x++) {
      float sum = 0;
      for (int64_t share = 0; share < shares; share++) sum += parts.data[(share * n + i) * wide + x];
      of_hidden[i * d + x] = sum;
    }
}
