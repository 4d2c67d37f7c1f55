// Registers the compiled CUDA ops as torch.ops.multi_pose_cuda, with the signatures of the CPU ops.  Checks, memory and streams
// are here; the arithmetic is in the kernels.
#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "launchers.h"

namespace {

using at::IntArrayRef;
using at::Tensor;
using namespace multi_pose::cuda;
using Optional = std::optional<Tensor>;

// The types that the kernels use for PyTorch's types.
template <typename T>
struct Native {
    using type = T;
};
template <>
struct Native<at::Half> {
    using type = __half;
};
template <>
struct Native<at::BFloat16> {
    using type = __nv_bfloat16;
};

template <typename T>
const T* input(const Tensor& tensor) {
    return static_cast<const T*>(tensor.const_data_ptr());
}
template <typename T>
const T* input(const Optional& tensor) {
    return tensor ? input<T>(*tensor) : nullptr;
}
template <typename T>
T* output(const Tensor& tensor) {  // null for an empty tensor
    return static_cast<T*>(tensor.mutable_data_ptr());
}

void check(cudaError_t status) {
    if (status != cudaSuccess) cudaGetLastError();  // clears the error, so that nobody else mistakes it for their own
    TORCH_CHECK(status == cudaSuccess, "CUDA: ", cudaGetErrorString(status));
}

// The current stream of a tensor's device.  Makes that device the current one during its lifetime.
struct Stream {
    c10::cuda::CUDAGuard guard;
    cudaStream_t stream;

