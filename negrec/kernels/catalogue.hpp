// Products of states with the whole catalogue that are used up where they arise: a tile of scores
// lives in the first cache, and (N, V) numbers are never written.
#pragma once
#include <memory>

#include "vectors.hpp"

namespace catalogue {

// A block is what is summed up at once: 64 items. A tile is MR states by NB vectors of VL items,
// as many accumulators as the registers take.
constexpr int NB = VL == 16 ? 4 : 2, MR = 6;
constexpr int64_t BLOCK = 64, WIDE = NB * VL, PARTS = BLOCK / WIDE;
constexpr int64_t ROWS = 1024;             // states of a task, for which a block is laid out once
constexpr int64_t ENTRIES = int64_t(1) << 22;  // (block, state) pairs that are held at once

// out (rows, WIDE) = or += a (rows, depth) times b (depth, WIDE).
template <bool add>
inline void product(const float* a, int64_t a_row, int64_t a_depth, int rows, const float* b,
                    int64_t b_depth, int64_t depth, float* out, int64_t out_row) {
  const float* from[MR];
  for (int i = 0; i < MR; i++) from[i] = a + std::min(i, rows - 1) * a_row;
  vec sum[MR][NB] = {};
  for (int64_t k = 0; k < depth; k++) {
    vec right[NB];
    for (int j = 0; j < NB; j++) right[j] = load(b + k * b_depth + j * VL);
    for (int i = 0; i < MR; i++) {
      float left = from[i][k * a_depth];
      for (int j = 0; j < NB; j++) sum[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < NB; j++) {
      float* p = out + i * out_row + j * VL;
      store(p, add ? load(p) + sum[i][j] : sum[i][j]);
    }
}

// Lays 64 item vectors out for `scores`: [part][depth][WIDE]; zeros behind the last item.
template <class Row>
inline void lay_out(Row row, int64_t items, int64_t d, float* out) {
  constexpr int64_t STEP = 16;  // a square that stays in the first cache
  for (int64_t first = 0; first < BLOCK; first += STEP)
    for (int64_t k0 = 0; k0 < d; k0 += STEP)
      for (int64_t j = first; j < first + STEP; j++) {
        float* to = out + (j / WIDE) * d * WIDE + j % WIDE;
        const float* from = j < items ? row(j) : nullptr;
        for (int64_t k = k0; k < std::min(k0 + STEP, d); k++) to[k * WIDE] = from ? from[k] : 0;
      }
}

// Scores of at most MR states against a block, (MR, 64): each is a sum over d in the same order,
// wherever its state and its item stand.
inline void scores(const float* hidden, int64_t d, int rows, const float* block, float* out) {
  for (int64_t part = 0; part < PARTS; part++)
    product<false>(hidden, d, 1, rows, block + part * d * WIDE, WIDE, d, out + part * WIDE, BLOCK);
}

struct Pairs {  // (state, item) pairs, ascending by state
  const int64_t *row, *column;
  int64_t n;
  Pairs of(int64_t start, int64_t stop) const {
    auto a = std::lower_bound(row, row + n, start) - row, b = std::lower_bound(row, row + n, stop) - row;
    return {row + a, column + a, b - a};
  }
};

struct ByBlock {  // the same, in the order of the blocks, and of the states in each
  std::vector<int64_t> bounds, row, column;
  ByBlock(Pairs pairs, int64_t blocks) : bounds(blocks + 2), row(pairs.n), column(pairs.n) {
    for (int64_t i = 0; i < pairs.n; i++) bounds[pairs.column[i] / BLOCK + 2]++;
    for (int64_t b = 2; b < blocks + 2; b++) bounds[b] += bounds[b - 1];
    for (int64_t i = 0; i < pairs.n; i++) {
      int64_t at = bounds[pairs.column[i] / BLOCK + 1]++;
      row[at] = pairs.row[i], column[at] = pairs.column[i] % BLOCK;
    }
  }
};

// Calls visit(block, first state, number of states, scores (MR, 64)) for all tiles of scores of
// states start..stop - 1, in which the given pairs have another value, as has what lies behind the
// last item. Threads share the blocks: visits of different blocks must not meet.
template <class Visit>
void sweep(const float* hidden, int64_t start, int64_t stop, const float* matrix, int64_t v,
           int64_t d, const Pairs& pairs, float value, float behind, int64_t threads, Visit visit) {
  const int64_t blocks = (v + BLOCK - 1) / BLOCK, parts = (stop - start + ROWS - 1) / ROWS;
  const ByBlock set(pairs.of(start, stop), blocks);
#pragma omp parallel num_threads(threads)
  {
    Buffer<float> block(BLOCK * d), tile(MR * BLOCK);
    int64_t laid_out = -1;
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < blocks * parts; task++) {
      const int64_t p = task / parts, first = start + task % parts * ROWS;
      const int64_t items = std::min(BLOCK, v - p * BLOCK);
      if (laid_out != p)
        lay_out([&](int64_t j) { return matrix + (p * BLOCK + j) * d; }, items, d, block.data);
      laid_out = p;
      int64_t at = std::lower_bound(set.row.begin() + set.bounds[p],
                                    set.row.begin() + set.bounds[p + 1], first) -
                   set.row.begin();
      for (int64_t i = first; i < std::min(first + ROWS, stop); i += MR) {
        const int rows = std::min<int64_t>(MR, std::min(first + ROWS, stop) - i);
        scores(hidden + i * d, d, rows, block.data, tile.data);
        for (; at < set.bounds[p + 1] && set.row[at] < i + rows; at++)
          tile.data[(set.row[at] - i) * BLOCK + set.column[at]] = value;
        if (items < BLOCK)
          for (int r = 0; r < rows; r++)
            std::fill(tile.data + r * BLOCK + items, tile.data + (r + 1) * BLOCK, behind);
        visit(p, i, rows, tile.data);
      }
    }
  }
}

// Of each block (of 64 items) and state: the highest score, and the sum of exp(score - highest).
struct Sums {
  const int64_t blocks, n;  // n is a multiple of VL
  Buffer<float> top, sum;
  Sums(int64_t blocks, int64_t states)
      : blocks(blocks), n((states + VL - 1) / VL * VL), top(blocks * n), sum(blocks * n) {
    std::fill(top.data, top.data + blocks * n, -INFINITY);
    std::fill(sum.data, sum.data + blocks * n, 0.f);
  }

  void take(const float* hidden, int64_t start, int64_t stop, const float* matrix, int64_t v,
            int64_t d, const Pairs& ruled_out, int64_t threads) {
    sweep(hidden, start, stop, matrix, v, d, ruled_out, -INFINITY, -INFINITY, threads,
          [&](int64_t p, int64_t i, int rows, const float* tile) {
            // One loop for the tops, one for the sums: the states' chains of operations overlap.
            float* top_of = top.data + p * n + i - start;
            float* sum_of = sum.data + p * n + i - start;
            for (int r = 0; r < rows; r++) {
              const float* x = tile + r * BLOCK;
              vec most = load(x);
              for (int j = VL; j < BLOCK; j += VL) most = larger(most, load(x + j));
              top_of[r] = folded(most, [](auto a, auto b) { return a > b ? a : b; });
            }
            for (int r = 0; r < rows; r++) {
              const float* x = tile + r * BLOCK;
              const float base = top_of[r] == -INFINITY ? 0 : top_of[r] * LOG2E;
              vec total = {};
              for (int j = 0; j < BLOCK; j += VL) total += exp_from(load(x + j), base);
              sum_of[r] = folded(total, [](auto a, auto b) { return a + b; });
            }
          });
  }

  // The whole of VL states side by side, so that each line is read once: the highest score, and
  // the sum of exp(score - highest); each(block, sums up to it) on the way.
  template <class Each>
  void whole(int64_t first, float* highest, double* total, Each each) const {
    vec most = fill(-INFINITY);
    for (int64_t p = 0; p < blocks; p++) most = larger(most, load(top.data + p * n + first));
    store(highest, most);
    const vec base = most == fill(-INFINITY) ? vec{} : most * LOG2E;
    std::fill(total, total + VL, 0.);
    for (int64_t p = 0; p < blocks; p++) {
      float part[VL];
      store(part, load(sum.data + p * n + first) * exp_from(load(top.data + p * n + first), base));
      for (int s = 0; s < VL; s++) total[s] += part[s];
      each(p, total);
    }
  }
};


// How many states are worked on at once, where something is kept for each block and state.
inline int64_t states_at_once(int64_t v) {
  return std::max<int64_t>(ENTRIES / ((v + BLOCK - 1) / BLOCK) / MR * MR, 10 * MR);
}

}  // namespace catalogue
