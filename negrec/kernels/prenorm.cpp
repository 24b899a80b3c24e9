#include "attention.hpp"
#include "dropout.hpp"
#include "gelu.hpp"

namespace prenorm {

using products::product;

constexpr int64_t TOKENS = 60;  // of a task: what they are worth in numbers stays in the second cache

struct Linear {  // y = x weight^T + bias
  int64_t in, out;
  const float *weight, *bias;  // (out, in), (out)
};

struct Norm {
  int64_t dim;
  float epsilon;
  const float *weight, *bias;
};

// In the order in which Python names them.
struct Weights {
  Norm norm1;
  Linear qkv, out;
  Norm norm2;
  Linear up, down;

  Weights(int64_t d, int64_t w, double epsilon, const float* const* at)
      : norm1{d, float(epsilon), at[0], at[1]}, qkv{d, 3 * d, at[2], at[3]},
        out{d, d, at[4], at[5]}, norm2{d, float(epsilon), at[6], at[7]},
        up{d, w, at[8], at[9]}, down{w, d, at[10], at[11]} {}
};

// What the weights gain, one after the other in the same order.
struct Gradients {
  float* at[12];
  int64_t size = 0;

  Gradients(float* data, int64_t d, int64_t w) {
    const int64_t sizes[12] = {d, d, 3 * d * d, 3 * d, d * d, d, d, d, w * d, w, d * w, d};
    for (int i = 0; i < 12; size += sizes[i++]) at[i] = data + size;
  }
};

// Consecutive sequences of together at most TOKENS tokens, or one that is longer.
struct Tasks {
  std::vector<int64_t> first;  // sequence of each, and the end
  int64_t largest = 0;         // in tokens

  Tasks(const int64_t* offsets, int64_t sequences) : first{0} {
    for (int64_t b = 0; b < sequences; b++)
      if (offsets[b + 1] - offsets[first.back()] > TOKENS && b > first.back()) first.push_back(b);
    if (sequences > 0) first.push_back(sequences);
    for (int64_t t = 0; t < size(); t++)
      largest = std::max(largest, offsets[first[t + 1]] - offsets[first[t]]);
  }
  int64_t size() const { return first.size() - 1; }
};

// weight (out, in) turned round: what `product` reads in the forward pass.
inline void turn(const Linear& layer, float* to) {
#pragma omp for schedule(static)
  for (int64_t c = 0; c < layer.in; c++)
    for (int64_t r = 0; r < layer.out; r++) to[c * layer.out + r] = layer.weight[r * layer.in + c];
}

inline void apply(const Linear& layer, const float* turned, const float* x, int64_t n, float* y) {
  product({x, layer.in, 1}, n, turned, layer.out, layer.in, layer.bias, 0, y, layer.out, layer.out);
}

inline float sum_of(vec x) {
  return folded(x, [](auto a, auto b) { return a + b; });
}

// y = (x - mean) / deviation * weight + bias; moments: mean and 1 / deviation of each row.
inline void apply(const Norm& norm, const float* x, int64_t n, float* moments, float* y) {
  const int64_t d = norm.dim;
  for (int64_t i = 0; i < n; i++, x += d, y += d) {
    vec sum = {}, squares = {};
    for (int64_t c = 0; c < d; c += VL) sum += load(x + c);
    const float mean = sum_of(sum) / d;
    for (int64_t c = 0; c < d; c += VL) {
      const vec apart = load(x + c) - mean;
      squares += apart * apart;
    }
    const float steep = 1 / std::sqrt(sum_of(squares) / d + norm.epsilon);
    moments[2 * i] = mean, moments[2 * i + 1] = steep;
    for (int64_t c = 0; c < d; c += VL)
      store(y + c, (load(x + c) - mean) * steep * load(norm.weight + c) + load(norm.bias + c));
  }
}

// What a layer's weights gain, from its input and the gradient of its output.
inline void learn(const Linear& layer, const float* x, const float* of_y, int64_t n,
                  float* const* gain) {
  product({of_y, 1, layer.out}, layer.out, x, layer.in, n, gain[0], layer.in, gain[0], layer.in,
          layer.in);
  for (int64_t i = 0; i < n; i++)
    for (int64_t c = 0; c < layer.out; c += VL)
      store(gain[1] + c, load(gain[1] + c) + load(of_y + i * layer.out + c));
}

// The gradient of a layer's input from that of its output.
inline void back(const Linear& layer, const float* of_y, int64_t n, float* of_x) {
  product({of_y, layer.out, 1}, n, layer.weight, layer.in, layer.out, nullptr, 0, of_x, layer.in,
          layer.in);
}

// The same of a norm, added to `onto`, and what its weights gain.
inline void back(const Norm& norm, const float* x, const float* moments, const float* of_y,
                 const float* onto, int64_t n, float* of_x, float* const* gain) {
  const int64_t d = norm.dim;
  for (int64_t i = 0; i < n; i++, x += d, of_y += d, onto += d, of_x += d) {
    const float mean = moments[2 * i], steep = moments[2 * i + 1];
    vec sum = {}, along = {};
    for (int64_t c = 0; c < d; c += VL) {
      const vec y = (load(x + c) - mean) * steep, of = load(of_y + c), g = of * load(norm.weight + c);
      sum += g;
      along += g * y;
      store(gain[0] + c, load(gain[0] + c) + of * y);
      store(gain[1] + c, load(gain[1] + c) + of);
    }
    const float of_mean = sum_of(sum) / d, of_size = sum_of(along) / d;
    for (int64_t c = 0; c < d; c += VL) {
      const vec y = (load(x + c) - mean) * steep, g = load(of_y + c) * load(norm.weight + c);
      store(of_x + c, load(onto + c) + steep * (g - of_mean - y * of_size));
    }
  }
}

}  // namespace prenorm

