// Instantiates the kernels for all types that the bindings use.

// PyTorch's builder disables the conversions of half-precision numbers, but these kernels use them.
#undef __CUDA_NO_HALF_CONVERSIONS__
#undef __CUDA_NO_BFLOAT16_CONVERSIONS__

#include "bias_act.cuh"
#include "composite.cuh"
#include "grid_lookup.cuh"
#include "grid_mlp.cuh"
#include "upfirdn2d.cuh"

namespace multi_pose::cuda {

#define PICTURE_OPS(T)                                                                                                \
    template cudaError_t bias_act<T>(const BiasAct<T>&, const T*, T*, cudaStream_t);                                  \
    template BiasActParts bias_act_parts<T>(const BiasAct<T>&, const T*, const T*, const T*);                         \
    template cudaError_t bias_act_grad<T>(const BiasAct<T>&, const T*, const T*, T*, sum_t<T>*, sum_t<T>*, sum_t<T>*, \
                                          cudaStream_t);                                                              \
    template cudaError_t upfirdn2d<T>(const Resampling&, const T*, const T*, T*, cudaStream_t);

#define RAY_OPS(T)                                                                                                             \
    template cudaError_t grid_lookup<T>(const Grids&, const T*, const T*, T*, cudaStream_t);                                   \
    template cudaError_t grid_lookup_grad_table<T>(const Grids&, const T*, const T*, T*, cudaStream_t);                        \
    template cudaError_t grid_lookup_grad_table_fixed<T>(const Grids&, const T*, const T*, const double*, unsigned long long*, \
                                                         cudaStream_t);                                                        \
    template cudaError_t grid_lookup_grad_points<T>(const Grids&, const T*, const T*, const T*, T*, cudaStream_t);             \
    template cudaError_t composite<T>(const T*, const T*, const int64_t*, T*, int64_t, int, int, cudaStream_t);                \
    template cudaError_t composite_grad<T>(const T*, const T*, const T*, const int64_t*, T*, T*, int64_t, int, int,            \
                                           cudaStream_t);

PICTURE_OPS(float)
PICTURE_OPS(double)
PICTURE_OPS(__half)
PICTURE_OPS(__nv_bfloat16)
RAY_OPS(float)
RAY_OPS(double)

}  // namespace multi_pose::cuda
