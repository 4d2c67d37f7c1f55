// Up-sample, pad, filter and down-sample pictures, using only the taps that fall on input pixels.  Torch-free.
//
// Neighbouring threads share most of the pixels they read, so the L1 cache serves them.
#pragma once

#include <type_traits>

#include "common.cuh"

namespace multi_pose::cuda {

// The taps that fall on pixels for one output position on an axis: `count` of them, every up-th from `first` on.  The first
// falls on input pixel `pixel`, which may be outside.
struct Taps {
    int first, pixel, count;

    __device__ Taps(int place, int up, int down, int pad, int taps) {
        const int start = place * down - pad;  // of the filter, in up-sampled pixels
        const int over = ((start % up) + up) % up;
        first = over ? up - over : 0;
        pixel = (start + first) / up;  // exact
        count = (taps - first + up - 1) / up;
    }
};

// A thread computes V channels of one output pixel.  UP, DOWN and TAPS hold for both axes if they are not 0.
template <typename T, int V, int UP, int DOWN, int TAPS>
__global__ void __launch_bounds__(THREADS)
    upfirdn2d_kernel(Resampling s, uint32_t vectors, const T* __restrict__ x, const T* __restrict__ taps, T* __restrict__ out) {
    static_assert(TAPS % (UP ? UP : 1) == 0, "each output pixel meets as many taps");
    const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= vectors) return;
    const uint32_t pixel_vectors = s.channels / V, pixel = index / pixel_vectors, c = (index - pixel * pixel_vectors) * V;
    const uint32_t row = pixel / s.out_width, column = pixel - row * s.out_width;
    const uint32_t sample = row / s.out_height;
    const int taps_x = TAPS ? TAPS : s.taps_x;
    const Taps xs(column, UP ? UP : s.up_x, DOWN ? DOWN : s.down_x, s.pad_x, taps_x);
    const Taps ys(row - sample * s.out_height, UP ? UP : s.up_y, DOWN ? DOWN : s.down_y, s.pad_y, TAPS ? TAPS : s.taps_y);
    const int up_x = UP ? UP : s.up_x, up_y = UP ? UP : s.up_y;
    const int count_x = UP ? TAPS / UP : xs.count, count_y = UP ? TAPS / UP : ys.count;
    const T* picture = x + int64_t(sample) * s.height * s.width * s.channels + c;
    sum_t<T> sums[V] = {};
#pragma unroll
    for (int j = 0; j < count_y; j++) {
        const int y = ys.pixel + j;
        if (y < 0 || y >= s.height) continue;
        const T* line = picture + int64_t(y) * s.width * s.channels;
        const T* row_taps = taps + (ys.first + j * up_y) * taps_x + xs.first;
#pragma unroll
        for (int i = 0; i < count_x; i++) {
            const int at = xs.pixel + i;
            if (at < 0 || at >= s.width) continue;
            const sum_t<T> tap = row_taps[i * up_x];
            const Vector<T, V> from = load<V>(line + at * s.channels);
#pragma unroll
            for (int k = 0; k < V; k++) sums[k] += tap * sum_t<T>(from.at[k]);
        }
    }
    Vector<T, V> to;
#pragma unroll
    for (int k = 0; k < V; k++) to.at[k] = T(sums[k]);
    store(out + int64_t(index) * V, to);
}

template <typename T, int V>
auto upfirdn2d_kernel_for(const Resampling& s) {
    const auto is = [&](int up, int down) {
        return s.up_x == up && s.up_y == up && s.down_x == down && s.down_y == down && s.taps_x == 4 && s.taps_y == 4;
    };
    // The settings of StyleGAN's networks.
    return is(2, 1)   ? upfirdn2d_kernel<T, V, 2, 1, 4>
           : is(1, 2) ? upfirdn2d_kernel<T, V, 1, 2, 4>
           : is(1, 1) ? upfirdn2d_kernel<T, V, 1, 1, 4>
                      : upfirdn2d_kernel<T, V, 0, 0, 0>;
}

template <typename T>
cudaError_t upfirdn2d(const Resampling& s, const T* x, const T* taps, T* out, cudaStream_t stream) {
    const int64_t size = int64_t(s.height) * s.width * s.channels, out_size = int64_t(s.out_height) * s.out_width * s.channels;
    const auto run = [&](auto width) {
        constexpr int V = width.value;
        return for_samples(s.samples, std::max(size, out_size), [&](int64_t first, int64_t samples) {
            const int64_t vectors = samples * out_size / V;
            return launch(upfirdn2d_kernel_for<T, V>(s), dim3(ceil_div(vectors, THREADS)), THREADS, stream, s, vectors,
                          x + first * size, taps, out + first * out_size);
        });
    };
    return wide<T>(s.channels, x, out) ? run(std::integral_constant<int, WIDE<T>>()) : run(std::integral_constant<int, 1>());
}

}  // namespace multi_pose::cuda