    explicit Stream(const Tensor& tensor) : guard(tensor.device()), stream(c10::cuda::getCurrentCUDAStream().stream()) {}
    operator cudaStream_t() const { return stream; }
};

int small(int64_t value) {
    TORCH_CHECK(value >= INT32_MIN && value <= INT32_MAX, "sizes beyond 32 bits");
    return int(value);
}

#define DISPATCH_HALVES(...) AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, __VA_ARGS__)

// Bias and activation

at::ScalarType sum_type(const Tensor& x) { return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

template <typename T>
BiasAct<T> bias_act_of(const Tensor& x, const Optional& scale, const Optional& noise, const Optional& bias, double slope,
                       double gain, double clamp, bool last) {
    int64_t samples = x.size(0), channels = x.size(1), pixels = x.numel() ? x.numel() / samples / channels : 0;
    if (last && !scale && !noise && x.numel() <= INT32_MAX / 2) pixels *= samples, samples = 1;  // treat all samples as one
    small(channels * pixels);
    for (const Optional& tensor : {scale, noise, bias}) TORCH_CHECK(!tensor || tensor->is_contiguous(), "contiguous operands");
    const int64_t noise_samples = noise && pixels ? noise->numel() / pixels : 1;
    return {input<T>(scale),
            input<T>(noise),
            input<T>(bias),
            sum_t<T>(slope),
            sum_t<T>(gain),
            sum_t<T>(clamp),
            samples,
            noise_samples,
            int(channels),
            int(pixels),
            last};
}

Tensor bias_act_cuda(const Tensor& x, const Optional& scale, const Optional& noise, const Optional& bias, double slope,
                     double gain, double clamp, bool last) {
    Tensor out = at::empty_like(x);
    if (x.numel() == 0) return out;
    const Stream stream(x);
    DISPATCH_HALVES(x.scalar_type(), "bias_act", [&] {
        using T = typename Native<scalar_t>::type;
        check(bias_act(bias_act_of<T>(x, scale, noise, bias, slope, gain, clamp, last), input<T>(x), output<T>(out), stream));
    });
    return out;
}

// Gradients of x, scale, noise [samples, pixels] and bias.  The tensors are empty for operands that are not given.
std::tuple<Tensor, Tensor, Tensor, Tensor> bias_act_grad_cuda(const Tensor& grad, const Tensor& x, const Optional& scale,
                                                              const Optional& noise, const Optional& bias, double slope,
                                                              double gain, double clamp, bool last) {
    Tensor grad_x = at::empty_like(x), grad_scale, grad_noise, grad_bias;
    const Stream stream(x);
    const auto sums = x.options().dtype(sum_type(x));
    DISPATCH_HALVES(x.scalar_type(), "bias_act_grad", [&] {
        using T = typename Native<scalar_t>::type;
        const BiasAct<T> op = bias_act_of<T>(x, scale, noise, bias, slope, gain, clamp, last);
        const BiasActParts parts = bias_act_parts(op, input<T>(grad), input<T>(x), output<T>(grad_x));
        grad_scale = at::empty({scale ? op.samples : 0, parts.of_pixels, op.channels}, sums);
        grad_bias = at::empty({bias ? op.samples : 0, parts.of_pixels, op.channels}, sums);
        grad_noise = at::empty({noise ? op.samples : 0, parts.of_channels, op.pixels}, sums);
        if (x.numel())
            check(bias_act_grad(op, input<T>(grad), input<T>(x), output<T>(grad_x), output<sum_t<T>>(grad_scale),
                                output<sum_t<T>>(grad_bias), output<sum_t<T>>(grad_noise), stream));
    });
    const auto dtype = x.scalar_type();
    return {grad_x, grad_scale.sum(1).to(dtype), grad_noise.sum(1).to(dtype), grad_bias.sum(IntArrayRef({0, 1})).to(dtype)};
}

// Resampling: taps [taps_y, taps_x] are in the order of a correlation, pads are left, right, top, bottom

Tensor upfirdn2d_cuda(const Tensor& x, const Tensor& taps, int64_t up_x, int64_t up_y, int64_t down_x, int64_t down_y,
                      int64_t left, int64_t right, int64_t top, int64_t bottom) {
    const bool last = !x.is_contiguous();
    const auto format = last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
    TORCH_CHECK(x.dim() == 4 && x.is_contiguous(format), "x must be [N, C, H, W], contiguous or channels last");
    TORCH_CHECK(taps.dim() == 2 && taps.is_contiguous() && taps.scalar_type() == x.scalar_type(),
                "taps must be contiguous, [h, w], of the picture's type");
    const int64_t height = x.size(2), width = x.size(3), channels = x.size(1);
    const int64_t space_x = width * up_x + left + right - taps.size(1), space_y = height * up_y + top + bottom - taps.size(0);
    TORCH_CHECK(space_x >= 0 && space_y >= 0, "the filter is larger than the picture");
    Tensor out = at::empty({x.size(0), channels, space_y / down_y + 1, space_x / down_x + 1}, x.options(), format);
    if (out.numel() == 0) return out;
    // If the tensor is not channels last, each channel is a picture of its own.
    const Resampling s{small(up_x),
                       small(up_y),
                       small(down_x),
                       small(down_y),
                       small(left),
                       small(top),
                       small(taps.size(1)),
                       small(taps.size(0)),
                       small(height),
                       small(width),
                       last ? small(channels) : 1,
                       small(out.size(2)),
                       small(out.size(3)),
                       last ? x.size(0) : x.size(0) * channels};
    small(std::max(x.numel(), out.numel()) / s.samples);
    const Stream stream(x);
    DISPATCH_HALVES(x.scalar_type(), "upfirdn2d", [&] {
        using T = typename Native<scalar_t>::type;
        check(upfirdn2d(s, input<T>(x), input<T>(taps), output<T>(out), stream));
    });
    return out;
}

// Lookup

Grids grids_of(IntArrayRef table, const Tensor& points, IntArrayRef axes) {
    TORCH_CHECK(table.size() == 6, "table must be [N, grids, D, H, W, C]");
    TORCH_CHECK(points.dim() == 3 && points.is_contiguous() && points.size(2) == 3, "points must be contiguous, [N, M, 3]");
    TORCH_CHECK(points.size(0) == table[0], "table and points differ");
    TORCH_CHECK(table[1] <= MOST_GRIDS && int64_t(axes.size()) == 3 * table[1],
                "three axes for each grid, of which there are few");
    small(table[2] * table[3] * table[4] * table[5]);
    Grids s{table[0],        small(table[1]), small(table[2]),       small(table[3]),
            small(table[4]), small(table[5]), small(points.size(1)), {}};
    for (size_t i = 0; i < axes.size(); i++) {
        TORCH_CHECK(axes[i] >= 0 && axes[i] < 3, "axes are 0, 1 and 2");
        s.axes[i] = int(axes[i]);
    }
    return s;
}

Grids grids_of(const Tensor& table, const Tensor& points, IntArrayRef axes) {
    TORCH_CHECK(table.is_contiguous() && table.scalar_type() == points.scalar_type(),
                "table must be contiguous, of points' type");
    return grids_of(table.sizes(), points, axes);
}

void check_gradient(const Tensor& grad, const Grids& s) {
    TORCH_CHECK(grad.is_contiguous() && grad.numel() == s.samples * s.points * s.channels, "gradient of the features");
}

Tensor grid_lookup_cuda(const Tensor& table, const Tensor& points, IntArrayRef axes) {
    const Grids s = grids_of(table, points, axes);
    Tensor out = at::empty({s.samples, s.points, s.channels}, table.options());
    const Stream stream(table);
    AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "grid_lookup", [&] {
        check(grid_lookup(s, input<scalar_t>(table), input<scalar_t>(points), output<scalar_t>(out), stream));
    });
    return out;
}

// A sum of integers does not depend on the order of its terms.  Their unit is as small as the largest possible sum allows,
// which is all points in one cell.  That keeps at least 30 bits below the largest gradient, usually more than float32 has.
Tensor grad_table_in_any_order(const Grids& s, const Tensor& grad, const Tensor& points, IntArrayRef table) {
    constexpr double MOST = 1ll << 61;
    Tensor counts = at::zeros(table, grad.options().dtype(at::kLong));
    if (grad.numel() == 0) return counts.to(grad.scalar_type());
    // A power of two.  It is NaN if a gradient is not finite, and then so is the result.
    const Tensor largest = grad.abs().amax().to(at::kDouble).clamp_min(1e-200);
    const Tensor unit = largest.reciprocal().mul(MOST / s.points).log2().floor().exp2().add(largest.mul(0));
    const Stream stream(grad);
    AT_DISPATCH_FLOATING_TYPES(grad.scalar_type(), "grid_lookup_grad_table", [&] {
        check(grid_lookup_grad_table_fixed(s, input<scalar_t>(grad), input<scalar_t>(points), input<double>(unit),
                                           output<unsigned long long>(counts), stream));
    });
    return counts.div(unit).to(grad.scalar_type());
}

Tensor grid_lookup_grad_table_cuda(const Tensor& grad, const Tensor& points, IntArrayRef table, IntArrayRef axes) {
    const Grids s = grids_of(table, points, axes);
    check_gradient(grad, s);
    if (at::globalContext().deterministicAlgorithms()) return grad_table_in_any_order(s, grad, points, table);
    Tensor grad_table = at::zeros(table, grad.options());
    const Stream stream(grad);
    AT_DISPATCH_FLOATING_TYPES(grad.scalar_type(), "grid_lookup_grad_table", [&] {
        check(grid_lookup_grad_table(s, input<scalar_t>(grad), input<scalar_t>(points), output<scalar_t>(grad_table), stream));
    });
    return grad_table;
}

Tensor grid_lookup_grad_points_cuda(const Tensor& grad, const Tensor& table, const Tensor& points, IntArrayRef axes) {
    const Grids s = grids_of(table, points, axes);
    check_gradient(grad, s);
    Tensor grad_points = at::empty(points.sizes(), points.options());
    const Stream stream(grad);
    AT_DISPATCH_FLOATING_TYPES(grad.scalar_type(), "grid_lookup_grad_points", [&] {
        check(grid_lookup_grad_points(s, input<scalar_t>(grad), input<scalar_t>(table), input<scalar_t>(points),
                                      output<scalar_t>(grad_points), stream));
    });
    return grad_points;
}

Tensor grid_mlp_cuda(const Tensor& table, const Tensor& points, IntArrayRef axes, const Tensor& w1, const Tensor& b1,
                     const Tensor& w2, const Tensor& b2) {
    const Grids s = grids_of(table, points, axes);
    const int64_t outputs = w2.size(0);
    TORCH_CHECK(table.scalar_type() == at::kFloat && s.channels == GRID_MLP_INPUTS, "32-bit tables of ", GRID_MLP_INPUTS,
                " channels");
    TORCH_CHECK(w1.sizes() == IntArrayRef({GRID_MLP_HIDDEN, GRID_MLP_INPUTS}) && b1.numel() == GRID_MLP_HIDDEN, "first layer");
    TORCH_CHECK(outputs == 1 || outputs == GRID_MLP_OUTPUTS, "1 or ", GRID_MLP_OUTPUTS, " outputs");
    TORCH_CHECK(w2.size(1) == GRID_MLP_HIDDEN && b2.numel() == outputs, "second layer");
    for (const Tensor& weights : {w1, b1, w2, b2})
        TORCH_CHECK(weights.is_contiguous() && weights.scalar_type() == at::kFloat, "contiguous 32-bit weights");
    TORCH_CHECK(reinterpret_cast<uintptr_t>(table.const_data_ptr()) % 16 == 0, "a table that starts at a multiple of 16 bytes");
    Tensor out = at::empty({s.samples, s.points, outputs}, table.options());
    const Stream stream(table);
    const MlpWeights net{input<float>(w1), input<float>(b1), input<float>(w2), input<float>(b2), int(outputs)};
    check(grid_mlp(s, input<float>(table), input<float>(points), net, output<float>(out), stream));
    return out;
}

// Compositing along rays

void check_rays(const Tensor& weights, const Tensor& features, const Tensor& order) {
    TORCH_CHECK(features.dim() == 4 && features.is_contiguous(), "features must be contiguous, [N, R, S, C]");
    const int64_t rays = features.size(0) * features.size(1), samples = features.size(2);
    TORCH_CHECK(samples > 0 && weights.is_contiguous() && weights.numel() == rays * (samples - 1),
                "a weight for each interval");
    TORCH_CHECK(order.is_contiguous() && order.numel() == rays * samples && order.scalar_type() == at::kLong,
                "order of samples");
}

Tensor composite_cuda(const Tensor& weights, const Tensor& features, const Tensor& order) {
    check_rays(weights, features, order);
    Tensor out = at::empty({features.size(0), features.size(1), features.size(3)}, features.options());
    const Stream stream(features);
    AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "composite", [&] {
        check(composite(input<scalar_t>(weights), input<scalar_t>(features), input<int64_t>(order), output<scalar_t>(out),
                        features.size(0) * features.size(1), small(features.size(2)), small(features.size(3)), stream));
    });
    return out;
}

