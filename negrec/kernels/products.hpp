// Products of small matrices whose parts are in the cache.
#pragma once
#include "vectors.hpp"

namespace products {

// A tile of the result, as many accumulators as the registers take.
constexpr int ROWS = 6, WIDE = VL == 16 ? 4 : 2;

// A matrix by its first number and the steps from row to row and from column to column.
struct Matrix {
  const float* data;
  int64_t row, column;
};

// out (R, W vectors) = start + a (R, depth) times b (depth, W vectors); a null start is 0.
template <int R, int W>
inline void tile(Matrix a, const float* b, int64_t b_row, int64_t depth, const float* start,
                 int64_t start_row, float* out, int64_t out_row) {
  vec sum[R][W];
  for (int i = 0; i < R; i++)
    for (int w = 0; w < W; w++) sum[i][w] = start ? load(start + i * start_row + w * VL) : vec{};
  const float* left[R];
  for (int i = 0; i < R; i++) left[i] = a.data + i * a.row;
  for (int64_t k = 0; k < depth; k++, b += b_row) {
    vec right[W];
    for (int w = 0; w < W; w++) right[w] = load(b + w * VL);
    for (int i = 0; i < R; i++)
      for (int w = 0; w < W; w++) sum[i][w] += left[i][k * a.column] * right[w];
  }
  for (int i = 0; i < R; i++)
    for (int w = 0; w < W; w++) store(out + i * out_row + w * VL, sum[i][w]);
}

// The same for at most ROWS rows and columns that fill no vector.
inline void rest(Matrix a, int64_t rows, const float* b, int64_t b_row, int64_t depth,
                 const float* start, int64_t start_row, float* out, int64_t out_row,
                 int64_t columns) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) {
      float sum = start ? start[i * start_row + j] : 0;
      for (int64_t k = 0; k < depth; k++) sum += a.data[i * a.row + k * a.column] * b[k * b_row + j];
      out[i * out_row + j] = sum;
    }
}

template <int W>
inline void rows_of(Matrix a, int64_t rows, const float* b, int64_t b_row, int64_t depth,
                    const float* start, int64_t start_row, float* out, int64_t out_row) {
  switch (rows) {
#define NEGREC_TILE(R) \
  case R:              \
    return tile<R, W>(a, b, b_row, depth, start, start_row, out, out_row);
    NEGREC_TILE(1) NEGREC_TILE(2) NEGREC_TILE(3) NEGREC_TILE(4) NEGREC_TILE(5) NEGREC_TILE(6)
#undef NEGREC_TILE
  }
}

// out (rows, columns) = start + a (rows, depth) times b (depth, columns), whose columns lie side by
// side. A null start is 0; one with start_row = 0 is the same for all rows; out itself adds to it.
// Each number is a sum in the order of the depth, wherever it stands in a tile.
inline void product(Matrix a, int64_t rows, const float* b, int64_t b_row, int64_t depth,
                    const float* start, int64_t start_row, float* out, int64_t out_row,
                    int64_t columns) {
  for (int64_t j = 0; j < columns;) {
    const int64_t left = columns - j;
    const int64_t wide = left >= WIDE * VL ? WIDE * VL : left >= 2 * VL ? 2 * VL : left >= VL ? VL : left;
    for (int64_t i = 0; i < rows; i += ROWS) {
      const int64_t some = std::min<int64_t>(ROWS, rows - i);
      const Matrix part{a.data + i * a.row, a.row, a.column};
      const float* from = start ? start + i * start_row + j : nullptr;
      float* to = out + i * out_row + j;
      if (wide == WIDE * VL)
        rows_of<WIDE>(part, some, b + j, b_row, depth, from, start_row, to, out_row);
      else if (wide == 2 * VL)
        rows_of<2>(part, some, b + j, b_row, depth, from, start_row, to, out_row);
      else if (wide == VL)
        rows_of<1>(part, some, b + j, b_row, depth, from, start_row, to, out_row);
      else
        rest(part, some, b + j, b_row, depth, from, start_row, to, out_row, wide);
    }
    j += wide;
  }
}

}  // namespace products
