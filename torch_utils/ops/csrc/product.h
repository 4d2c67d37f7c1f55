// Matrix products with few rows, whose sums stay in the processor's registers.  Torch-free.
#pragma once

#include <algorithm>
#include <cstdint>

namespace multi_pose {

// A vector register of the processor, and the tile of sums that fits into the registers beside a row and a factor.
#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, TILE_ROWS = 4, TILE_VECTORS = 4;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32, TILE_ROWS = 6, TILE_VECTORS = 2;
#else
constexpr int VECTOR_BYTES = 16, TILE_ROWS = 6, TILE_VECTORS = 2;
#endif
template <typename T>
struct Vector {
    static constexpr int64_t LANES = VECTOR_BYTES / sizeof(T);
    typedef T type __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));
};

// Columns of a tile.
template <typename T>
constexpr int64_t PANEL = TILE_VECTORS * Vector<T>::LANES;

// out[r][v] (+)= sum over i of a[r * row_step + i * step] w[i][v] for a few rows and vectors, with the sums in registers.
template <typename T, int ROWS, int VECTORS>
void product_tile(const T* a, int64_t row_step, int64_t step, int64_t count, const T* w, int64_t w_row, T* out, int64_t out_row) {
    using V = typename Vector<T>::type;
    constexpr int64_t LANES = Vector<T>::LANES;
    V sums[ROWS][VECTORS];
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < VECTORS; v++) sums[r][v] = *(const V*)(out + r * out_row + v * LANES);
    for (int64_t i = 0; i < count; i++) {
        V row[VECTORS];
        for (int v = 0; v < VECTORS; v++) row[v] = *(const V*)(w + i * w_row + v * LANES);
        for (int r = 0; r < ROWS; r++) {
            const T factor = a[r * row_step + i * step];
            for (int v = 0; v < VECTORS; v++) sums[r][v] += factor * row[v];
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < VECTORS; v++) *(V*)(out + r * out_row + v * LANES) = sums[r][v];
}

template <typename T, int VECTORS>
void product_rows(const T* a, int64_t row_step, int64_t step, int64_t rows, int64_t count, const T* w, int64_t w_row, T* out,
                  int64_t out_row) {
    int64_t r = 0;
    for (; r + TILE_ROWS <= rows; r += TILE_ROWS)
        product_tile<T, TILE_ROWS, VECTORS>(a + r * row_step, row_step, step, count, w, w_row, out + r * out_row, out_row);
    for (; r < rows; r++)
        product_tile<T, 1, VECTORS>(a + r * row_step, row_step, step, count, w, w_row, out + r * out_row, out_row);
}

// out [rows, columns] += a · w with w [count, columns] for at most a tile's columns.  Rows of w and out are w_row and out_row
// apart.
template <typename T>
void add_panel(const T* a, int64_t row_step, int64_t step, int64_t rows, int64_t count, const T* w, int64_t w_row, T* out,
               int64_t out_row, int64_t columns) {
    const int64_t vectors = columns / Vector<T>::LANES;
    const auto run = vectors == 4 ? product_rows<T, 4> : vectors == 3 ? product_rows<T, 3> : vectors == 2 ? product_rows<T, 2>
                                                                                          : product_rows<T, 1>;
    run(a, row_step, step, rows, count, w, w_row, out, out_row);
}

// out [rows, columns] += a · w with w [count, columns].  a is read with steps, so it may be transposed.
template <typename T>
void add_product(const T* a, int64_t row_step, int64_t step, int64_t rows, int64_t count, const T* w, T* out, int64_t columns) {
    for (int64_t c = 0; c < columns; c += PANEL<T>)
        add_panel(a, row_step, step, rows, count, w + c, columns, out + c, columns, std::min(PANEL<T>, columns - c));
}

}  // namespace multi_pose
