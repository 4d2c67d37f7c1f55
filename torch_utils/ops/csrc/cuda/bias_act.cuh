// act(x · scale + noise + bias) · gain, clamped, for piecewise linear activations, and its gradient.  Torch-free.
#pragma once

#include <type_traits>

#include "common.cuh"

namespace multi_pose::cuda {

// V values starting at `from`; V copies of the one there if not MANY; V copies of `none` if `from` is null.
template <int V, bool MANY, typename T>
__device__ void read(const T* from, sum_t<T> none, sum_t<T> (&to)[V]) {
    if (MANY && from) {
        const Vector<T, V> values = load<V>(from);
#pragma unroll
        for (int i = 0; i < V; i++) to[i] = values.at[i];
    } else {
        const sum_t<T> value = from ? sum_t<T>(*from) : none;
#pragma unroll
        for (int i = 0; i < V; i++) to[i] = value;
    }
}

// The factors and summands of V elements starting at (sample n, channel c, pixel p).
template <typename T, int V, bool LAST>
struct BiasActOperands {
    sum_t<T> scale[V], shift[V];

    __device__ BiasActOperands(const BiasAct<T>& op, int64_t n, int c, int p) {
        const int64_t noise_sample = op.noise_samples > 1 ? n : 0;
        sum_t<T> noise[V];
        read<V, LAST>(op.scale ? op.scale + n * op.channels + c : nullptr, 1, scale);
        read<V, LAST>(op.bias ? op.bias + c : nullptr, 0, shift);
        read<V, !LAST>(op.noise ? op.noise + noise_sample * op.pixels + p : nullptr, 0, noise);
#pragma unroll
        for (int i = 0; i < V; i++) shift[i] += noise[i];
    }
};

template <typename T, typename S = sum_t<T>>
__device__ S bias_act_value(const BiasAct<T>& op, S v) {
    v *= v > 0 ? op.gain : op.gain * op.slope;
    v = v > op.clamp ? op.clamp : v;  // keeps NaN
    return v < -op.clamp ? -op.clamp : v;
}

// The derivative of the function above.
template <typename T, typename S = sum_t<T>>
__device__ S bias_act_factor(const BiasAct<T>& op, S v) {
    const S f = v > 0 ? op.gain : op.gain * op.slope;
    return v * f <= op.clamp && v * f >= -op.clamp ? f : S(0);
}

template <typename T, int V, bool LAST>
__global__ void bias_act_kernel(const __grid_constant__ BiasAct<T> op, int64_t first_sample, uint32_t vectors, const T* x,
                                T* out) {
    const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= vectors) return;
    const uint32_t rows = LAST ? op.pixels : op.channels, row_vectors = (LAST ? op.channels : op.pixels) / V;
    const uint32_t row = index / row_vectors, inner = (index - row * row_vectors) * V;
    const uint32_t sample = row / rows, outer = row - sample * rows;
    const Vector<T, V> from = load<V>(x + int64_t(index) * V);
    const BiasActOperands<T, V, LAST> at(op, first_sample + sample, LAST ? inner : outer, LAST ? outer : inner);
    Vector<T, V> to;
#pragma unroll
    for (int i = 0; i < V; i++) to.at[i] = T(bias_act_value(op, sum_t<T>(from.at[i]) * at.scale[i] + at.shift[i]));
    store(out + int64_t(index) * V, to);
}

// The gradients of V elements: the one of x is stored, the others are added to the sums.
template <typename T, int V, bool LAST>
struct BiasActGradient {
    sum_t<T> value[V], by_scale[V];

    __device__ BiasActGradient(const BiasAct<T>& op, int64_t n, int c, int p, const T* grad, const T* x, T* grad_x) {
        const int64_t offset = n * op.channels * op.pixels + (LAST ? int64_t(p) * op.channels + c : int64_t(c) * op.pixels + p);
        const Vector<T, V> g = load<V>(grad + offset), from = load<V>(x + offset);
        const BiasActOperands<T, V, LAST> at(op, n, c, p);
        Vector<T, V> to;
#pragma unroll
        for (int i = 0; i < V; i++) {
            const sum_t<T> v = from.at[i];
            value[i] = sum_t<T>(g.at[i]) * bias_act_factor(op, v * at.scale[i] + at.shift[i]);
            by_scale[i] = value[i] * v;
            to.at[i] = T(value[i] * at.scale[i]);
        }
        store(grad_x + offset, to);
    }
};

