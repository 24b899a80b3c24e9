#include "catalogue.hpp"

// The score of one item of each state, (n,), by the very operations of `counts`.
NEGREC void own_scores(const float* hidden, int64_t n, const float* matrix, int64_t d,
                       const int64_t* column, float* out, int64_t threads) {
  using namespace catalogue;
  const int64_t blocks = (n + BLOCK - 1) / BLOCK;
#pragma omp parallel num_threads(threads)
  {
    Buffer<float> block(BLOCK * d), tile(MR * BLOCK);
#pragma omp for schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
      const int64_t first = b * BLOCK, states = std::min(BLOCK, n - first);
      lay_out([&](int64_t j) { return matrix + column[first + j] * d; }, states, d, block.data);
      for (int64_t i = 0; i < states; i += MR) {
        const int rows = std::min<int64_t>(MR, states - i);
        scores(hidden + (first + i) * d, d, rows, block.data, tile.data);
        for (int r = 0; r < rows; r++) out[first + i + r] = tile.data[r * BLOCK + i + r];
      }
    }
  }
}

// How many of the v items score higher than `own` (n,), and how many the same, with another
// value in place of the scores of some pairs.
NEGREC void counts(const float* hidden, int64_t n, const float* matrix, int64_t v, int64_t d,
                   const float* own, const int64_t* pair_row, const int64_t* pair_column,
                   int64_t n_pairs, double value, int64_t* greater, int64_t* equal,
                   int64_t threads) {
  using namespace catalogue;
  const Pairs pairs{pair_row, pair_column, n_pairs};
  const int64_t blocks = (v + BLOCK - 1) / BLOCK, size = std::min(n, states_at_once(v));
  Buffer<int32_t> found(blocks * size);
  for (int64_t start = 0; start < n; start += size) {
    const int64_t stop = std::min(start + size, n), states = stop - start;
    sweep(hidden, start, stop, matrix, v, d, pairs, float(value), NAN, threads,
          [&](int64_t p, int64_t i, int rows, const float* tile) {
            for (int r = 0; r < rows; r++, tile += BLOCK) {
              const vec mine = fill(own[i + r]);
              ivec higher = {}, same = {};  // a comparison that holds is -1
              for (int j = 0; j < BLOCK; j += VL) {
                const vec x = load(tile + j);
                higher -= x > mine;
                same -= x == mine;
              }
              // At most 64 each: two numbers in one.
              found.data[p * size + i - start + r] =
                  folded(higher + (same << 16), [](auto a, auto b) { return a + b; });
            }
          });
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t group = 0; group < states; group += VL) {
      const int64_t end = std::min<int64_t>(group + VL, states);
      std::fill(greater + start + group, greater + start + end, 0);
      std::fill(equal + start + group, equal + start + end, 0);
      for (int64_t p = 0; p < blocks; p++)
        for (int64_t s = group; s < end; s++) {
          const int32_t both = found.data[p * size + s];
          greater[start + s] += both & 0xffff;
          equal[start + s] += both >> 16;
        }
    }
  }
}
