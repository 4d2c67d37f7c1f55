// 3x3 convolutions with stride 1 and zero padding, by minimal filtering, F(4x4, 3x3) (Lavin & Gray 2016).  Torch-free.
//
// A tile of 6x6 pixels gives 4x4 pixels.  The channels of both go through transforms of 36 numbers.  Between the transforms,
// one product for each of the 36 replaces 16 sums of 9.  Pictures are [height, width, channels]; inputs and outputs are
// multiples of the lanes of a vector.
#pragma once

#include <algorithm>
#include <cstdint>

#include "product.h"

namespace multi_pose {

constexpr int64_t CONV_STEP = 4, CONV_TILE = 6, CONV_POINTS = CONV_TILE * CONV_TILE;

// The polynomials are evaluated at 0, ±3/4, ±3/2 and infinity, where float32 loses least (half as much as at 0, ±1, ±2).
template <typename T>
struct MeetingPoints {
    static constexpr T A = 0.75, B = 1.5, AA = A * A, BB = B * B;
};

// [3] weights of a kernel -> [6].
template <typename T, typename V>
[[gnu::always_inline]] inline void transform_kernel(const V* g, V* out, int64_t step) {
    using M = MeetingPoints<T>;
    constexpr T a = 1 / (2 * M::AA * (M::AA - M::BB)), b = 1 / (2 * M::BB * (M::BB - M::AA));
    const V even_a = (g[0] + M::AA * g[2]) * a, odd_a = g[1] * (M::A * a);
    const V even_b = (g[0] + M::BB * g[2]) * b, odd_b = g[1] * (M::B * b);
    out[0] = g[0] * T(1 / (M::AA * M::BB));
    out[step] = even_a + odd_a;
    out[2 * step] = even_a - odd_a;
    out[3 * step] = even_b + odd_b;
    out[4 * step] = even_b - odd_b;
    out[5 * step] = g[2];
}

// [6] pixels -> [6].
template <typename T, typename V>
[[gnu::always_inline]] inline void transform_pixels(const V* d, int64_t from, V* out, int64_t to) {
    using M = MeetingPoints<T>;
    constexpr T sum = M::AA + M::BB, product = M::AA * M::BB;
    const V d1 = d[from], d2 = d[2 * from], d3 = d[3 * from], d4 = d[4 * from];
    const V even_a = d4 - M::BB * d2, odd_a = M::A * (d3 - M::BB * d1);
    const V even_b = d4 - M::AA * d2, odd_b = M::B * (d3 - M::AA * d1);
    out[0] = product * d[0] - sum * d2 + d4;
    out[to] = even_a + odd_a;
    out[2 * to] = even_a - odd_a;
    out[3 * to] = even_b + odd_b;
    out[4 * to] = even_b - odd_b;
    out[5 * to] = product * d1 - sum * d3 + d[5 * from];
}

// [6] products -> [4] pixels.
template <typename T, typename V>
[[gnu::always_inline]] inline void transform_products(const V* m, int64_t from, V* out, int64_t to) {
    using M = MeetingPoints<T>;
    const V even_a = m[from] + m[2 * from], odd_a = M::A * (m[from] - m[2 * from]);
    const V even_b = m[3 * from] + m[4 * from], odd_b = M::B * (m[3 * from] - m[4 * from]);
    out[0] = m[0] + even_a + even_b;
    out[to] = odd_a + odd_b;
    out[2 * to] = M::AA * even_a + M::BB * even_b;
    out[3 * to] = M::AA * odd_a + M::BB * odd_b + m[5 * from];
}

// Transform kernels [3, 3, inputs, outputs] to out [36, panels, inputs, outputs per panel], for the inputs from begin to end.
template <typename T>
void transform_kernels(const T* kernels, int64_t inputs, int64_t outputs, T* out, int64_t begin, int64_t end) {
    using V = typename Vector<T>::type;
    for (int64_t i = begin; i < end; i++)
        for (int64_t o = 0; o < outputs; o += Vector<T>::LANES) {
            const int64_t panel = o / PANEL<T> * PANEL<T>, width = std::min(PANEL<T>, outputs - panel);
            V g[9], rows[18], all[CONV_POINTS];
            for (int k = 0; k < 9; k++) g[k] = *(const V*)(kernels + (k * inputs + i) * outputs + o);
            for (int y = 0; y < 3; y++) transform_kernel<T>(g + 3 * y, rows + y, 3);  // [6 along x, 3 along y]
            for (int x = 0; x < CONV_TILE; x++) transform_kernel<T>(rows + 3 * x, all + x, CONV_TILE);
            for (int64_t k = 0; k < CONV_POINTS; k++) *(V*)(out + (k * outputs + panel) * inputs + i * width + o - panel) = all[k];
        }
}

template <typename T>
struct Conv3x3 {
    int64_t height, width, inputs, outputs;
    const T* kernels;  // transformed

