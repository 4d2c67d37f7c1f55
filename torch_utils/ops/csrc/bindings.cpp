// Registers the compiled CPU ops as torch.ops.multi_pose.  Checks, memory and threads are here; the arithmetic is in the
// headers.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "bias_act.h"
#include "composite.h"
#include "conv3x3.h"
#include "grid_lookup.h"
#include "softplus_mlp.h"
#include "upfirdn2d.h"

namespace {

using at::IntArrayRef;
using at::Tensor;
using namespace multi_pose;

constexpr int64_t POINTS_GRAIN = 256;  // points that are worth a thread

// Call `body` with the number of channels as a constant if it is the usual one, and with 0 otherwise.
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
    // Twice as many tasks as threads, so that no thread waits long for another.
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

// Compositing along rays

constexpr int64_t RAYS_GRAIN = 32;

void check_rays(const Tensor& weights, const Tensor& features, const Tensor& order) {
    TORCH_CHECK(features.dim() == 4 && features.is_contiguous(), "features must be contiguous, [N, R, S, C]");
    const int64_t rays = features.size(0) * features.size(1), samples = features.size(2);
    TORCH_CHECK(samples > 0 && weights.is_contiguous() && weights.numel() == rays * (samples - 1), "a weight for each interval");
    TORCH_CHECK(order.is_contiguous() && order.numel() == rays * samples && order.scalar_type() == at::kLong, "order of samples");
}

Tensor composite_cpu(const Tensor& weights, const Tensor& features, const Tensor& order) {
    check_rays(weights, features, order);
    const int64_t samples = features.size(2), channels = features.size(3);
    Tensor out = at::empty({features.size(0), features.size(1), channels}, features.options());
    AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "composite", [&] {
        with_channels(channels, [&](auto constant) {
            at::parallel_for(0, features.size(0) * features.size(1), RAYS_GRAIN, [&](int64_t begin, int64_t end) {
                for (int64_t ray = begin; ray < end; ray++)
                    composite<scalar_t, constant.value>(
                        weights.const_data_ptr<scalar_t>() + ray * (samples - 1),
                        features.const_data_ptr<scalar_t>() + ray * samples * channels,
                        order.const_data_ptr<int64_t>() + ray * samples, out.data_ptr<scalar_t>() + ray * channels, samples,
                        channels);
            });
        });
    });
    return out;
}

std::tuple<Tensor, Tensor> composite_grad_cpu(const Tensor& grad, const Tensor& weights, const Tensor& features,
                                              const Tensor& order) {
    check_rays(weights, features, order);
    const int64_t samples = features.size(2), channels = features.size(3);
    Tensor grad_weights = at::empty_like(weights), grad_features = at::empty_like(features);
    AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "composite_grad", [&] {
        with_channels(channels, [&](auto constant) {
            at::parallel_for(0, features.size(0) * features.size(1), RAYS_GRAIN, [&](int64_t begin, int64_t end) {
                for (int64_t ray = begin; ray < end; ray++)
                    composite_grad<scalar_t, constant.value>(
                        grad.const_data_ptr<scalar_t>() + ray * channels, weights.const_data_ptr<scalar_t>() + ray * (samples - 1),
                        features.const_data_ptr<scalar_t>() + ray * samples * channels,
                        order.const_data_ptr<int64_t>() + ray * samples, grad_weights.data_ptr<scalar_t>() + ray * (samples - 1),
                        grad_features.data_ptr<scalar_t>() + ray * samples * channels, samples, channels);
            });
        });
    });
    return {grad_weights, grad_features};
}

// Two layers with a softplus between them

// Points that a thread takes at a time, so that results do not depend on the number of threads.  Gradients of weights are
// summed in order within a chunk, and torch adds up the chunks.
constexpr int64_t MLP_CHUNK = 16 * multi_pose::MLP_TILE;

// The weights in the layout that the arithmetic needs, and the tensors that own their memory.
struct MlpWeights {
    Tensor w1, w1_transposed, b1, w2, w2_transposed, b2;
    int64_t padded;

