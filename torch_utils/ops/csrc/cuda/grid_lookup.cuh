// Trilinear lookup in the feature grids of each sample, averaged over its grids, with zeros outside.  Torch-free.
//
// A table is [samples, grids, depth, height, width, channels].  POINT_LANES neighbouring threads share one point, and each
// reads 16 bytes of a cell's channels, which are adjacent in memory.
#pragma once

#include "common.cuh"

namespace multi_pose::cuda {

constexpr int POINT_LANES = 8;

// The two cells around a position on an axis.  Cells outside get weight and slope 0 and an index inside.
template <typename T>
struct Neighbours {
    int index[2];
    T weight[2], slope[2];  // slope: derivative of the weight by the point's coordinate

    __device__ Neighbours(T where, int length) {
        T place = where * (T(0.5) * length) + T(0.5) * (length - 1);
        // Also keeps huge positions and NaN, which are outside, in the range of integers.
        place = place > T(-2) ? place : T(-2);
        place = place < T(length + 1) ? place : T(length + 1);
        const T low = floor(place), fraction = place - low;
#pragma unroll
        for (int side = 0; side < 2; side++) {
            const int i = int(low) + side;
            const bool inside = i >= 0 && i < length;
            index[side] = inside ? i : 0;
            weight[side] = inside ? (side ? fraction : 1 - fraction) : T(0);
            slope[side] = inside ? (side ? T(0.5) : T(-0.5)) * length : T(0);
        }
    }
};

// The 8 cells around a point in grid g.
template <typename T>
struct Cell {
    Neighbours<T> x, y, z;

    __device__ Cell(const Grids& s, const T* point, int g)
        : x(point[s.axes[3 * g]], s.width), y(point[s.axes[3 * g + 1]], s.height), z(point[s.axes[3 * g + 2]], s.depth) {}