    int64_t columns() const { return (width + CONV_STEP - 1) / CONV_STEP; }
    int64_t tiles() const { return (height + CONV_STEP - 1) / CONV_STEP * columns(); }

    // Compute the tiles from begin to end, at most `count`, of a picture.  `memory` is [36, count, inputs + outputs], and
    // `zeros` holds one number per input.
    void operator()(const T* x, T* out, const T* zeros, T* memory, int64_t count, int64_t begin, int64_t end) const {
        T *pixels = memory, *products = memory + CONV_POINTS * count * inputs;
        for (int64_t tile = begin; tile < end; tile++) gather(x, zeros, pixels + (tile - begin) * inputs, count * inputs, tile);
        for (int64_t k = 0; k < CONV_POINTS; k++) {
            T* to = products + k * count * outputs;
            std::fill_n(to, (end - begin) * outputs, T(0));
            for (int64_t o = 0; o < outputs; o += PANEL<T>) {
                const int64_t columns = std::min(PANEL<T>, outputs - o);
                add_panel(pixels + k * count * inputs, inputs, 1, end - begin, inputs, kernels + (k * outputs + o) * inputs, columns,
                          to + o, outputs, columns);
            }
        }
        for (int64_t tile = begin; tile < end; tile++)
            scatter(products + (tile - begin) * outputs, count * outputs, out, tile);
    }

   private:
    // Transform the pixels of a tile.  Points are `step` numbers apart in the result.
    void gather(const T* x, const T* zeros, T* to, int64_t step, int64_t tile) const {
        using V = typename Vector<T>::type;
        const int64_t top = tile / columns() * CONV_STEP - 1, left = tile % columns() * CONV_STEP - 1;
        const T* from[CONV_POINTS];
        for (int64_t k = 0; k < CONV_POINTS; k++) {
            const int64_t row = top + k / CONV_TILE, column = left + k % CONV_TILE;
            const bool inside = row >= 0 && row < height && column >= 0 && column < width;
            from[k] = inside ? x + (row * width + column) * inputs : zeros;
        }
        for (int64_t i = 0; i < inputs; i += Vector<T>::LANES) {
            V rows[CONV_POINTS], line[CONV_TILE];
            for (int y = 0; y < CONV_TILE; y++) {
                for (int x = 0; x < CONV_TILE; x++) line[x] = *(const V*)(from[y * CONV_TILE + x] + i);
                transform_pixels<T>(line, 1, rows + y * CONV_TILE, 1);
            }
            for (int x = 0; x < CONV_TILE; x++) {
                transform_pixels<T>(rows + x, CONV_TILE, line, 1);
                for (int y = 0; y < CONV_TILE; y++) *(V*)(to + (y * CONV_TILE + x) * step + i) = line[y];
            }
        }
    }

    // Compute the pixels of a tile from products whose points are `step` numbers apart.
    void scatter(const T* from, int64_t step, T* out, int64_t tile) const {
        using V = typename Vector<T>::type;
        const int64_t top = tile / columns() * CONV_STEP, left = tile % columns() * CONV_STEP;
        const int64_t rows = std::min(CONV_STEP, height - top), count = std::min(CONV_STEP, width - left);
        for (int64_t o = 0; o < outputs; o += Vector<T>::LANES) {
            V half[CONV_TILE * CONV_STEP], line[CONV_TILE];
            for (int y = 0; y < CONV_TILE; y++) {
                for (int x = 0; x < CONV_TILE; x++) line[x] = *(const V*)(from + (y * CONV_TILE + x) * step + o);
                transform_products<T>(line, 1, half + y * CONV_STEP, 1);
            }
            for (int64_t x = 0; x < count; x++) {
                transform_products<T>(half + x, CONV_STEP, line, 1);
                for (int64_t y = 0; y < rows; y++) *(V*)(out + ((top + y) * width + left + x) * outputs + o) = line[y];
            }
        }
    }
};

}  // namespace multi_pose
