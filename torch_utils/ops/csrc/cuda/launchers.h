// The interface of the CUDA kernels: raw pointers to device memory, sizes and a stream.  Torch-free.
//
// The C++ functions of the same names say what is computed.  No function waits for the device; each returns the launch status.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace multi_pose::cuda {

// The type in which sums and products of T are computed.
template <typename T>
struct Sum {
    using type = float;
};
template <>
struct Sum<double> {
    using type = double;
};
template <typename T>
using sum_t = typename Sum<T>::type;

// Bias and activation: float, double, __half, __nv_bfloat16

// Pictures are [samples, pixels, channels] (`last`) or [samples, channels, pixels], with fewer than 2^31 elements each.
template <typename T>
struct BiasAct {
    const T *scale, *noise, *bias;  // [samples, channels], [samples or 1, pixels], [channels]; each may be null
    sum_t<T> slope, gain, clamp;
    int64_t samples, noise_samples;
    int channels, pixels;
    bool last;
};

// Sums over pixels and over channels are stored in parts whose size and order do not depend on the device.
struct BiasActParts {
    int of_pixels, of_channels;
};
template <typename T>
BiasActParts bias_act_parts(const BiasAct<T>& op, const T* grad, const T* x, const T* grad_x);

template <typename T>
cudaError_t bias_act(const BiasAct<T>& op, const T* x, T* out, cudaStream_t stream);

// grad_scale and grad_bias [samples, of_pixels, channels], grad_noise [samples, of_channels, pixels]; each may be null.
template <typename T>
cudaError_t bias_act_grad(const BiasAct<T>& op, const T* grad, const T* x, T* grad_x, sum_t<T>* grad_scale, sum_t<T>* grad_bias,
                          sum_t<T>* grad_noise, cudaStream_t stream);

// Resampling: float, double, __half, __nv_bfloat16

// Pictures are [height, width, channels], with fewer than 2^31 elements each before and after.
struct Resampling {
    int up_x, up_y, down_x, down_y;
    int pad_x, pad_y;  // left and top
    int taps_x, taps_y;
    int height, width, channels, out_height, out_width;
    int64_t samples;
};

template <typename T>
cudaError_t upfirdn2d(const Resampling& s, const T* x, const T* taps, T* out, cudaStream_t stream);

// Lookup in feature grids: float, double

constexpr int MOST_GRIDS = 8;

struct Grids {
    int64_t samples;
    int grids, depth, height, width, channels;  // a grid has fewer than 2^31 elements
    int points;                                 // of a sample
    int axes[3 * MOST_GRIDS];                   // axes[3 g + k]: the coordinate along width, height, depth of grid g
};

template <typename T>
cudaError_t grid_lookup(const Grids& shape, const T* table, const T* points, T* out, cudaStream_t stream);

// Adds to grad_table, in any order of the points.
template <typename T>
cudaError_t grid_lookup_grad_table(const Grids& shape, const T* grad, const T* points, T* grad_table, cudaStream_t stream);

// Adds the gradient times *unit (in device memory), rounded, to integers, whose sum is the same in any order.
template <typename T>
cudaError_t grid_lookup_grad_table_fixed(const Grids& shape, const T* grad, const T* points, const double* unit,
                                         unsigned long long* grad_table, cudaStream_t stream);

template <typename T>
cudaError_t grid_lookup_grad_points(const Grids& shape, const T* grad, const T* table, const T* points, T* grad_points,
                                    cudaStream_t stream);

// Lookup and decoder fused: float, GRID_MLP_INPUTS channels, hidden features as below, 1 or GRID_MLP_OUTPUTS outputs

constexpr int GRID_MLP_INPUTS = 32, GRID_MLP_HIDDEN = 64, GRID_MLP_OUTPUTS = 33;

struct MlpWeights {
    const float *w1, *b1, *w2, *b2;  // [hidden, inputs], [hidden], [outputs, hidden], [outputs]
    int outputs;
};

cudaError_t grid_mlp(const Grids& shape, const float* table, const float* points, const MlpWeights& net, float* out,
                     cudaStream_t stream);

// Compositing along rays: float, double

template <typename T>
cudaError_t composite(const T* weights, const T* features, const int64_t* order, T* out, int64_t rays, int samples,
                      int channels, cudaStream_t stream);

template <typename T>
cudaError_t composite_grad(const T* grad, const T* weights, const T* features, const int64_t* order, T* grad_weights,
                           T* grad_features, int64_t rays, int samples, int channels, cudaStream_t stream);

}  // namespace multi_pose::cuda