// x + A(norm(x)), then x + f(norm(x)), see prenorm.py. What the backward pass reads is kept: qkv
// (T, 3 D), attended (T, D), the first sum (T, D), and f's inner values and slopes (T, W), which are
// null where no backward pass follows.
NEGREC void prenorm_forward(const float* x, const float* const* weights, int64_t dim, int64_t width,
                          double epsilon, const int64_t* offsets, const int64_t* slot,
                          const int64_t* blocks, int64_t sequences, int64_t n_blocks,
                          int64_t heads, int64_t causal, const uint8_t* weight_bytes,
                          const uint8_t* first_bytes, const uint8_t* second_bytes,
                          int64_t threshold, float* qkv, float* attended, float* first_sum,
                          float* inner, float* slope, float* out, int64_t threads) {
  using namespace prenorm;
  const Weights w(dim, width, epsilon, weights);
  const attention::Given g{qkv, offsets, slot, blocks, sequences, n_blocks, heads, dim / heads,
                           causal != 0, weight_bytes, threshold};
  const Tasks tasks(offsets, sequences);
  Buffer<float> qkv_turned(3 * dim * dim), out_turned(dim * dim), up_turned(dim * width),
      down_turned(dim * width);
#pragma omp parallel num_threads(threads)
  {
    turn(w.qkv, qkv_turned.data), turn(w.out, out_turned.data);
    turn(w.up, up_turned.data), turn(w.down, down_turned.data);
    attention::Workspace at(g, tasks.largest);
    const int64_t most = tasks.largest;
    Buffer<float> y(most * dim), moments(2 * most), own_inner(inner ? 0 : most * width);
#pragma omp for schedule(dynamic)
    for (int64_t t = 0; t < tasks.size(); t++) {
      const int64_t from = tasks.first[t], to = tasks.first[t + 1];
      const int64_t token = offsets[from], n = offsets[to] - token, cell = token * dim;
      const auto bytes = [&](const uint8_t* all) { return all ? all + cell : nullptr; };
      apply(w.norm1, x + cell, n, moments.data, y.data);
      apply(w.qkv, qkv_turned.data, y.data, n, qkv + 3 * cell);
      for (int64_t b = from; b < to; b++)
        attention::forward(g, b, at, attended + offsets[b] * dim);
      apply(w.out, out_turned.data, attended + cell, n, y.data);
      dropout::apply(y.data, x + cell, bytes(first_bytes), n * dim, threshold, first_sum + cell);
      apply(w.norm2, first_sum + cell, n, moments.data, y.data);
      float* inside = inner ? inner + token * width : own_inner.data;
      apply(w.up, up_turned.data, y.data, n, inside);
      for (int64_t c = 0; c < n * width; c += VL) {
        vec value, steep;
        gelu::both(load(inside + c), value, steep);
        store(inside + c, value);
        if (slope) store(slope + token * width + c, steep);
      }
      apply(w.down, down_turned.data, inside, n, y.data);
      dropout::apply(y.data, first_sum + cell, bytes(second_bytes), n * dim, threshold, out + cell);
    }
  }
}

