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
      width = g.blocks[3 * k + 2];
      const int64_t cells = g.blocks[3 * k + 1] * width, within = slot - g.blocks[3 * k];
      if (within < cells) {
        const int64_t row = within / width, column = within % width;
        first = start + (row * g.heads + head) * width * width + column * width + column;
        return;
      }
      start += (cells * width * g.heads + 7) / 8 * 8;  // whole words were drawn
    }
  }
};

// out (R, W vectors) = or += a (R, depth) times b (depth, W vectors).
template <bool add, int R, int W>
inline void tile(const float* a, int64_t a_row, int64_t a_depth, const float* b, int64_t b_depth,
                 int64_t depth, float* out, int64_t out_row) {
  vec sum[R][W] = {};
  for (int64_t k = 0; k < depth; k++) {
    vec right[W];
    for (int w = 0; w < W; w++) right[w] = load(b + k * b_depth + w * VL);
    for (int i = 0; i < R; i++)
      for (int w = 0; w < W; w++) sum[i][w] += a[i * a_row + k * a_depth] * right[w];
  }
  for (int i = 0; i < R; i++)
    for (int w = 0; w < W; w++) {
      float* to = out + i * out_row + w * VL;
      store(to, add ? load(to) + sum[i][w] : sum[i][w]);
    }
}

// The same for the columns that fill no vector.
template <bool add>
inline void rest(const float* a, int64_t a_row, int64_t a_depth, int64_t rows, const float* b,
                 int64_t b_depth, int64_t depth, float* out, int64_t out_row, int64_t columns) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) {
      float sum = add ? out[i * out_row + j] : 0;
      for (int64_t k = 0; k < depth; k++) sum += a[i * a_row + k * a_depth] * b[k * b_depth + j];
      out[i * out_row + j] = sum;
    }
}

constexpr int ROWS = 4;

// out (rows, columns) = or += a (rows, depth) times b (depth, columns), for at most ROWS rows.
template <bool add>
inline void product(const float* a, int64_t a_row, int64_t a_depth, int64_t rows, const float* b,
                    int64_t b_depth, int64_t depth, float* out, int64_t out_row, int64_t columns) {
  int64_t j = 0;
#define TILES(R, W)                            \
  for (; j + W * VL <= columns; j += W * VL)   \
    tile<add, R, W>(a, a_row, a_depth, b + j, b_depth, depth, out + j, out_row);
#define CASE(R) \
  case R:       \
    TILES(R, 2) TILES(R, 1) break;
  switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) }
#undef CASE
#undef TILES
  if (j < columns)
    rest<add>(a, a_row, a_depth, rows, b + j, b_depth, depth, out + j, out_row, columns - j);
}

// One head of up to VL queries of a sequence: a query for each lane, so that what belongs to a
// query is never summed across lanes. Of each key there is a vector of weights.
struct Queries {
  const Given& g;
  const int64_t start, n, keys;  // of the first query in its sequence; how many; those they see

  // Rows of d floats turned round, zeros in the lanes without a query, (d, VL).
  void turn(const float* from, int64_t stride, float* to) const {
    for (int64_t c = 0; c < g.d; c++) store(to + c * VL, vec{});
    for (int64_t i = 0; i < n; i++)
      for (int64_t c = 0; c < g.d; c++) to[c * VL + i] = from[i * stride + c];
  }

  // Products of keys (or values) and queries (or gradients), (keys, VL).
  void meet(const float* rows, const float* turned, float* out) const {
    for (int64_t j = 0; j < keys; j += ROWS)
      product<false>(rows + j * g.stride(), g.stride(), 1, std::min<int64_t>(ROWS, keys - j), turned,
                     VL, g.d, out + j * VL, VL, VL);
  }

  // Scores to weights that sum to 1 over the keys that a query sees, 0 of others.
  void softmax(float* scores) const {
    const float scale = 1 / std::sqrt(float(g.d));
    ivec lane;
    for (int i = 0; i < VL; i++) lane[i] = start + i;
    if (g.causal)
      for (int64_t j = start + 1; j < keys; j++) {
        const vec score = load(scores + j * VL);
        store(scores + j * VL, lane < int32_t(j) ? fill(-INFINITY) : score);
      }
    vec top = load(scores), total = {};
    for (int64_t j = 1; j < keys; j++) top = larger(load(scores + j * VL), top);
    for (int64_t j = 0; j < keys; j++) {
      const vec weight = exp_from((load(scores + j * VL) - top) * scale, 0.f);
      store(scores + j * VL, weight);
      total += weight;
    }
    const vec share = 1 / total;
    for (int64_t j = 0; j < keys; j++) store(scores + j * VL, load(scores + j * VL) * share);
  }

  // What each weight is multiplied with, 0 or 1 / (1 - p), (keys, VL).
  void factors(const Bytes& bytes, float* out) const {
    const float kept = 256.f / (256 - g.threshold);
    for (int64_t j = 0; j < keys; j++) store(out + j * VL, vec{});
    for (int64_t i = 0; i < n; i++) {
      const uint8_t* byte = bytes.first + (start + i) * bytes.width;
      const int64_t seen = g.causal ? start + i + 1 : keys;
      for (int64_t j = 0; j < seen; j++) out[j * VL + i] = byte[j] >= g.threshold ? kept : 0.f;
    }
  }

