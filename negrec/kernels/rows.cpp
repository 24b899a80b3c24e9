// Rows of tables whose optimiser is Adam, moved only when they have a gradient: see rows.py.
#include "common.hpp"

// Below this many numbers other threads cost more than they give.
static const int64_t ROWS_ALONE = 1 << 15;

NEGREC void rows_read(const float *value, const float *mean, const float *square,
                      const int32_t *last, const double *drift, const double *floor,
                      const int64_t *row, int64_t n, int64_t dim, int64_t n_rows, float *out,
                      int64_t *outside, int64_t threads) {
    int64_t bad = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : bad) \
    if (n * dim > ROWS_ALONE)
    for (int64_t i = 0; i < n; ++i) {
        const int64_t r = row ? row[i] : i;
        if (r < 0 || r >= n_rows) {
            ++bad;
            continue;
        }
        const float c = static_cast<float>(drift[last[r]]);
        const float e = static_cast<float>(floor[last[r]]);
        const float *w = value + r * dim, *m = mean + r * dim, *v = square + r * dim;
        float *to = out + i * dim;
        if (c == 0.0f)
            std::memcpy(to, w, sizeof(float) * dim);
        else
            for (int64_t d = 0; d < dim; ++d) to[d] = w[d] - c * m[d] / (std::sqrt(v[d]) + e);
    }
    *outside = bad;
}

NEGREC void rows_settle(float *value, float *mean, float *square, int32_t *last,
                        const double *drift, const double *floor, const double *decay,
                        const double *decay2, int64_t n, int64_t dim, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < n; ++r) {
        const float c = static_cast<float>(drift[last[r]]);
        const float e = static_cast<float>(floor[last[r]]);
        const float b1 = static_cast<float>(decay[last[r]]);
        const float b2 = static_cast<float>(decay2[last[r]]);
        float *w = value + r * dim, *m = mean + r * dim, *v = square + r * dim;
        for (int64_t d = 0; d < dim; ++d) {
            w[d] -= c * m[d] / (std::sqrt(v[d]) + e);
            m[d] *= b1;
            v[d] *= b2;
        }
        last[r] = 0;
    }
}

NEGREC void rows_update(float *value, float *mean, float *square, int32_t *last,
                        const double *drift, const double *floor, const int64_t *row,
                        const int64_t *order, const float *gradient, int64_t n, int64_t dim,
                        int64_t number, double rate, double root, double beta1, double beta2,
                        double epsilon, double weight_decay, int64_t threads) {
    // Equal rows stand side by side: each stretch of them belongs to one thread.
    std::vector<int64_t> first;
    first.reserve(n + 1);
    for (int64_t i = 0; i < n; ++i)
        if (i == 0 || row[i] != row[i - 1]) first.push_back(i);
    const int64_t distinct = first.size();
    first.push_back(n);
    const float lr = rate, b1 = beta1, b2 = beta2, eps = epsilon, decay = weight_decay;
    const float unroot = 1.0 / root, a1 = 1.0 - beta1, a2 = 1.0 - beta2;
#pragma omp parallel num_threads(threads) if (n * dim > ROWS_ALONE)
    {
        std::vector<float> sum(dim);
        float *g = sum.data();
#pragma omp for schedule(static)
        for (int64_t s = 0; s < distinct; ++s) {
            const int64_t r = row[first[s]];
            std::memcpy(g, gradient + order[first[s]] * dim, sizeof(float) * dim);
            for (int64_t i = first[s] + 1; i < first[s + 1]; ++i) {
                const float *more = gradient + order[i] * dim;
                for (int64_t d = 0; d < dim; ++d) g[d] += more[d];
            }
            const double gap = static_cast<double>(number - last[r]);
            const float p1 = std::pow(beta1, gap), p2 = std::pow(beta2, gap);
            const float c = static_cast<float>(drift[last[r]]);
            const float e = static_cast<float>(floor[last[r]]);
            float *w = value + r * dim, *m = mean + r * dim, *v = square + r * dim;
            for (int64_t d = 0; d < dim; ++d) {
                const float now = w[d] - c * m[d] / (std::sqrt(v[d]) + e);
                const float x = g[d] + decay * now;
                m[d] = m[d] * p1 + a1 * x;
                v[d] = v[d] * p2 + a2 * x * x;
                w[d] = now - lr * m[d] / (std::sqrt(v[d]) * unroot + eps);
            }
            last[r] = static_cast<int32_t>(number);
        }
    }
}
