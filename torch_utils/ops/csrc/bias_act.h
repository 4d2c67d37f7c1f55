// act(x · scale + noise + bias) · gain, clamped, for piecewise linear activations with negative slope `slope`.  Torch-free.
//
// Pictures are [samples, pixels, channels] (channels last) or [samples, channels, pixels] (rows).  scale is [samples,
// channels], noise [pixels] per sample, bias [channels]; each may be null.  Work is split into chunks of pixels, or rows of a
// channel, whose sums are stored separately, so that their total does not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace multi_pose {

template <typename T>
struct BiasAct {
    const T* scale;  // of one sample
    const T* noise;
    const T* bias;
    T slope, gain, clamp;

    T value(T v) const {
        v *= v > 0 ? gain : gain * slope;
        v = v > clamp ? clamp : v;  // keeps NaN
        return v < -clamp ? -clamp : v;
    }
    // The derivative of `value`.
    T factor(T v) const {
        const T f = v > 0 ? gain : gain * slope;
        return v * f <= clamp && v * f >= -clamp ? f : T(0);
    }
};

constexpr int64_t WIDTH = 64;  // channels handled at a time

// The scale and bias of the channels from c on; 1 and 0 if they are not given.
template <typename T>
struct Channels {
    T scale[WIDTH], bias[WIDTH];
    Channels(const BiasAct<T>& op, int64_t c, int64_t count) {
        for (int64_t i = 0; i < count; i++) {
            scale[i] = op.scale ? op.scale[c + i] : T(1);
            bias[i] = op.bias ? op.bias[c + i] : T(0);
        }
    }
};

// Compute out for the pixels from begin to end, channels last.
template <typename T>
void bias_act_last(const BiasAct<T>& op, const T* x, T* out, int64_t channels, int64_t begin, int64_t end) {
    for (int64_t c = 0; c < channels; c += WIDTH) {
        const int64_t count = std::min(WIDTH, channels - c);
        const Channels<T> at(op, c, count);
        for (int64_t p = begin; p < end; p++) {
            const T noise = op.noise ? op.noise[p] : T(0);
            const T* from = x + p * channels + c;
            T* to = out + p * channels + c;
#pragma omp simd
            for (int64_t i = 0; i < count; i++) to[i] = op.value(from[i] * at.scale[i] + (noise + at.bias[i]));
        }
    }
}

// Gradients for the pixels from begin to end, channels last: grad_x; the sums grad_scale and grad_bias [channels] over these
// pixels; grad_noise [pixels].  All but grad_x may be null.
template <typename T>
void bias_act_last_grad(const BiasAct<T>& op, const T* grad, const T* x, T* grad_x, T* grad_scale, T* grad_bias, T* grad_noise,
                        int64_t channels, int64_t begin, int64_t end) {
    if (grad_noise)
        for (int64_t p = begin; p < end; p++) grad_noise[p] = 0;
    for (int64_t c = 0; c < channels; c += WIDTH) {
        const int64_t count = std::min(WIDTH, channels - c);
        const Channels<T> at(op, c, count);
        T scale_sum[WIDTH] = {}, bias_sum[WIDTH] = {};
        for (int64_t p = begin; p < end; p++) {
            const T noise = op.noise ? op.noise[p] : T(0);
            const T *g = grad + p * channels + c, *from = x + p * channels + c;
            T* to = grad_x + p * channels + c;
            T noise_sum = 0;
#pragma omp simd reduction(+ : noise_sum)
            for (int64_t i = 0; i < count; i++) {
                const T v = g[i] * op.factor(from[i] * at.scale[i] + (noise + at.bias[i]));
                scale_sum[i] += v * from[i];
                bias_sum[i] += v;
                noise_sum += v;
                to[i] = v * at.scale[i];
            }
            if (grad_noise) grad_noise[p] += noise_sum;
        }
        for (int64_t i = 0; i < count; i++) {
            if (grad_scale) grad_scale[c + i] = scale_sum[i];
            if (grad_bias) grad_bias[c + i] = bias_sum[i];
        }
    }
}

// Compute out for one row: all pixels of one channel, adjacent in memory.
template <typename T>
void bias_act_row(const BiasAct<T>& op, const T* x, T* out, int64_t channel, int64_t pixels) {
    const T scale = op.scale ? op.scale[channel] : T(1), bias = op.bias ? op.bias[channel] : T(0);
#pragma omp simd
    for (int64_t p = 0; p < pixels; p++) out[p] = op.value(x[p] * scale + ((op.noise ? op.noise[p] : T(0)) + bias));
}

// Gradients for one row.  grad_values is the gradient before the scale; its sum over channels is that of the noise.  May be
// null.
template <typename T>
void bias_act_row_grad(const BiasAct<T>& op, const T* grad, const T* x, T* grad_x, T* grad_scale, T* grad_bias, T* grad_values,
                       int64_t channel, int64_t pixels) {
    const T scale = op.scale ? op.scale[channel] : T(1), bias = op.bias ? op.bias[channel] : T(0);
    T scale_sum = 0, bias_sum = 0;
#pragma omp simd reduction(+ : scale_sum, bias_sum)
    for (int64_t p = 0; p < pixels; p++) {
        const T v = grad[p] * op.factor(x[p] * scale + ((op.noise ? op.noise[p] : T(0)) + bias));
        scale_sum += v * x[p];
        bias_sum += v;
        grad_x[p] = v * scale;
        if (grad_values) grad_values[p] = v;
    }
    if (grad_scale) *grad_scale = scale_sum;
    if (grad_bias) *grad_bias = bias_sum;
}

}  // namespace multi_pose
