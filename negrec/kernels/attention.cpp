#include "vectors.hpp"

namespace attention {

// What both passes read; see attention.py.
struct Given {
  const float* qkv;
  const int64_t *offsets, *slot, *blocks;  // blocks: first slot, rows, width of each
  int64_t sequences, n_blocks, heads, d;   // d: of a head
  bool causal;
  const uint8_t* bytes;  // of the dropout, in the order of the packed weights; null: none
  int64_t threshold;

  float scale() const { return 1 / std::sqrt(float(d)); }
  float kept() const { return 256.f / (256 - threshold); }
  int64_t stride() const { return 3 * heads * d; }
  const float* part(int64_t token, int64_t which, int64_t head) const {
    return qkv + token * stride() + (which * heads + head) * d;
  }
  int64_t longest() const {
    int64_t most = 0;
    for (int64_t b = 0; b < sequences; b++) most = std::max(most, offsets[b + 1] - offsets[b]);
    return most;
  }
};

// The bytes of one head's weights: those of query i and key j stand at [i * width + j].
struct Bytes {
  const uint8_t* first = nullptr;
  int64_t width = 0;

  Bytes(const Given& g, int64_t token, int64_t head) {
    if (!g.bytes) return;
    const int64_t slot = g.slot[token];
    const uint8_t* start = g.bytes;
    for (int64_t k = 0; k < g.n_blocks; k++) {
      const int64_t rows = g.blocks[3 * k + 1], cells = rows * (width = g.blocks[3 * k + 2]);
      const int64_t within = slot - g.blocks[3 * k];
      if (within < cells) {
        const int64_t row = within / width, column = within % width;
        first = start + (row * g.heads + head) * width * width + column * width + column;
        return;
      }
      start += (cells * width * g.heads + 7) / 8 * 8;  // whole words were drawn
    }
  }
};

constexpr int ROWS = 4;

inline float sum_of(vec x) {
  return folded(x, [](auto a, auto b) { return a + b; });
}

// A thread's floats, handed out piece by piece.
struct Scratch {
  Buffer<float> buffer;
  int64_t used = 0;
  explicit Scratch(int64_t size) : buffer(size) {}
  float* take(int64_t size) {
    used += size;
    return buffer.data + used - size;
  }
};

// out (rows, W vectors) = a (rows, depth) times b (depth, W vectors).
template <int W>
inline void tile(const float* const* from, int64_t a_depth, int64_t rows, const float* b,
                 int64_t b_depth, int64_t depth, float* out, int64_t out_row) {
  vec sum[ROWS][W] = {};
  for (int64_t k = 0; k < depth; k++) {
    vec right[W];
    for (int w = 0; w < W; w++) right[w] = load(b + k * b_depth + w * VL);
    for (int i = 0; i < ROWS; i++)
      for (int w = 0; w < W; w++) sum[i][w] += from[i][k * a_depth] * right[w];
  }
  for (int64_t i = 0; i < rows; i++)
    for (int w = 0; w < W; w++) store(out + i * out_row + w * VL, sum[i][w]);
}

// out (rows, columns) = a (rows, depth) times b (depth, columns); columns in whole vectors.
inline void product(const float* a, int64_t a_row, int64_t a_depth, int64_t rows, const float* b,
                    int64_t b_depth, int64_t depth, float* out, int64_t out_row, int64_t columns) {
  const float* from[ROWS];
  for (int64_t i = 0; i < ROWS; i++) from[i] = a + std::min(i, rows - 1) * a_row;
  int64_t j = 0;
  for (; j + 2 * VL <= columns; j += 2 * VL)
    tile<2>(from, a_depth, rows, b + j, b_depth, depth, out + j, out_row);
  if (j < columns) tile<1>(from, a_depth, rows, b + j, b_depth, depth, out + j, out_row);
}

// Rows of d floats, `stride` apart, into rows of `width`, zeros behind.
inline void copy(const float* from, int64_t stride, int64_t n, int64_t d, float* to, int64_t width) {
  for (int64_t i = 0; i < n; i++) {
    std::memcpy(to + i * width, from + i * stride, d * sizeof(float));
    std::fill(to + i * width + d, to + (i + 1) * width, 0.f);
  }
}

// The same turned round: d rows of `width`.
inline void turn(const float* from, int64_t stride, int64_t n, int64_t d, float* to, int64_t width) {
  for (int64_t c = 0; c < d; c++) std::fill(to + c * width + n, to + (c + 1) * width, 0.f);
  for (int64_t i = 0; i < n; i++)
    for (int64_t c = 0; c < d; c++) to[c * width + i] = from[i * stride + c];
}

// Scores (the first `keys` of a row) to weights that sum to 1, zeros behind, in whole vectors.
inline void softmax(float* row, int64_t keys, int64_t width, float scale) {
  for (int64_t j = keys; j < width; j++) row[j] = -INFINITY;
  vec most = fill(-INFINITY);
  for (int64_t j = 0; j < width; j += VL) most = larger(load(row + j), most);
  const float top = folded(most, [](auto a, auto b) { return a > b ? a : b; });
  vec total = {};
  for (int64_t j = 0; j < width; j += VL) {
    const vec weight = exp_from((load(row + j) - top) * scale, 0.f);
    store(row + j, weight);
    total += weight;
  }
  const float share = 1 / sum_of(total);
  for (int64_t j = 0; j < width; j += VL) store(row + j, load(row + j) * share);
}

// What each weight is multiplied with: 0 or `kept`.
inline void factors(const Bytes& bytes, const Given& g, int64_t i, int64_t keys, int64_t width,
                    float* out) {
  const uint8_t* byte = bytes.first + i * bytes.width;
  const float kept = g.kept();
  for (int64_t j = 0; j < keys; j++) out[j] = byte[j] >= g.threshold ? kept : 0.f;
  std::fill(out + keys, out + width, 0.f);
}

}  // namespace attention

