// The compiled CPU ops as torch.ops.multi_pose: checks, memory and threads; the arithmetic is in the headers.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "grid_lookup.h"

namespace {

using at::IntArrayRef;
using at::Tensor;
using namespace multi_pose;

constexpr int64_t POINTS_GRAIN = 256;  // the least a thread is woken for

// Call `body` with the number of channels as a constant where it is the usual one, else 0.
template <typename Body>
void with_channels(int64_t channels, Body body) {
    if (channels == 32)
        body(std::integral_constant<int, 32>());
    else
        body(std::integral_constant<int, 0>());
}

GridShape grid_shape(const Tensor& table, const Tensor& points, IntArrayRef axes) {
    TORCH_CHECK(table.dim() == 6 && table.is_contiguous(), "table must be contiguous, [N, grids, D, H, W, C]");
    TORCH_CHECK(points.dim() == 3 && points.is_contiguous() && points.size(2) == 3, "points must be contiguous, [N, M, 3]");
    TORCH_CHECK(points.size(0) == table.size(0) && points.scalar_type() == table.scalar_type(), "table and points differ");
    TORCH_CHECK(int64_t(axes.size()) == 3 * table.size(1), "three axes for each grid");
    for (int64_t axis : axes) TORCH_CHECK(axis >= 0 && axis < 3, "axes are 0, 1 and 2");
    return {table.size(1), table.size(2), table.size(3), table.size(4), table.size(5)};
}

// Call `body(sample, begin, end)` for ranges of the points of each sample.
template <typename Body>
void for_points(const Tensor& points, Body body) {
    const int64_t count = points.size(1);
    at::parallel_for(0, points.size(0) * count, POINTS_GRAIN, [&](int64_t begin, int64_t end) {
        while (begin < end) {
            const int64_t sample = begin / count, stop = std::min(end, (sample + 1) * count);
            body(sample, begin - sample * count, stop - sample * count);
            begin = stop;
        }
    });
}

Tensor grid_lookup_cpu(const Tensor& table, const Tensor& points, IntArrayRef axes) {
    const GridShape shape = grid_shape(table, points, axes);
    const int64_t count = points.size(1), size = shape.grids * shape.cells() * shape.channels;
    Tensor out = at::empty({points.size(0), count, shape.channels}, table.options());
    AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "grid_lookup", [&] {
        with_channels(shape.channels, [&](auto channels) {
            for_points(points, [&](int64_t n, int64_t begin, int64_t end) {
                grid_lookup<scalar_t, channels.value>(table.const_data_ptr<scalar_t>() + n * size,
                                                      points.const_data_ptr<scalar_t>() + n * count * 3, axes.data(),
                                                      out.data_ptr<scalar_t>() + n * count * shape.channels, shape, begin, end);
            });
        });
    });
    return out;
}

Tensor grid_lookup_grad_table_cpu(const Tensor& grad, const Tensor& points, IntArrayRef table_shape, IntArrayRef axes) {
    Tensor grad_table = at::zeros(table_shape, grad.options());
    const GridShape shape = grid_shape(grad_table, points, axes);
    const int64_t count = points.size(1), size = shape.grids * shape.cells() * shape.channels;
    TORCH_CHECK(grad.is_contiguous() && grad.numel() == points.size(0) * count * shape.channels, "gradient of the features");
    const int64_t grids = table_shape[0] * shape.grids;
    if (grids == 0) return grad_table;
    // Twice as many tasks as threads, so that none waits long for another.
    const int64_t bands = std::min<int64_t>(shape.height, (2 * at::get_num_threads() + grids - 1) / grids);
    AT_DISPATCH_FLOATING_TYPES(grad.scalar_type(), "grid_lookup_grad_table", [&] {
        with_channels(shape.channels, [&](auto channels) {
            at::parallel_for(0, grids * bands, 1, [&](int64_t begin, int64_t end) {
                for (int64_t task = begin; task < end; task++) {
                    const int64_t band = task % bands, g = task / bands % shape.grids, n = task / bands / shape.grids;
                    grid_lookup_grad_table<scalar_t, channels.value>(
                        grad.const_data_ptr<scalar_t>() + n * count * shape.channels,
                        points.const_data_ptr<scalar_t>() + n * count * 3, axes.data(),
                        grad_table.data_ptr<scalar_t>() + n * size, shape, count, g, shape.height * band / bands,
                        shape.height * (band + 1) / bands);
                }
            });
        });
    });
    return grad_table;
}

Tensor grid_lookup_grad_points_cpu(const Tensor& grad, const Tensor& table, const Tensor& points, IntArrayRef axes) {
    const GridShape shape = grid_shape(table, points, axes);
    const int64_t count = points.size(1), size = shape.grids * shape.cells() * shape.channels;
    TORCH_CHECK(grad.is_contiguous() && grad.numel() == points.size(0) * count * shape.channels, "gradient of the features");
    Tensor grad_points = at::empty(points.sizes(), points.options());
    AT_DISPATCH_FLOATING_TYPES(grad.scalar_type(), "grid_lookup_grad_points", [&] {
        with_channels(shape.channels, [&](auto channels) {
            for_points(points, [&](int64_t n, int64_t begin, int64_t end) {
                grid_lookup_grad_points<scalar_t, channels.value>(
                    grad.const_data_ptr<scalar_t>() + n * count * shape.channels, table.const_data_ptr<scalar_t>() + n * size,
                    points.const_data_ptr<scalar_t>() + n * count * 3, axes.data(),
                    grad_points.data_ptr<scalar_t>() + n * count * 3, shape, begin, end);
            });
        });
    });
    return grad_points;
}

}  // namespace

TORCH_LIBRARY(multi_pose, m) {
    m.def("grid_lookup(Tensor table, Tensor points, int[] axes) -> Tensor", grid_lookup_cpu);
    m.def("grid_lookup_grad_table(Tensor grad, Tensor points, int[] table_shape, int[] axes) -> Tensor", grid_lookup_grad_table_cpu);
    m.def("grid_lookup_grad_points(Tensor grad, Tensor table, Tensor points, int[] axes) -> Tensor", grid_lookup_grad_points_cpu);
}
