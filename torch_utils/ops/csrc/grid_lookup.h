// Trilinear lookup in the feature grids of one sample, averaged over its grids, with zeros outside.  Torch-free.
//
// A table is [grids, depth, height, width, channels], so the channels of a cell are adjacent.  Points are (x, y, z) in [-1, 1];
// axes[3 g + k] says which coordinate runs along width, height and depth (k = 0, 1, 2) of grid g.  C is the number of channels
// if it is known at compile time, else 0.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace multi_pose {

struct GridShape {
    int64_t grids, depth, height, width, channels;
    int64_t cells() const { return depth * height * width; }
};

// The two cells around a position on an axis.  Cells outside get weight and slope 0 and an index inside.
template <typename T>
struct Neighbours {
    int64_t index[2];
    T weight[2];
    T slope[2];  // derivative of the weight by the point's coordinate

    Neighbours(T where, int64_t length) {
        T place = where * (T(0.5) * length) + T(0.5) * (length - 1);
        // Also keeps huge positions and NaN, which are outside, in the range of integers.
        place = place > T(-2) ? place : T(-2);
        place = place < T(length + 1) ? place : T(length + 1);
        const T low = std::floor(place), fraction = place - low;
        const T weights[2] = {1 - fraction, fraction};
        for (int side = 0; side < 2; side++) {
            const int64_t i = int64_t(low) + side;
            const bool inside = i >= 0 && i < length;
            index[side] = inside ? i : 0;
            weight[side] = inside ? weights[side] : T(0);
            slope[side] = inside ? (side ? T(0.5) : T(-0.5)) * length : T(0);
        }
    }
};

template <typename T>
struct Cell {
    Neighbours<T> x, y, z;

    Cell(const T* point, const int64_t* axes, const GridShape& shape)
        : x(point[axes[0]], shape.width), y(point[axes[1]], shape.height), z(point[axes[2]], shape.depth) {}

    int64_t offset(int i, int j, int k, const GridShape& shape) const {
        return ((z.index[k] * shape.height + y.index[j]) * shape.width + x.index[i]) * shape.channels;
    }
};

// Compute out [points, channels] for the points from begin to end.
template <typename T, int C>
void grid_lookup(const T* table, const T* points, const int64_t* axes, T* out, GridShape shape, int64_t begin, int64_t end) {
    const int64_t channels = C ? C : shape.channels;
    const T share = T(1) / shape.grids;
    for (int64_t p = begin; p < end; p++) {
        T sums[C ? C : 1] = {};
        T* sum = C ? sums : out + p * channels;
        if (!C)
            for (int64_t c = 0; c < channels; c++) sum[c] = 0;
        for (int64_t g = 0; g < shape.grids; g++) {
            const Cell<T> cell(points + 3 * p, axes + 3 * g, shape);
            const T* grid = table + g * shape.cells() * channels;
            for (int k = 0; k < 2; k++)
                for (int j = 0; j < 2; j++)
                    for (int i = 0; i < 2; i++) {
                        const T weight = share * cell.z.weight[k] * cell.y.weight[j] * cell.x.weight[i];
                        const T* features = grid + cell.offset(i, j, k, shape);
#pragma omp simd
                        for (int64_t c = 0; c < channels; c++) sum[c] += weight * features[c];
                    }
        }
        if (C)
            for (int64_t c = 0; c < channels; c++) out[p * channels + c] = sum[c];
    }
}

// Add to grad_table the gradient of one grid's rows from first_row to last_row, from all points in order.  Each cell gets the
// same sum, however the rows are distributed.
template <typename T, int C>
void grid_lookup_grad_table(const T* grad, const T* points, const int64_t* axes, T* grad_table, GridShape shape, int64_t count,
                            int64_t g, int64_t first_row, int64_t last_row) {
    const int64_t channels = C ? C : shape.channels;
    const T share = T(1) / shape.grids;
    T* grid = grad_table + g * shape.cells() * channels;
    for (int64_t p = 0; p < count; p++) {
        const Cell<T> cell(points + 3 * p, axes + 3 * g, shape);
        for (int j = 0; j < 2; j++) {
            if (cell.y.index[j] < first_row || cell.y.index[j] >= last_row) continue;
            for (int k = 0; k < 2; k++)
                for (int i = 0; i < 2; i++) {
                    const T weight = share * cell.z.weight[k] * cell.y.weight[j] * cell.x.weight[i];
                    if (weight == 0) continue;
                    T* features = grid + cell.offset(i, j, k, shape);
                    const T* from = grad + p * channels;
#pragma omp simd
                    for (int64_t c = 0; c < channels; c++) features[c] += weight * from[c];
                }
        }
    }
}

// Compute grad_points [points, 3] for the points from begin to end.
template <typename T, int C>
void grid_lookup_grad_points(const T* grad, const T* table, const T* points, const int64_t* axes, T* grad_points, GridShape shape,
                             int64_t begin, int64_t end) {
    constexpr int64_t BLOCK = C ? C : 32;
    const int64_t channels = C ? C : shape.channels;
    const T share = T(1) / shape.grids;
    for (int64_t p = begin; p < end; p++) {
        // The derivative of the features along each coordinate, times the gradient.
        T slopes[3] = {};
        for (int64_t first = 0; first < channels; first += BLOCK) {
            const int64_t count = C ? BLOCK : std::min(BLOCK, channels - first);
            T changes[3][BLOCK] = {};
            for (int64_t g = 0; g < shape.grids; g++) {
                const Cell<T> cell(points + 3 * p, axes + 3 * g, shape);
                const T* grid = table + g * shape.cells() * channels + first;
                T *by_x = changes[axes[3 * g]], *by_y = changes[axes[3 * g + 1]], *by_z = changes[axes[3 * g + 2]];
                for (int k = 0; k < 2; k++)
                    for (int j = 0; j < 2; j++)
                        for (int i = 0; i < 2; i++) {
                            const T x = cell.x.slope[i] * cell.y.weight[j] * cell.z.weight[k];
                            const T y = cell.x.weight[i] * cell.y.slope[j] * cell.z.weight[k];
                            const T z = cell.x.weight[i] * cell.y.weight[j] * cell.z.slope[k];
                            const T* features = grid + cell.offset(i, j, k, shape);
#pragma omp simd
                            for (int64_t c = 0; c < (C ? BLOCK : count); c++) {
                                by_x[c] += x * features[c];
                                by_y[c] += y * features[c];
                                by_z[c] += z * features[c];
                            }
                        }
            }
            const T* from = grad + p * channels + first;
            for (int k = 0; k < 3; k++)
#pragma omp simd
                for (int64_t c = 0; c < count; c++) changes[k][c] *= share * from[c];
            for (int k = 0; k < 3; k++)
                for (int64_t c = 0; c < count; c++) slopes[k] += changes[k][c];
        }
        for (int k = 0; k < 3; k++) grad_points[3 * p + k] = slopes[k];
    }
}

}  // namespace multi_pose