    MlpWeights(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2)
        : w1(w1.contiguous()), w1_transposed(w1.t().contiguous()), b1(b1.contiguous()), w2(w2.contiguous()) {
        const int64_t lanes = multi_pose::VECTOR_BYTES / x.element_size();
        TORCH_CHECK(x.dim() == 2 && x.is_contiguous() && x.size(1) == w1.size(1), "x must be contiguous, [points, inputs]");
        TORCH_CHECK(w1.size(0) % lanes == 0 && w1.size(1) % lanes == 0, "inputs and hidden features must be whole vectors");
        padded = (w2.size(0) + lanes - 1) / lanes * lanes;
        w2_transposed = at::constant_pad_nd(w2.t(), {0, padded - w2.size(0)}).contiguous();
        this->b2 = at::constant_pad_nd(b2, {0, padded - w2.size(0)}).contiguous();
    }

    template <typename T>
    Mlp<T> get() const {
        return {w1.size(1), w1.size(0), w2.size(0), padded, w1.const_data_ptr<T>(), w1_transposed.const_data_ptr<T>(),
                b1.const_data_ptr<T>(), w2.const_data_ptr<T>(), w2_transposed.const_data_ptr<T>(), b2.const_data_ptr<T>()};
    }
};

Tensor softplus_mlp_cpu(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2) {
    const MlpWeights weights(x, w1, b1, w2, b2);
    Tensor out = at::empty({x.size(0), w2.size(0)}, x.options());
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "softplus_mlp", [&] {
        at::parallel_for(0, (x.size(0) + MLP_CHUNK - 1) / MLP_CHUNK, 1, [&](int64_t begin, int64_t end) {
            softplus_mlp(weights.get<scalar_t>(), x.const_data_ptr<scalar_t>(), out.data_ptr<scalar_t>(), begin * MLP_CHUNK,
                         std::min(x.size(0), end * MLP_CHUNK));
        });
    });
    return out;
}

// Gradients of x, w1, b1, w2, b2.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> softplus_mlp_grad_cpu(const Tensor& grad, const Tensor& x, const Tensor& w1,
                                                                         const Tensor& b1, const Tensor& w2, const Tensor& b2) {
    const MlpWeights weights(x, w1, b1, w2, b2);
    TORCH_CHECK(grad.is_contiguous() && grad.numel() == x.size(0) * w2.size(0), "gradient of the outputs");
    const int64_t chunks = (x.size(0) + MLP_CHUNK - 1) / MLP_CHUNK;
    Tensor grad_x = at::empty_like(x), sums = at::empty({chunks, w1.numel() + b1.numel() + w2.numel() + b2.numel()}, x.options());
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "softplus_mlp_grad", [&] {
        at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
            for (int64_t chunk = begin; chunk < end; chunk++)
                softplus_mlp_grad(weights.get<scalar_t>(), grad.const_data_ptr<scalar_t>(), x.const_data_ptr<scalar_t>(),
                                  grad_x.data_ptr<scalar_t>(), sums.data_ptr<scalar_t>() + chunk * sums.size(1),
                                  chunk * MLP_CHUNK, std::min(x.size(0), (chunk + 1) * MLP_CHUNK));
        });
    });
    const auto parts = sums.sum(0).split_with_sizes({w1.numel(), b1.numel(), w2.numel(), b2.numel()});
    return {grad_x, parts[0].view(w1.sizes()), parts[1], parts[2].view(w2.sizes()), parts[3]};
}

// Bias and activation

constexpr int64_t CHUNK = 32768;  // elements that a thread takes at a time, channels last

struct Picture {
    int64_t samples, channels, pixels, chunk, chunks;

    // `last` means channels last.  With `merge`, all samples are treated as one.
    Picture(const Tensor& x, bool last, bool merge)
        : samples(x.size(0)), channels(x.size(1)), pixels(x.numel() ? x.numel() / samples / channels : 0) {
        if (last && merge) pixels *= samples, samples = 1;
        chunk = std::max<int64_t>(64, CHUNK / std::max<int64_t>(channels, 1));
        chunks = (pixels + chunk - 1) / chunk;
    }
};