std::tuple<Tensor, Tensor> composite_grad_cuda(const Tensor& grad, const Tensor& weights, const Tensor& features,
                                               const Tensor& order) {
    check_rays(weights, features, order);
    TORCH_CHECK(grad.is_contiguous() && grad.numel() == features.numel() / features.size(2), "gradient of the sums");
    Tensor grad_weights = at::empty_like(weights), grad_features = at::empty_like(features);
    const Stream stream(features);
    AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "composite_grad", [&] {
        check(composite_grad(input<scalar_t>(grad), input<scalar_t>(weights), input<scalar_t>(features), input<int64_t>(order),
                             output<scalar_t>(grad_weights), output<scalar_t>(grad_features),
                             features.size(0) * features.size(1), small(features.size(2)), small(features.size(3)), stream));
    });
    return {grad_weights, grad_features};
}

}  // namespace

TORCH_LIBRARY(multi_pose_cuda, m) {
    m.def("grid_lookup(Tensor table, Tensor points, int[] axes) -> Tensor", grid_lookup_cuda);
    m.def("grid_lookup_grad_table(Tensor grad, Tensor points, int[] table_shape, int[] axes) -> Tensor",
          grid_lookup_grad_table_cuda);
    m.def("grid_lookup_grad_points(Tensor grad, Tensor table, Tensor points, int[] axes) -> Tensor",
          grid_lookup_grad_points_cuda);
    m.def("grid_mlp(Tensor table, Tensor points, int[] axes, Tensor w1, Tensor b1, Tensor w2, Tensor b2) -> Tensor",
          grid_mlp_cuda);
    m.def("composite(Tensor weights, Tensor features, Tensor order) -> Tensor", composite_cuda);
    m.def("composite_grad(Tensor grad, Tensor weights, Tensor features, Tensor order) -> (Tensor, Tensor)",
          composite_grad_cuda);
    m.def(
        "bias_act(Tensor x, Tensor? scale, Tensor? noise, Tensor? bias, float slope, float gain, float clamp, bool last) -> "
        "Tensor",
        bias_act_cuda);
    m.def(
        "bias_act_grad(Tensor grad, Tensor x, Tensor? scale, Tensor? noise, Tensor? bias, float slope, float gain, float "
        "clamp, "
        "bool last) -> (Tensor, Tensor, Tensor, Tensor)",
        bias_act_grad_cuda);
    m.def(
        "upfirdn2d(Tensor x, Tensor taps, int up_x, int up_y, int down_x, int down_y, int left, int right, int top, int "
        "bottom) "
        "-> Tensor",
        upfirdn2d_cuda);
}