// From the gradient of the block's output: that of x, and those of the weights, summed up by each
// thread over its own tasks (threads, all weights) and then into the first. A number of threads
// gives the same bits every time.
NEGREC void prenorm_backward(const float* x, const float* const* weights, int64_t dim, int64_t width,
                           double epsilon, const int64_t* offsets, const int64_t* slot,
                           const int64_t* blocks, int64_t sequences, int64_t n_blocks,
                           int64_t heads, int64_t causal, const uint8_t* weight_bytes,
                           const uint8_t* first_bytes, const uint8_t* second_bytes,
                           int64_t threshold, const float* qkv, const float* attended,
                           const float* first_sum, const float* inner, const float* slope,
                           const float* gradient, float* of_x, float* of_weights,
                           int64_t threads) {
  using namespace prenorm;
  const Weights w(dim, width, epsilon, weights);
  const attention::Given g{qkv, offsets, slot, blocks, sequences, n_blocks, heads, dim / heads,
                           causal != 0, weight_bytes, threshold};
  const Tasks tasks(offsets, sequences);
  const int64_t most = tasks.largest, all = Gradients(of_weights, dim, width).size;
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int64_t part = 0; part < threads; part++) {
      float* own = of_weights + part * all;
      std::fill(own, own + all, 0.f);
      const Gradients gain(own, dim, width);
      attention::Workspace at(g, most);
      Buffer<float> y(most * dim), of_y(most * dim), of_sum(most * dim), dropped(most * dim),
          of_inner(most * width), of_qkv(3 * most * dim), moments(2 * most);
      for (int64_t t = tasks.size() * part / threads; t < tasks.size() * (part + 1) / threads; t++) {
        const int64_t from = tasks.first[t], to = tasks.first[t + 1];
        const int64_t token = offsets[from], n = offsets[to] - token, cell = token * dim;
        const auto bytes = [&](const uint8_t* of) { return of ? of + cell : nullptr; };
        const float* incoming = gradient + cell;
        // The second sum.
        dropout::apply(incoming, nullptr, bytes(second_bytes), n * dim, threshold, dropped.data);
        learn(w.down, inner + token * width, dropped.data, n, gain.at + 10);
        back(w.down, dropped.data, n, of_inner.data);
        for (int64_t c = 0; c < n * width; c += VL)
          store(of_inner.data + c, load(of_inner.data + c) * load(slope + token * width + c));
        apply(w.norm2, first_sum + cell, n, moments.data, y.data);
        learn(w.up, y.data, of_inner.data, n, gain.at + 8);
        back(w.up, of_inner.data, n, of_y.data);
        back(w.norm2, first_sum + cell, moments.data, of_y.data, incoming, n, of_sum.data, gain.at + 6);
        // The first one.
        dropout::apply(of_sum.data, nullptr, bytes(first_bytes), n * dim, threshold, dropped.data);
        learn(w.out, attended + cell, dropped.data, n, gain.at + 4);
        back(w.out, dropped.data, n, of_y.data);
        for (int64_t b = from; b < to; b++) {
          const int64_t within = (offsets[b] - token) * dim;
          attention::backward(g, b, at, of_y.data + within, of_qkv.data + 3 * within);
        }
        apply(w.norm1, x + cell, n, moments.data, y.data);
        learn(w.qkv, y.data, of_qkv.data, n, gain.at + 2);
        back(w.qkv, of_qkv.data, n, of_y.data);
        back(w.norm1, x + cell, moments.data, of_y.data, of_sum.data, n, of_x + cell, gain.at);
      }
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < all; i++)
      for (int64_t part = 1; part < threads; part++) of_weights[i] += of_weights[part * all + i];
  }
}