template <typename T>
const T* data_or_null(const std::optional<Tensor>& tensor, int64_t offset) {
    return tensor ? tensor->const_data_ptr<T>() + offset : nullptr;
}

// The operands of sample n; noise [samples or 1, pixels].
template <typename T>
BiasAct<T> bias_act_of(const std::optional<Tensor>& scale, const std::optional<Tensor>& noise, const std::optional<Tensor>& bias,
                       double slope, double gain, double clamp, const Picture& p, int64_t n) {
    const int64_t first = noise && noise->numel() > p.pixels ? n * p.pixels : 0;
    return {data_or_null<T>(scale, n * p.channels), data_or_null<T>(noise, first), data_or_null<T>(bias, 0),
            T(slope), T(gain), T(clamp)};
}

Tensor bias_act_cpu(const Tensor& x, const std::optional<Tensor>& scale, const std::optional<Tensor>& noise,
                    const std::optional<Tensor>& bias, double slope, double gain, double clamp, bool last) {
    const Picture p(x, last, !scale && !noise);
    Tensor out = at::empty_like(x);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "bias_act", [&] {
        const scalar_t* from = x.const_data_ptr<scalar_t>();
        scalar_t* to = out.data_ptr<scalar_t>();
        const int64_t tasks = p.samples * (last ? p.chunks : p.channels), grain = last ? 1 : CHUNK / (p.pixels + 1) + 1;
        at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
            for (int64_t task = begin; task < end; task++) {
                const int64_t n = task / (last ? p.chunks : p.channels), part = task % (last ? p.chunks : p.channels);
                const auto op = bias_act_of<scalar_t>(scale, noise, bias, slope, gain, clamp, p, n);
                const int64_t offset = n * p.channels * p.pixels;
                if (last)
                    bias_act_last(op, from + offset, to + offset, p.channels, part * p.chunk,
                                  std::min(p.pixels, (part + 1) * p.chunk));
                else
                    bias_act_row(op, from + offset + part * p.pixels, to + offset + part * p.pixels, part, p.pixels);
            }
        });
    });
    return out;
}

// Gradients of x, scale, noise [samples, pixels] and bias.  The tensors are empty for operands that are not given.
std::tuple<Tensor, Tensor, Tensor, Tensor> bias_act_grad_cpu(const Tensor& grad, const Tensor& x, const std::optional<Tensor>& scale,
                                                             const std::optional<Tensor>& noise, const std::optional<Tensor>& bias,
                                                             double slope, double gain, double clamp, bool last) {
    const Picture p(x, last, !scale && !noise);
    const int64_t parts = last ? p.chunks : 1;
    Tensor grad_x = at::empty_like(x);
    Tensor grad_scale = at::empty({scale ? p.samples : 0, parts, p.channels}, x.options());
    Tensor grad_bias = at::empty({bias ? p.samples : 0, parts, p.channels}, x.options());
    Tensor grad_noise = at::empty({noise ? p.samples : 0, last ? 1 : p.channels, p.pixels}, x.options());
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "bias_act_grad", [&] {
        const scalar_t *g = grad.const_data_ptr<scalar_t>(), *from = x.const_data_ptr<scalar_t>();
        scalar_t *to = grad_x.data_ptr<scalar_t>(), *to_scale = scale ? grad_scale.data_ptr<scalar_t>() : nullptr;
        scalar_t* to_bias = bias ? grad_bias.data_ptr<scalar_t>() : nullptr;
        scalar_t* to_noise = noise ? grad_noise.data_ptr<scalar_t>() : nullptr;
        const int64_t tasks = p.samples * (last ? p.chunks : p.channels), grain = last ? 1 : CHUNK / (p.pixels + 1) + 1;
        at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
            for (int64_t task = begin; task < end; task++) {
                const int64_t n = task / (last ? p.chunks : p.channels), part = task % (last ? p.chunks : p.channels);
                const auto op = bias_act_of<scalar_t>(scale, noise, bias, slope, gain, clamp, p, n);
                const int64_t sums = task * (last ? p.channels : 1);
                scalar_t *scale_sum = to_scale ? to_scale + sums : nullptr, *bias_sum = to_bias ? to_bias + sums : nullptr;
                if (last) {
                    const int64_t offset = n * p.channels * p.pixels;
                    bias_act_last_grad(op, g + offset, from + offset, to + offset, scale_sum, bias_sum,
                                       to_noise ? to_noise + n * p.pixels : nullptr, p.channels, part * p.chunk,
                                       std::min(p.pixels, (part + 1) * p.chunk));
                } else {
                    const int64_t offset = task * p.pixels;
                    bias_act_row_grad(op, g + offset, from + offset, to + offset, scale_sum, bias_sum,
                                      to_noise ? to_noise + offset : nullptr, part, p.pixels);
                }
            }
        });
    });
    return {grad_x, grad_scale.sum(1), grad_noise.sum(1), grad_bias.sum(IntArrayRef({0, 1}))};
}

