// Attention inside one sequence; see attention.py.
#pragma once
#include "products.hpp"

namespace attention {

using products::product, products::ROWS;

// What both passes read.
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
    product({rows, g.stride(), 1}, keys, turned, VL, g.d, nullptr, 0, out, VL, VL);
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
      product({weights + i, 1, VL}, some, rows, g.stride(), seen, nullptr, 0, out + i * out_row,
              out_row, g.d);
    }
  }

  // Adds to each key's row the sum over the queries of weights times the queries' rows.
  void scatter(const float* weights, const float* rows, int64_t stride, float* out,
               int64_t out_row) const {
    for (int64_t j = 0; j < keys; j += ROWS) {
      const int64_t first = g.causal ? std::max<int64_t>(j - start, 0) : 0;  // that sees key j
      float* to = out + j * out_row;
      product({weights + j * VL + first, VL, 1}, std::min<int64_t>(ROWS, keys - j),
              rows + first * stride, stride, n - first, to, out_row, to, out_row, g.d);
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

// What a thread works in, for sequences of at most `longest` tokens.
struct Workspace {
  Buffer<float> turned, weights, dropped, factor;
  Workspace(const Given& g, int64_t longest)
      : turned(g.d * VL), weights(longest * VL), dropped(longest * VL), factor(longest * VL) {}
};

// The values of one sequence, (tokens, heads d).
inline void forward(const Given& g, int64_t sequence, Workspace& at, float* out) {
  float* weights = at.weights.data;
  each(g, sequence, [&](int64_t first, int64_t h, const Queries& some, const Bytes& drops) {
    some.turn(g.part(first + some.start, 0, h), g.stride(), at.turned.data);
    some.meet(g.part(first, 1, h), at.turned.data, weights);
    some.softmax(weights);
    if (g.bytes) {
      some.factors(drops, at.factor.data);
      for (int64_t j = 0; j < some.keys * VL; j += VL)
        store(weights + j, load(weights + j) * load(at.factor.data + j));
    }
    some.gather(weights, g.part(first, 2, h), out + (some.start * g.heads + h) * g.d, g.heads * g.d);
  });
}

// The gradient of one sequence's queries, keys and values, (tokens, 3 heads d), from that of its
// values, (tokens, heads d). The weights are formed once more: they would be more to keep than what
// they are made of.
inline void backward(const Given& g, int64_t sequence, Workspace& at, const float* gradient,
                     float* of_qkv) {
  const float scale = 1 / std::sqrt(float(g.d));
  const int64_t stride = g.stride(), dim = g.heads * g.d;
  // Of keys and values it is summed up over the queries.
  const int64_t tokens = g.offsets[sequence + 1] - g.offsets[sequence];
  std::fill(of_qkv, of_qkv + tokens * stride, 0.f);
  float *weights = at.weights.data, *dropped = at.dropped.data, *factor = at.factor.data;
  each(g, sequence, [&](int64_t first, int64_t h, const Queries& some, const Bytes& drops) {
    const float* queries = g.part(first + some.start, 0, h);
    const float* incoming = gradient + some.start * dim + h * g.d;
    some.turn(queries, stride, at.turned.data);
    some.meet(g.part(first, 1, h), at.turned.data, weights);
    some.softmax(weights);
    some.turn(incoming, dim, at.turned.data);
    some.meet(g.part(first, 2, h), at.turned.data, dropped);
    if (g.bytes) some.factors(drops, factor);
    vec expected = {};
    for (int64_t j = 0; j < some.keys * VL; j += VL) {
      const vec by = g.bytes ? load(factor + j) : fill(1), weight = load(weights + j);
      const vec of = load(dropped + j) * by;
      expected += weight * of;
      store(dropped + j, weight * by);
      store(factor + j, of);
    }
    for (int64_t j = 0; j < some.keys * VL; j += VL)
      store(weights + j, load(weights + j) * (load(factor + j) - expected) * scale);
    float* of_keys = of_qkv + dim + h * g.d;
    some.gather(weights, g.part(first, 1, h), of_qkv + some.start * stride + h * g.d, stride);
    some.scatter(weights, queries, stride, of_keys, stride);
    some.scatter(dropped, incoming, dim, of_keys + dim, stride);
  });
}

}  // namespace attention
