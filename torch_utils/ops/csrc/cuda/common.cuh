// Shared by the kernels: wide loads, sums over lanes, launches.  Torch-free.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "launchers.h"

namespace multi_pose::cuda {

constexpr int THREADS = 256;
constexpr int WARP = 32;

// Concurrent blocks per multiprocessor that leave the kernels enough registers.
constexpr int BLOCKS = 2;

// Elements that a thread reads or writes in one access.
template <typename T>
constexpr int WIDE = 16 / sizeof(T);

template <typename T, int V>
struct alignas(V * sizeof(T)) Vector {
    T at[V];
};

template <int V, typename T>
__device__ Vector<T, V> load(const T* from) {
    return *reinterpret_cast<const Vector<T, V>*>(from);
}

template <typename T, int V>
__device__ void store(T* to, const Vector<T, V>& values) {
    *reinterpret_cast<Vector<T, V>*>(to) = values;
}

// Whether rows of `inner` elements at these addresses can be read WIDE elements at a time.  Null addresses are not read.
template <typename T, typename... Pointers>
bool wide(int64_t inner, Pointers... pointers) {
    return inner % WIDE<T> == 0 && ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

// Sum over groups of `width` neighbouring lanes (a power of two); each lane gets it.  All lanes of a warp must call this.
template <typename S>
__device__ S sum_of_lanes(S value, int width, int first_step = 1) {
    for (int step = first_step; step < width; step *= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Launch blocks of `threads`.  Does nothing without blocks.
template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 blocks, int threads, cudaStream_t stream, Arguments... arguments) {
    if (blocks.x == 0 || blocks.y == 0) return cudaSuccess;
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks;
    config.blockDim = dim3(threads);
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

// Call `body(first, count)` for runs of samples of `size` elements that can be indexed with 32 bits.
template <typename Body>
cudaError_t for_samples(int64_t samples, int64_t size, Body body) {
    const int64_t most = std::max<int64_t>(1, INT32_MAX / std::max<int64_t>(size, 1));
    for (int64_t first = 0; first < samples; first += most) {
        const cudaError_t status = body(first, std::min(most, samples - first));
        if (status != cudaSuccess) return status;
    }
    return cudaSuccess;
}

}  // namespace multi_pose::cuda