// Resampling: taps [taps_y, taps_x] are in the order of a correlation, pads are left, right, top, bottom

Tensor upfirdn2d_cpu(const Tensor& x, const Tensor& taps, int64_t up_x, int64_t up_y, int64_t down_x, int64_t down_y,
                     int64_t left, int64_t right, int64_t top, int64_t bottom) {
    const bool last = !x.is_contiguous();
    const auto format = last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
    TORCH_CHECK(x.dim() == 4 && x.is_contiguous(format), "x must be [N, C, H, W], contiguous or channels last");
    TORCH_CHECK(taps.dim() == 2 && taps.is_contiguous(), "taps must be contiguous, [h, w]");
    Resampling s{up_x, up_y, down_x, down_y, left, top, taps.size(1), taps.size(0), x.size(2), x.size(3), x.size(1), 0, 0};
    s.out_width = (s.width * up_x + left + right - s.taps_x) / down_x + 1;
    s.out_height = (s.height * up_y + top + bottom - s.taps_y) / down_y + 1;
    TORCH_CHECK(s.width * up_x + left + right >= s.taps_x && s.height * up_y + top + bottom >= s.taps_y,
                "the filter is larger than the picture");
    Tensor out = at::empty({x.size(0), s.channels, s.out_height, s.out_width}, x.options(), format);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "upfirdn2d", [&] {
        // Pictures are [height, width, channels], or processed channel by channel as [height, width].
        const int64_t size = s.height * s.width * (last ? s.channels : 1), width = s.out_width * (last ? s.channels : 1);
        const int64_t rows = x.size(0) * s.out_height * (last ? 1 : s.channels);
        at::parallel_for(0, rows, CHUNK / (width + 1) + 1, [&](int64_t begin, int64_t end) {
            for (int64_t row = begin; row < end; row++) {
                const int64_t n = row / s.out_height;
                const auto run = last ? upfirdn2d_row<scalar_t> : upfirdn2d_plane_row<scalar_t>;
                run(x.const_data_ptr<scalar_t>() + n * size, taps.const_data_ptr<scalar_t>(),
                    out.data_ptr<scalar_t>() + n * s.out_height * width, s, row % s.out_height);
            }
        });
    });
    return out;
}

// 3x3 convolutions

constexpr int64_t CONV_TILES = 24;  // the most that a thread takes at a time

