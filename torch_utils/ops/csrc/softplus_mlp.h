// W2 · softplus(W1 · x + b1) + b2 for many points, a few at a time so that intermediate values stay in the cache.  Torch-free.
//
// The caller pads sizes to whole vectors with zeros: inputs, hidden, and padded (the outputs).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "product.h"

namespace multi_pose {

// exp(x), accurate to a few units in the last place, without branches so that it vectorises.
[[gnu::always_inline]] inline float exp_of(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float n = std::rint(x * 1.44269504f);
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // x - n ln 2, in two steps
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const int32_t bits = (int32_t(n) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof(power));
    return p * power;
}
inline double exp_of(double x) { return std::exp(x); }

// log(1 + x) for x in [0, 1].
[[gnu::always_inline]] inline float log1p_of(float x) {
    // log(1 + x) = 2 atanh(x / (2 + x)), whose argument is at most a third.
    const float s = x / (2.0f + x), q = s * s;
    float p = 1.0f / 13;
    p = p * q + 1.0f / 11;
    p = p * q + 1.0f / 9;
    p = p * q + 1.0f / 7;
    p = p * q + 1.0f / 5;
    p = p * q + 1.0f / 3;
    return 2 * s + 2 * s * q * p;
}
inline double log1p_of(double x) { return std::log1p(x); }

// Softplus and its derivative.
template <typename T>
[[gnu::always_inline]] inline void softplus_of(T x, T& value, T& slope) {
    const T e = exp_of(x > 0 ? -x : x);  // exp(-|x|)
    value = (x > 0 ? x : T(0)) + log1p_of(e);
    slope = (x > 0 ? T(1) : e) / (1 + e);
}

template <typename T>
struct Mlp {
    int64_t inputs, hidden, outputs, padded;
    const T *w1, *w1_transposed, *b1;  // [hidden, inputs], [inputs, hidden], [hidden]
    const T *w2, *w2_transposed, *b2;  // [outputs, hidden], [hidden, padded], [padded]

    int64_t parameters() const { return hidden * inputs + hidden + outputs * hidden + outputs; }
};

constexpr int64_t MLP_TILE = 8 * TILE_ROWS;  // points at a time

// Compute the hidden layer of a tile and, if `slope` is given, the derivative of softplus.
template <typename T>
void mlp_hidden(const Mlp<T>& net, const T* x, int64_t points, T* value, T* slope) {
    for (int64_t p = 0; p < points; p++) std::copy(net.b1, net.b1 + net.hidden, value + p * net.hidden);
    add_product(x, net.inputs, 1, points, net.inputs, net.w1_transposed, value, net.hidden);
    if (slope) {
#pragma omp simd
        for (int64_t i = 0; i < points * net.hidden; i++) softplus_of(value[i], value[i], slope[i]);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < points * net.hidden; i++) {
            T unused;
            softplus_of(value[i], value[i], unused);
        }
    }
}

// Compute out [points, outputs] for the points from begin to end; x [points, inputs].
template <typename T>
void softplus_mlp(const Mlp<T>& net, const T* x, T* out, int64_t begin, int64_t end) {
    std::vector<T> value(MLP_TILE * net.hidden), result(MLP_TILE * net.padded);
    for (int64_t first = begin; first < end; first += MLP_TILE) {
        const int64_t points = std::min(MLP_TILE, end - first);
        mlp_hidden(net, x + first * net.inputs, points, value.data(), (T*)nullptr);
        for (int64_t p = 0; p < points; p++) std::copy(net.b2, net.b2 + net.padded, result.data() + p * net.padded);
        add_product(value.data(), net.hidden, 1, points, net.hidden, net.w2_transposed, result.data(), net.padded);
        for (int64_t p = 0; p < points; p++)
            std::copy_n(result.data() + p * net.padded, net.outputs, out + (first + p) * net.outputs);
    }
}

// sums [columns] += the rows of a [rows, columns].  The rows are summed on their own first, so that small numbers meet small
// ones.
template <typename T>
void add_rows(const T* a, int64_t rows, int64_t columns, T* row, T* sums) {
    std::fill_n(row, columns, T(0));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < columns; i++) row[i] += a[r * columns + i];
    for (int64_t i = 0; i < columns; i++) sums[i] += row[i];
}

// Compute grad_x [points, inputs] for the points from begin to end, and their sums [parameters()] for w1, b1, w2, b2.
template <typename T>
void softplus_mlp_grad(const Mlp<T>& net, const T* grad, const T* x, T* grad_x, T* sums, int64_t begin, int64_t end) {
    std::vector<T> value(MLP_TILE * net.hidden), slope(value.size()), grad_hidden(value.size());
    std::vector<T> row(std::max(net.hidden, net.outputs));
    T *sum_w1 = sums, *sum_b1 = sum_w1 + net.hidden * net.inputs, *sum_w2 = sum_b1 + net.hidden;
    T* sum_b2 = sum_w2 + net.outputs * net.hidden;
    std::fill(sums, sums + net.parameters(), T(0));
    for (int64_t first = begin; first < end; first += MLP_TILE) {
        const int64_t points = std::min(MLP_TILE, end - first);
        const T *g = grad + first * net.outputs, *from = x + first * net.inputs;
        mlp_hidden(net, from, points, value.data(), slope.data());
        std::fill(grad_hidden.begin(), grad_hidden.end(), T(0));
        add_product(g, net.outputs, 1, points, net.outputs, net.w2, grad_hidden.data(), net.hidden);
        for (int64_t i = 0; i < points * net.hidden; i++) grad_hidden[i] *= slope[i];
        std::fill_n(grad_x + first * net.inputs, points * net.inputs, T(0));
        add_product(grad_hidden.data(), net.hidden, 1, points, net.hidden, net.w1, grad_x + first * net.inputs, net.inputs);
        add_product(grad_hidden.data(), 1, net.hidden, net.hidden, points, from, sum_w1, net.inputs);
        add_product(g, 1, net.outputs, net.outputs, points, value.data(), sum_w2, net.hidden);
        add_rows(grad_hidden.data(), points, net.hidden, row.data(), sum_b1);
        add_rows(g, points, net.outputs, row.data(), sum_b2);
    }
}

}  // namespace multi_pose