// Channels first: a block processes a tile of pixels for a group of channels, with one warp per channel.
constexpr int ROW_STEPS = 4;  // loads per lane and channel
constexpr int ROW_GROUP = 64;
template <int V>
constexpr int ROW_TILE = WARP * V * ROW_STEPS;

template <typename T, int V>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    bias_act_grad_rows(const __grid_constant__ BiasAct<T> op, int tiles, int groups, const T* grad, const T* x, T* grad_x,
                       sum_t<T>* grad_scale, sum_t<T>* grad_bias, sum_t<T>* grad_noise) {
    using S = sum_t<T>;
    constexpr int WARPS = THREADS / WARP;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int tile = blockIdx.x % tiles, group = blockIdx.x / tiles % groups;
    const int64_t n = blockIdx.x / tiles / groups;
    const int first = tile * ROW_TILE<V>;
    const int last_channel = min(op.channels, (group + 1) * ROW_GROUP);
    S noise_sums[ROW_STEPS][V] = {};
    for (int c = group * ROW_GROUP + warp; c < last_channel; c += WARPS) {
        S scale_sum = 0, bias_sum = 0;
#pragma unroll
        for (int step = 0; step < ROW_STEPS; step++) {
            const int p = first + (step * WARP + lane) * V;
            if (p >= op.pixels) continue;
            const BiasActGradient<T, V, false> gradient(op, n, c, p, grad, x, grad_x);
#pragma unroll
            for (int i = 0; i < V; i++) {
                noise_sums[step][i] += gradient.value[i];
                bias_sum += gradient.value[i];
                scale_sum += gradient.by_scale[i];
            }
        }
        scale_sum = sum_of_lanes(scale_sum, WARP), bias_sum = sum_of_lanes(bias_sum, WARP);
        const int64_t part = (n * tiles + tile) * op.channels + c;
        if (lane == 0 && grad_scale) grad_scale[part] = scale_sum;
        if (lane == 0 && grad_bias) grad_bias[part] = bias_sum;
    }
    if (!grad_noise) return;
    __shared__ S sums[WARPS][WARP * V];
#pragma unroll
    for (int step = 0; step < ROW_STEPS; step++) {
        for (int i = 0; i < V; i++) sums[warp][lane * V + i] = noise_sums[step][i];
        __syncthreads();
        for (int i = threadIdx.x; i < WARP * V; i += THREADS) {
            const int p = first + step * WARP * V + i;
            S sum = 0;
            for (int w = 0; w < WARPS; w++) sum += sums[w][i];
            if (p < op.pixels) grad_noise[(n * groups + group) * op.pixels + p] = sum;
        }
        __syncthreads();
    }
}

// Channels last: `width` lanes (a power of two) share a pixel; a block processes LAST_STEPS times the pixels it has room for.
constexpr int LAST_STEPS = 16;

