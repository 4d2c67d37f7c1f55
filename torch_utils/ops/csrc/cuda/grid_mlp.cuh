// Lookup in feature grids and two layers with a softplus between them, fused: intermediate values stay on the chip.
// Torch-free.
//
// Blocks are persistent: each processes one tile of points after the other, with the weights in shared memory.  The features of
// a tile are gathered as in grid_lookup; then each thread processes MLP_POINTS points in registers.
#pragma once

#include "grid_lookup.cuh"

namespace multi_pose::cuda {

constexpr int MLP_THREADS = 128;
constexpr int MLP_POINTS = 2;  // per thread; weights are read once for these
constexpr int MLP_TILE = MLP_THREADS * MLP_POINTS;
constexpr int MLP_BLOCKS = 2;  // per multiprocessor; with three, registers would spill

template <int OUTPUTS>
struct MlpShared {
    static constexpr int PADDED = (OUTPUTS + 3) / 4 * 4;
    float4 w1[GRID_MLP_INPUTS][GRID_MLP_HIDDEN / 4];  // transposed, like w2
    float4 w2[GRID_MLP_HIDDEN][PADDED / 4];
    float b1[GRID_MLP_HIDDEN], b2[PADDED];
    float tile[MLP_THREADS * GRID_MLP_OUTPUTS];  // rows of features, then of outputs; an odd width avoids bank conflicts

    __device__ void load_weights(const MlpWeights& net) {
        float *to1 = &w1[0][0].x, *to2 = &w2[0][0].x;
        for (int i = threadIdx.x; i < GRID_MLP_INPUTS * GRID_MLP_HIDDEN; i += MLP_THREADS)
            to1[i] = net.w1[i % GRID_MLP_HIDDEN * GRID_MLP_INPUTS + i / GRID_MLP_HIDDEN];
        for (int i = threadIdx.x; i < GRID_MLP_HIDDEN * PADDED; i += MLP_THREADS)
            to2[i] = i % PADDED < OUTPUTS ? net.w2[i % PADDED * GRID_MLP_HIDDEN + i / PADDED] : 0.0f;
        for (int i = threadIdx.x; i < GRID_MLP_HIDDEN; i += MLP_THREADS) b1[i] = net.b1[i];
        for (int i = threadIdx.x; i < PADDED; i += MLP_THREADS) b2[i] = i < OUTPUTS ? net.b2[i] : 0.0f;
    }
};

__device__ inline float softplus(float x) {
    return (x > 0 ? x : 0.0f) + __logf(1 + __expf(-fabsf(x)));  // the argument of the logarithm is in [1, 2]: accurate to 4e-7
}

__device__ inline void add_product(float* sums, float factor, const float4& w) {
    sums[0] += factor * w.x, sums[1] += factor * w.y, sums[2] += factor * w.z, sums[3] += factor * w.w;
}

template <int OUTPUTS>
__global__ void __launch_bounds__(MLP_THREADS, MLP_BLOCKS)
    grid_mlp_kernel(const __grid_constant__ Grids s, const float* table, const float* points, MlpWeights net, float* out) {
    __shared__ MlpShared<OUTPUTS> shared;
    constexpr int WIDTH = GRID_MLP_INPUTS + 1, PADDED = MlpShared<OUTPUTS>::PADDED;
    shared.load_weights(net);
    const int64_t tiles = (s.points + MLP_TILE - 1) / MLP_TILE;  // per sample
    for (int64_t task = blockIdx.x; task < s.samples * tiles; task += gridDim.x) {
        const int64_t sample = task / tiles, first = sample * s.points + task % tiles * MLP_TILE;
        const int left = s.points - int(task % tiles) * MLP_TILE;
        float x[MLP_POINTS][GRID_MLP_INPUTS];
#pragma unroll
        for (int r = 0; r < MLP_POINTS; r++) {
            __syncthreads();  // the tile is free now and, in the first round, the weights are loaded
            for (int q = threadIdx.x / POINT_LANES; q < MLP_THREADS; q += MLP_THREADS / POINT_LANES) {
                const int point = r * MLP_THREADS + q, c = threadIdx.x % POINT_LANES * 4;
                if (point >= left) continue;
                const Vector<float, 4> found = features_of<4>(s, table, sample, points + 3 * (first + point), c);
#pragma unroll
                for (int v = 0; v < 4; v++) shared.tile[q * WIDTH + c + v] = found.at[v];
            }
            __syncthreads();
#pragma unroll
            for (int i = 0; i < GRID_MLP_INPUTS; i++) x[r][i] = shared.tile[threadIdx.x * WIDTH + i];
        }
        float result[MLP_POINTS][PADDED];
#pragma unroll
        for (int r = 0; r < MLP_POINTS; r++)
#pragma unroll
            for (int o = 0; o < PADDED; o++) result[r][o] = shared.b2[o];
#pragma unroll 1
        for (int j = 0; j < GRID_MLP_HIDDEN; j += 4) {
            float hidden[MLP_POINTS][4];
#pragma unroll
            for (int r = 0; r < MLP_POINTS; r++)
#pragma unroll
                for (int k = 0; k < 4; k++) hidden[r][k] = shared.b1[j + k];
#pragma unroll
            for (int i = 0; i < GRID_MLP_INPUTS; i++) {
                const float4 w = shared.w1[i][j / 4];
#pragma unroll
                for (int r = 0; r < MLP_POINTS; r++) add_product(hidden[r], x[r][i], w);
            }
#pragma unroll
            for (int k = 0; k < 4; k++) {
#pragma unroll
                for (int r = 0; r < MLP_POINTS; r++) hidden[r][k] = softplus(hidden[r][k]);
#pragma unroll
                for (int o = 0; o < PADDED; o += 4) {
                    const float4 w = shared.w2[j + k][o / 4];
#pragma unroll
                    for (int r = 0; r < MLP_POINTS; r++) add_product(result[r] + o, hidden[r][k], w);
                }
            }
        }
#pragma unroll
        for (int r = 0; r < MLP_POINTS; r++) {
            __syncthreads();
#pragma unroll
            for (int o = 0; o < OUTPUTS; o++) shared.tile[threadIdx.x * OUTPUTS + o] = result[r][o];
            __syncthreads();
            const int here = min(left - r * MLP_THREADS, MLP_THREADS) * OUTPUTS;
            for (int i = threadIdx.x; i < here; i += MLP_THREADS) out[(first + r * MLP_THREADS) * OUTPUTS + i] = shared.tile[i];
        }
    }
}

cudaError_t grid_mlp(const Grids& s, const float* table, const float* points, const MlpWeights& net, float* out,
                     cudaStream_t stream) {
    int device = 0, processors = 0;
    cudaError_t status = cudaGetDevice(&device);
    if (status == cudaSuccess) status = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (status != cudaSuccess) return status;
    const auto kernel = net.outputs == 1 ? grid_mlp_kernel<1> : grid_mlp_kernel<GRID_MLP_OUTPUTS>;
    const int64_t tiles = s.samples * ceil_div(s.points, MLP_TILE);
    return launch(kernel, dim3(std::min<int64_t>(tiles, processors * MLP_BLOCKS)), MLP_THREADS, stream, s, table, points, net,
                  out);
}

}  // namespace multi_pose::cuda