  // Sums over the keys of weights (keys, VL) times rows of keys (or values), a row per query.
  void gather(const float* weights, const float* rows, float* out, int64_t out_row) const {
    for (int64_t i = 0; i < n; i += ROWS) {
      const int64_t some = std::min<int64_t>(ROWS, n - i);
      const int64_t seen = g.causal ? start + i + some : keys;
      product<false>(weights + i, 1, VL, some, rows, g.stride(), seen, out + i * out_row, out_row, g.d);
    }
  }

  // Adds to each key's row the sum over the queries of weights times the queries' rows.
  void scatter(const float* weights, const float* rows, int64_t stride, float* out,
               int64_t out_row) const {
    for (int64_t j = 0; j < keys; j += ROWS) {
      const int64_t first = g.causal ? std::max<int64_t>(j - start, 0) : 0;  // that sees key j
      product<true>(weights + j * VL + first, VL, 1, std::min<int64_t>(ROWS, keys - j),
                    rows + first * stride, stride, n - first, out + j * out_row, out_row, g.d);
    }
  }
};

// Calls visit(first token, head, queries, bytes) for all queries, those of a sequence's head in turn.
template <class Visit>
inline void each(const Given& g, int64_t sequence, Visit visit) {
  const int64_t first = g.offsets[sequence], n = g.offsets[sequence + 1] - first;
  if (n == 0) return;
  for (int64_t h = 0; h < g.heads; h++) {
    const Bytes bytes(g, first, h);
    for (int64_t i = 0; i < n; i += VL) {
      const int64_t some = std::min<int64_t>(VL, n - i);
      visit(first, h, Queries{g, i, some, g.causal ? i + some : n}, bytes);
    }
  }
}

}  // namespace attention

NEGREC void attention_forward(const float* qkv, const int64_t* offsets, const int64_t* slot,
                              const int64_t* blocks, int64_t sequences, int64_t n_blocks,
                              int64_t heads, int64_t d, int64_t causal, const uint8_t* bytes,
                              int64_t threshold, float* out, int64_t threads) {
  using namespace attention;
  const Given g{qkv, offsets, slot, blocks, sequences, n_blocks, heads, d, causal != 0, bytes, threshold};
  const int64_t longest = g.longest();
#pragma omp parallel num_threads(threads)
  {
    Buffer<float> turned(d * VL), weights(longest * VL), factor(longest * VL);
#pragma omp for schedule(dynamic, 8)
    for (int64_t b = 0; b < sequences; b++)
      each(g, b, [&](int64_t first, int64_t h, const Queries& some, const Bytes& drops) {
        some.turn(g.part(first + some.start, 0, h), g.stride(), turned.data);
        some.meet(g.part(first, 1, h), turned.data, weights.data);
        some.softmax(weights.data);
        if (bytes) {
          some.factors(drops, factor.data);
          for (int64_t j = 0; j < some.keys * VL; j += VL)
            store(weights.data + j, load(weights.data + j) * load(factor.data + j));
        }
        some.gather(weights.data, g.part(first, 2, h), out + ((first + some.start) * heads + h) * d,
                    heads * d);
      });
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
  const int64_t longest = g.longest(), stride = g.stride();
  const float scale = 1 / std::sqrt(float(d));
#pragma omp parallel num_threads(threads)
  {
    Buffer<float> turned(d * VL), weights(longest * VL), dropped(longest * VL), factor(longest * VL);
#pragma omp for schedule(dynamic, 8)
    for (int64_t b = 0; b < sequences; b++) {
      // Of keys and values it is summed up over the queries.
      std::fill(of_qkv + offsets[b] * stride, of_qkv + offsets[b + 1] * stride, 0.f);
      each(g, b, [&](int64_t first, int64_t h, const Queries& some, const Bytes& drops) {
        const int64_t token = first + some.start;
        const float* incoming = gradient + (token * heads + h) * d;
        some.turn(g.part(token, 0, h), stride, turned.data);
        some.meet(g.part(first, 1, h), turned.data, weights.data);
        some.softmax(weights.data);
        some.turn(incoming, heads * d, turned.data);
        some.meet(g.part(first, 2, h), turned.data, dropped.data);
        if (bytes) some.factors(drops, factor.data);
        vec expected = {};
        for (int64_t j = 0; j < some.keys * VL; j += VL) {
          const vec by = bytes ? load(factor.data + j) : fill(1), weight = load(weights.data + j);
          const vec of = load(dropped.data + j) * by;
          expected += weight * of;
          store(dropped.data + j, weight * by);
          store(factor.data + j, of);
        }
        float* of_scores = factor.data;
        for (int64_t j = 0; j < some.keys * VL; j += VL)
          store(of_scores + j,
                load(weights.data + j) * (load(factor.data + j) - expected) * scale);
        float* of_keys = of_qkv + first * stride + (heads + h) * d;
        some.gather(of_scores, g.part(first, 1, h), of_qkv + token * stride + h * d, stride);
        some.scatter(of_scores, g.part(token, 0, h), stride, of_keys, stride);
        some.scatter(dropped.data, incoming, heads * d, of_keys + heads * d, stride);
      });
    }
  }
}
