// Compositing along rays: each interval has a weight, and as its feature the mean of its two samples.  Torch-free.
//
// One warp processes a ray: CHANNEL_LANES neighbouring lanes share the features of a sample, for RAY_LANES samples at a time.
#pragma once

#include "common.cuh"

namespace multi_pose::cuda {

constexpr int CHANNEL_LANES = 8;
constexpr int RAY_LANES = WARP / CHANNEL_LANES;
constexpr int RAYS = THREADS / WARP;  // per block

// The weight of the k-th sample by depth: half the weights of the intervals on both sides.
template <typename T>
__device__ T sample_weight(const T* weights, int samples, int k) {
    return T(0.5) * ((k > 0 ? weights[k - 1] : T(0)) + (k < samples - 1 ? weights[k] : T(0)));
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS, BLOCKS) composite_kernel(const T* weights, const T* features, const int64_t* order,
                                                                    T* out, int64_t rays, int samples, int channels) {
    const int64_t ray = int64_t(blockIdx.x) * RAYS + threadIdx.x / WARP;
    if (ray >= rays) return;
    const int lane = threadIdx.x % CHANNEL_LANES, part = threadIdx.x % WARP / CHANNEL_LANES;
    weights += ray * (samples - 1), order += ray * samples, features += ray * samples * channels;
    for (int first = 0; first < channels; first += CHANNEL_LANES * V) {
        const int c = first + lane * V;
        Vector<T, V> sums = {};
        for (int k = part; k < samples && c < channels; k += RAY_LANES) {
            const T weight = sample_weight(weights, samples, k);
            const Vector<T, V> from = load<V>(features + order[k] * channels + c);
#pragma unroll
            for (int v = 0; v < V; v++) sums.at[v] += weight * from.at[v];
        }
#pragma unroll
        for (int v = 0; v < V; v++) sums.at[v] = sum_of_lanes(sums.at[v], WARP, CHANNEL_LANES);
        if (part == 0 && c < channels) store(out + ray * channels + c, sums);
    }
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    composite_grad_kernel(const T* grad, const T* weights, const T* features, const int64_t* order, T* grad_weights,
                          T* grad_features, int64_t rays, int samples, int channels) {
    const int64_t ray = int64_t(blockIdx.x) * RAYS + threadIdx.x / WARP;
    if (ray >= rays) return;
    const int lane = threadIdx.x % CHANNEL_LANES, part = threadIdx.x % WARP / CHANNEL_LANES;
    grad += ray * channels, weights += ray * (samples - 1), order += ray * samples, grad_weights += ray * (samples - 1);
    features += ray * samples * channels, grad_features += ray * samples * channels;
    T before = 0;  // the dot product of the sample before the first one of this round
    for (int first = 0; first < samples; first += RAY_LANES) {
        const int k = first + part;
        T dot = 0;
        if (k < samples) {
            const T weight = sample_weight(weights, samples, k);
            const int64_t place = order[k] * channels;
            for (int c = lane * V; c < channels; c += CHANNEL_LANES * V) {
                const Vector<T, V> from = load<V>(features + place + c), g = load<V>(grad + c);
                Vector<T, V> to;
#pragma unroll
                for (int v = 0; v < V; v++) {
                    to.at[v] = weight * g.at[v];
                    dot += from.at[v] * g.at[v];
                }
                store(grad_features + place + c, to);
            }
        }
        dot = sum_of_lanes(dot, CHANNEL_LANES);
        const T neighbour = __shfl_up_sync(0xffffffffu, dot, CHANNEL_LANES);
        if (lane == 0 && k > 0 && k < samples) grad_weights[k - 1] = T(0.5) * ((part ? neighbour : before) + dot);
        before = __shfl_sync(0xffffffffu, dot, WARP - 1);
    }
}

template <typename T>
cudaError_t composite(const T* weights, const T* features, const int64_t* order, T* out, int64_t rays, int samples,
                      int channels, cudaStream_t stream) {
    const auto kernel = wide<T>(channels, features, out) ? composite_kernel<T, WIDE<T>> : composite_kernel<T, 1>;
    return launch(kernel, dim3(ceil_div(rays, RAYS)), THREADS, stream, weights, features, order, out, rays, samples, channels);
}

template <typename T>
cudaError_t composite_grad(const T* grad, const T* weights, const T* features, const int64_t* order, T* grad_weights,
                           T* grad_features, int64_t rays, int samples, int channels, cudaStream_t stream) {
    const auto kernel =
        wide<T>(channels, grad, features, grad_features) ? composite_grad_kernel<T, WIDE<T>> : composite_grad_kernel<T, 1>;
    return launch(kernel, dim3(ceil_div(rays, RAYS)), THREADS, stream, grad, weights, features, order, grad_weights,
                  grad_features, rays, samples, channels);
}

}  // namespace multi_pose::cuda