NEGREC void attention_forward(const float* qkv, const int64_t* offsets, const int64_t* slot,
                              const int64_t* blocks, int64_t sequences, int64_t n_blocks,
                              int64_t heads, int64_t d, int64_t causal, const uint8_t* bytes,
                              int64_t threshold, float* out, int64_t threads) {
  using namespace attention;
  const Given g{qkv, offsets, slot, blocks, sequences, n_blocks, heads, d, causal != 0, bytes, threshold};
  const int64_t most = filled(g.longest()), wide = filled(d);
#pragma omp parallel num_threads(threads)
  {
    Scratch scratch(d * most + most * wide + ROWS * most + most + ROWS * wide);
    float* keys = scratch.take(d * most);
    float* values = scratch.take(most * wide);
    float* weights = scratch.take(ROWS * most);
    float* factor = scratch.take(most);
    float* sums = scratch.take(ROWS * wide);
#pragma omp for schedule(dynamic, 4)
    for (int64_t b = 0; b < sequences; b++) {
      const int64_t first = offsets[b], n = offsets[b + 1] - first, width = filled(n);
      for (int64_t h = 0; h < heads && n > 0; h++) {
        turn(g.part(first, 1, h), g.stride(), n, d, keys, width);
        copy(g.part(first, 2, h), g.stride(), n, d, values, wide);
        const Bytes drops(g, first, h);
        for (int64_t i = 0; i < n; i += ROWS) {
          const int64_t rows = std::min<int64_t>(ROWS, n - i), reach = g.causal ? i + rows : n;
          const int64_t columns = filled(reach);
          product(g.part(first + i, 0, h), g.stride(), 1, rows, keys, width, d, weights, most, columns);
          for (int64_t r = 0; r < rows; r++) {
            float* row = weights + r * most;
            const int64_t seen = g.causal ? i + r + 1 : n;
            softmax(row, seen, columns, g.scale());
            if (!bytes) continue;
            factors(drops, g, i + r, seen, columns, factor);
            for (int64_t j = 0; j < columns; j += VL) store(row + j, load(row + j) * load(factor + j));
          }
          product(weights, most, 1, rows, values, wide, reach, sums, wide, wide);
          for (int64_t r = 0; r < rows; r++)
            std::memcpy(out + ((first + i + r) * heads + h) * d, sums + r * wide, d * sizeof(float));
        }
      }
    }
  }
}