template <int V>
int last_width(int channels) {
    int width = 1;
    while (width < WARP && width * V < channels) width *= 2;
    return width;
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    bias_act_grad_last(const __grid_constant__ BiasAct<T> op, int chunks, int groups, int width, const T* grad, const T* x,
                       T* grad_x, sum_t<T>* grad_scale, sum_t<T>* grad_bias, sum_t<T>* grad_noise) {
    using S = sum_t<T>;
    const int lane = threadIdx.x % width, row = threadIdx.x / width, rows = THREADS / width;
    const int group = blockIdx.x % groups, chunk = blockIdx.x / groups % chunks;
    const int64_t n = blockIdx.x / groups / chunks;
    const int c = (group * width + lane) * V;
    S scale_sums[V] = {}, bias_sums[V] = {};
    for (int step = 0; step < LAST_STEPS; step++) {
        const int p = (chunk * LAST_STEPS + step) * rows + row;
        S noise_sum = 0;
        if (p < op.pixels && c < op.channels) {
            const BiasActGradient<T, V, true> gradient(op, n, c, p, grad, x, grad_x);
#pragma unroll
            for (int i = 0; i < V; i++) {
                noise_sum += gradient.value[i];
                bias_sums[i] += gradient.value[i];
                scale_sums[i] += gradient.by_scale[i];
            }
        }
        if (!grad_noise) continue;
        noise_sum = sum_of_lanes(noise_sum, width);
        if (lane == 0 && p < op.pixels) grad_noise[(n * groups + group) * op.pixels + p] = noise_sum;
    }
    if (!grad_scale && !grad_bias) return;
    __shared__ S sums[2][V][THREADS];
    for (int i = 0; i < V; i++) sums[0][i][threadIdx.x] = scale_sums[i], sums[1][i][threadIdx.x] = bias_sums[i];
    for (int half = THREADS / 2; half >= width; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            for (int k = 0; k < 2; k++)
                for (int i = 0; i < V; i++) sums[k][i][threadIdx.x] += sums[k][i][threadIdx.x + half];
    }
    if (row > 0 || c >= op.channels) return;
    const int64_t part = (n * chunks + chunk) * op.channels + c;
    for (int i = 0; i < V; i++) {  // sums of this lane alone, so no synchronisation is needed
        if (grad_scale) grad_scale[part + i] = sums[0][i][threadIdx.x];
        if (grad_bias) grad_bias[part + i] = sums[1][i][threadIdx.x];
    }
}

// Call `body` with the number of elements per load as a constant.
template <typename T, typename Body, typename... Pointers>
auto with_width(const BiasAct<T>& op, Body body, Pointers... pointers) {
    const bool fits =
        op.last ? wide<T>(op.channels, op.scale, op.bias, pointers...) : wide<T>(op.pixels, op.noise, pointers...);
    return fits ? body(std::integral_constant<int, WIDE<T>>()) : body(std::integral_constant<int, 1>());
}

template <typename T>
cudaError_t bias_act(const BiasAct<T>& op, const T* x, T* out, cudaStream_t stream) {
    const int64_t size = int64_t(op.channels) * op.pixels;
    return with_width(
        op,
        [&](auto width) {
            constexpr int V = width.value;
            const auto kernel = op.last ? bias_act_kernel<T, V, true> : bias_act_kernel<T, V, false>;
            return for_samples(op.samples, size, [&](int64_t first, int64_t samples) {
                const int64_t vectors = samples * size / V;
                return launch(kernel, dim3(ceil_div(vectors, THREADS)), THREADS, stream, op, first, vectors, x + first * size,
                              out + first * size);
            });
        },
        x, out);
}

template <typename T, int V>
BiasActParts parts_of_width(const BiasAct<T>& op) {
    if (!op.last) return {int(ceil_div(op.pixels, ROW_TILE<V>)), int(ceil_div(op.channels, ROW_GROUP))};
    const int width = last_width<V>(op.channels);
    return {int(ceil_div(op.pixels, LAST_STEPS * (THREADS / width))), int(ceil_div(op.channels, width * V))};
}

template <typename T>
BiasActParts bias_act_parts(const BiasAct<T>& op, const T* grad, const T* x, const T* grad_x) {
    return with_width(op, [&](auto width) { return parts_of_width<T, width.value>(op); }, grad, x, grad_x);
}

template <typename T>
cudaError_t bias_act_grad(const BiasAct<T>& op, const T* grad, const T* x, T* grad_x, sum_t<T>* grad_scale, sum_t<T>* grad_bias,
                          sum_t<T>* grad_noise, cudaStream_t stream) {
    return with_width(
        op,
        [&](auto constant) {
            constexpr int V = constant.value;
            const BiasActParts parts = parts_of_width<T, V>(op);
            const dim3 blocks(op.samples * parts.of_pixels * parts.of_channels);
            if (!op.last)
                return launch(bias_act_grad_rows<T, V>, blocks, THREADS, stream, op, parts.of_pixels, parts.of_channels, grad,
                              x, grad_x, grad_scale, grad_bias, grad_noise);
            return launch(bias_act_grad_last<T, V>, blocks, THREADS, stream, op, parts.of_pixels, parts.of_channels,
                          last_width<V>(op.channels), grad, x, grad_x, grad_scale, grad_bias, grad_noise);
        },
        grad, x, grad_x);
}

}  // namespace multi_pose::cuda