    __device__ int offset(const Grids& s, int i, int j, int k) const {
        return ((z.index[k] * s.height + y.index[j]) * s.width + x.index[i]) * s.channels;
    }
};

// Call `body(i, j, k)` for the corners of a cell, with constants once the loop is unrolled.
template <typename Body>
__device__ void for_corners(Body body) {
#pragma unroll
    for (int corner = 0; corner < 8; corner++) body(corner & 1, corner >> 1 & 1, corner >> 2);
}

template <typename T>
__device__ int64_t table_offset(const Grids& s, int64_t sample, int g) {
    return (sample * s.grids + g) * s.depth * s.height * s.width * s.channels;
}

// V features of a point, starting at channel c.
template <int V, typename T>
__device__ Vector<T, V> features_of(const Grids& s, const T* table, int64_t sample, const T* point, int c) {
    Vector<T, V> sums = {};
    for (int g = 0; g < s.grids; g++) {
        const Cell<T> cell(s, point, g);
        const T* grid = table + table_offset<T>(s, sample, g) + c;
        for_corners([&](int i, int j, int k) {
            const T weight = cell.z.weight[k] * cell.y.weight[j] * cell.x.weight[i];
            const Vector<T, V> features = load<V>(grid + cell.offset(s, i, j, k));
#pragma unroll
            for (int v = 0; v < V; v++) sums.at[v] += weight * features.at[v];
        });
    }
#pragma unroll
    for (int v = 0; v < V; v++) sums.at[v] /= s.grids;
    return sums;
}

// Call `body(sample, point, inside)` for each point with POINT_LANES lanes.  Points that are not inside only complete a warp.
template <typename Body>
__device__ void for_points(const Grids& s, Body body) {
    const int64_t point = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / POINT_LANES;
    for (int64_t sample = blockIdx.y; sample < s.samples; sample += gridDim.y)
        body(sample, sample * s.points + point, point < s.points);
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    grid_lookup_kernel(const __grid_constant__ Grids s, const T* table, const T* points, T* out) {
    for_points(s, [&](int64_t sample, int64_t p, bool inside) {
        if (!inside) return;
        for (int c = threadIdx.x % POINT_LANES * V; c < s.channels; c += POINT_LANES * V)
            store(out + p * s.channels + c, features_of<V>(s, table, sample, points + 3 * p, c));
    });
}

// How a cell accumulates its gradient: as floating-point numbers, or as integers in units of 1 / *unit.
template <typename T>
struct Gather {
    T* table;

    template <int V>
    __device__ void add(int64_t at, const Vector<T, V>& values) const {
#pragma unroll
        for (int v = 0; v < V; v++) atomicAdd(table + at + v, values.at[v]);
    }
#if __CUDA_ARCH__ >= 900
    __device__ void add(int64_t at, const Vector<float, 4>& v) const {
        atomicAdd(reinterpret_cast<float4*>(table + at), make_float4(v.at[0], v.at[1], v.at[2], v.at[3]));
    }
#endif
};

template <typename T>
struct GatherFixed {
    unsigned long long* table;
    const double* unit;

    template <int V>
    __device__ void add(int64_t at, const Vector<T, V>& values) const {
#pragma unroll
        for (int v = 0; v < V; v++) atomicAdd(table + at + v, (unsigned long long)(__double2ll_rn(values.at[v] * *unit)));
    }
};

template <typename T, int V, typename To>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    grid_lookup_grad_table_kernel(const __grid_constant__ Grids s, const T* grad, const T* points, To to) {
    for_points(s, [&](int64_t sample, int64_t p, bool inside) {
        if (!inside) return;
        for (int c = threadIdx.x % POINT_LANES * V; c < s.channels; c += POINT_LANES * V) {
            const Vector<T, V> from = load<V>(grad + p * s.channels + c);
            for (int g = 0; g < s.grids; g++) {
                const Cell<T> cell(s, points + 3 * p, g);
                const int64_t grid = table_offset<T>(s, sample, g) + c;
                for_corners([&](int i, int j, int k) {
                    const T weight = cell.z.weight[k] * cell.y.weight[j] * cell.x.weight[i] / s.grids;
                    if (weight == 0) return;
                    Vector<T, V> part;
#pragma unroll
                    for (int v = 0; v < V; v++) part.at[v] = weight * from.at[v];
                    to.add(grid + cell.offset(s, i, j, k), part);
                });
            }
        }
    });
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    grid_lookup_grad_points_kernel(const __grid_constant__ Grids s, const T* grad, const T* table, const T* points,
                                   T* grad_points) {
    for_points(s, [&](int64_t sample, int64_t p, bool inside) {
        T slopes[3] = {};
        const int lane = threadIdx.x % POINT_LANES;
        for (int c = lane * V; inside && c < s.channels; c += POINT_LANES * V) {
            const Vector<T, V> from = load<V>(grad + p * s.channels + c);
            for (int g = 0; g < s.grids; g++) {
                const Cell<T> cell(s, points + 3 * p, g);
                const T* grid = table + table_offset<T>(s, sample, g) + c;
                T by[3] = {};  // width, height, depth
                for_corners([&](int i, int j, int k) {
                    const Vector<T, V> features = load<V>(grid + cell.offset(s, i, j, k));
                    T dot = 0;
#pragma unroll
                    for (int v = 0; v < V; v++) dot += features.at[v] * from.at[v];
                    by[0] += dot * cell.x.slope[i] * cell.y.weight[j] * cell.z.weight[k];
                    by[1] += dot * cell.x.weight[i] * cell.y.slope[j] * cell.z.weight[k];
                    by[2] += dot * cell.x.weight[i] * cell.y.weight[j] * cell.z.slope[k];
                });
#pragma unroll
                for (int coordinate = 0; coordinate < 3; coordinate++)  // registers cannot be indexed at run time
#pragma unroll
                    for (int k = 0; k < 3; k++) slopes[coordinate] += s.axes[3 * g + k] == coordinate ? by[k] : T(0);
            }
        }
#pragma unroll
        for (int k = 0; k < 3; k++) {
            const T slope = sum_of_lanes(slopes[k], POINT_LANES);
            if (inside && lane == 0) grad_points[3 * p + k] = slope / s.grids;
        }
    });
}

inline dim3 blocks_of_points(const Grids& s) {
    return dim3(ceil_div(int64_t(s.points) * POINT_LANES, THREADS), std::min<int64_t>(s.samples, 65535));
}

template <typename T>
cudaError_t grid_lookup(const Grids& s, const T* table, const T* points, T* out, cudaStream_t stream) {
    const auto kernel = wide<T>(s.channels, table, out) ? grid_lookup_kernel<T, WIDE<T>> : grid_lookup_kernel<T, 1>;
    return launch(kernel, blocks_of_points(s), THREADS, stream, s, table, points, out);
}

template <typename T>
cudaError_t grid_lookup_grad_table(const Grids& s, const T* grad, const T* points, T* grad_table, cudaStream_t stream) {
    using To = Gather<T>;
    const auto kernel = wide<T>(s.channels, grad, grad_table) ? grid_lookup_grad_table_kernel<T, WIDE<T>, To>
                                                              : grid_lookup_grad_table_kernel<T, 1, To>;
    return launch(kernel, blocks_of_points(s), THREADS, stream, s, grad, points, To{grad_table});
}

template <typename T>
cudaError_t grid_lookup_grad_table_fixed(const Grids& s, const T* grad, const T* points, const double* unit,
                                         unsigned long long* grad_table, cudaStream_t stream) {
    using To = GatherFixed<T>;
    const auto kernel =
        wide<T>(s.channels, grad) ? grid_lookup_grad_table_kernel<T, WIDE<T>, To> : grid_lookup_grad_table_kernel<T, 1, To>;
    return launch(kernel, blocks_of_points(s), THREADS, stream, s, grad, points, To{grad_table, unit});
}

template <typename T>
cudaError_t grid_lookup_grad_points(const Grids& s, const T* grad, const T* table, const T* points, T* grad_points,
                                    cudaStream_t stream) {
    const auto kernel =
        wide<T>(s.channels, grad, table) ? grid_lookup_grad_points_kernel<T, WIDE<T>> : grid_lookup_grad_points_kernel<T, 1>;
    return launch(kernel, blocks_of_points(s), THREADS, stream, s, grad, table, points, grad_points);
}

}  // namespace multi_pose::cuda