// The weights are formed once more: they would be more to keep than what they are made of.
NEGREC void attention_backward(const float* qkv, const int64_t* offsets, const int64_t* slot,
                               const int64_t* blocks, int64_t sequences, int64_t n_blocks,
                               int64_t heads, int64_t d, int64_t causal, const uint8_t* bytes,
                               int64_t threshold, const float* gradient, float* of_qkv,
                               int64_t threads) {
  using namespace attention;
  const Given g{qkv, offsets, slot, blocks, sequences, n_blocks, heads, d, causal != 0, bytes, threshold};
  const int64_t most = filled(g.longest()), wide = filled(d), stride = g.stride();
#pragma omp parallel num_threads(threads)
  {
    Scratch scratch(2 * d * most + 3 * most * wide + 2 * most * most + 2 * most + ROWS * wide);
    float* turned_keys = scratch.take(d * most);
    float* turned_values = scratch.take(d * most);
    float* queries = scratch.take(most * wide);
    float* keys = scratch.take(most * wide);
    float* incoming = scratch.take(most * wide);
    float* dropped = scratch.take(most * most);    // the weights that met the values
    float* of_scores = scratch.take(most * most);  // first the weights
    float* of_weights = scratch.take(most);
    float* factor = scratch.take(most);
    float* sums = scratch.take(ROWS * wide);
#pragma omp for schedule(dynamic, 4)
    for (int64_t b = 0; b < sequences; b++) {
      const int64_t first = offsets[b], n = offsets[b + 1] - first, width = filled(n);
      for (int64_t h = 0; h < heads && n > 0; h++) {
        turn(g.part(first, 1, h), stride, n, d, turned_keys, width);
        turn(g.part(first, 2, h), stride, n, d, turned_values, width);
        copy(g.part(first, 0, h), stride, n, d, queries, wide);
        copy(g.part(first, 1, h), stride, n, d, keys, wide);
        copy(gradient + (first * heads + h) * d, heads * d, n, d, incoming, wide);
        const Bytes drops(g, first, h);
        const auto hand_out = [&](int64_t token, int64_t which, int64_t rows) {
          for (int64_t r = 0; r < rows; r++)
            std::memcpy(of_qkv + (token + r) * stride + (which * heads + h) * d, sums + r * wide,
                        d * sizeof(float));
        };
        for (int64_t i = 0; i < n; i += ROWS) {
          const int64_t rows = std::min<int64_t>(ROWS, n - i), reach = g.causal ? i + rows : n;
          const int64_t columns = filled(reach);
          float* rows_of_scores = of_scores + i * width;
          float* rows_dropped = dropped + i * width;
          product(queries + i * wide, wide, 1, rows, turned_keys, width, d, rows_of_scores, width, columns);
          product(incoming + i * wide, wide, 1, rows, turned_values, width, d, rows_dropped, width, columns);
          for (int64_t r = 0; r < rows; r++) {
            float* weight = rows_of_scores + r * width;
            float* drop = rows_dropped + r * width;  // first the gradient of the dropped weights
            const int64_t seen = g.causal ? i + r + 1 : n;
            softmax(weight, seen, columns, g.scale());
            if (bytes) factors(drops, g, i + r, seen, columns, factor);
            vec mean = {};
            for (int64_t j = 0; j < columns; j += VL) {
              const vec by = bytes ? load(factor + j) : fill(1), p = load(weight + j);
              const vec of = load(drop + j) * by;
              mean += p * of;
              store(of_weights + j, of);
              store(drop + j, p * by);
            }
            const float expected = sum_of(mean);
            for (int64_t j = 0; j < columns; j += VL)
              store(weight + j, load(weight + j) * (load(of_weights + j) - expected) * g.scale());
          }
          product(rows_of_scores, width, 1, rows, keys, wide, reach, sums, wide, wide);
          hand_out(first + i, 0, rows);
        }
        for (int64_t j = 0; j < n; j += ROWS) {
          const int64_t rows = std::min<int64_t>(ROWS, n - j), from = g.causal ? j : 0;
          const int64_t at = from * width + j;
          product(of_scores + at, 1, width, rows, queries + from * wide, wide, n - from, sums, wide, wide);
          hand_out(first + j, 1, rows);
          product(dropped + at, 1, width, rows, incoming + from * wide, wide, n - from, sums, wide, wide);
          hand_out(first + j, 2, rows);
        }
      }
    }
  }
}