// x [N, I, H, W] is channels last, kernels [O, I, 3, 3] have any memory layout.
Tensor conv3x3_cpu(const Tensor& x, const Tensor& kernels) {
    TORCH_CHECK(x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast), "x must be [N, C, H, W], channels last");
    TORCH_CHECK(kernels.dim() == 4 && kernels.size(1) == x.size(1) && kernels.size(2) == 3 && kernels.size(3) == 3,
                "kernels must be [outputs, inputs, 3, 3]");
    const int64_t inputs = kernels.size(1), outputs = kernels.size(0), lanes = VECTOR_BYTES / x.element_size();
    TORCH_CHECK(inputs % lanes == 0 && outputs % lanes == 0, "inputs and outputs must be whole vectors");
    const Tensor ordered = kernels.permute({2, 3, 1, 0}).contiguous(), zeros = at::zeros({inputs}, x.options());
    Tensor transformed = at::empty({CONV_POINTS, inputs, outputs}, x.options());
    Tensor out = at::empty({x.size(0), outputs, x.size(2), x.size(3)}, x.options(), at::MemoryFormat::ChannelsLast);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "conv3x3", [&] {
        at::parallel_for(0, inputs, 1, [&](int64_t begin, int64_t end) {
            transform_kernels(ordered.const_data_ptr<scalar_t>(), inputs, outputs, transformed.data_ptr<scalar_t>(), begin, end);
        });
        const Conv3x3<scalar_t> convolve{x.size(2), x.size(3), inputs, outputs, transformed.const_data_ptr<scalar_t>()};
        const int64_t tiles = convolve.tiles(), pixels = x.size(2) * x.size(3);
        // Enough at a time to keep every thread busy.
        const int64_t share = (x.size(0) * tiles + at::get_num_threads() - 1) / at::get_num_threads();
        const int64_t count = std::clamp<int64_t>((share + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS, TILE_ROWS, CONV_TILES);
        const int64_t blocks = (tiles + count - 1) / count;
        at::parallel_for(0, x.size(0) * blocks, 1, [&](int64_t begin, int64_t end) {
            std::vector<scalar_t> memory(CONV_POINTS * count * (inputs + outputs));
            for (int64_t block = begin; block < end; block++) {
                const int64_t n = block / blocks, first = block % blocks * count;
                convolve(x.const_data_ptr<scalar_t>() + n * pixels * inputs, out.data_ptr<scalar_t>() + n * pixels * outputs,
                         zeros.const_data_ptr<scalar_t>(), memory.data(), count, first, std::min(tiles, first + count));
            }
        });
    });
    return out;
}

}  // namespace

TORCH_LIBRARY(multi_pose, m) {
    m.def("grid_lookup(Tensor table, Tensor points, int[] axes) -> Tensor", grid_lookup_cpu);
    m.def("grid_lookup_grad_table(Tensor grad, Tensor points, int[] table_shape, int[] axes) -> Tensor", grid_lookup_grad_table_cpu);
    m.def("grid_lookup_grad_points(Tensor grad, Tensor table, Tensor points, int[] axes) -> Tensor", grid_lookup_grad_points_cpu);
    m.def("composite(Tensor weights, Tensor features, Tensor order) -> Tensor", composite_cpu);
    m.def("composite_grad(Tensor grad, Tensor weights, Tensor features, Tensor order) -> (Tensor, Tensor)", composite_grad_cpu);
    m.def(
        "bias_act(Tensor x, Tensor? scale, Tensor? noise, Tensor? bias, float slope, float gain, float clamp, bool last) -> Tensor",
        bias_act_cpu);
    m.def(
        "bias_act_grad(Tensor grad, Tensor x, Tensor? scale, Tensor? noise, Tensor? bias, float slope, float gain, float clamp, "
        "bool last) -> (Tensor, Tensor, Tensor, Tensor)",
        bias_act_grad_cpu);
    m.def(
        "upfirdn2d(Tensor x, Tensor taps, int up_x, int up_y, int down_x, int down_y, int left, int right, int top, int bottom) "
        "-> Tensor",
        upfirdn2d_cpu);
    m.def("conv3x3(Tensor x, Tensor kernels) -> Tensor", conv3x3_cpu);
    m.def("softplus_mlp(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2) -> Tensor", softplus_mlp_cpu);
    m.def(
        "softplus_mlp_grad(Tensor grad, Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        softplus_mlp_grad_cpu);
}
