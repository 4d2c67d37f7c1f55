// CUDA for a C++ compiler: kernels run on the CPU, block by block, so that their arithmetic can be tested where there is no
// GPU.
//
// The threads of a block are fibers of one system thread.  Each runs until it waits for others, at a barrier or an exchange
// among lanes, and then the next one runs: a barrier that is missing gives wrong numbers every time, in one of the two orders
// that the fibers can be taken in (the environment variable FIBERS_BACKWARDS chooses); one that not all threads reach ends the
// program. Shared memory is filled with NaN before each block.  Neither races among atomics nor speed can be seen here.
#pragma once

#include <math.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("shared_memory")))
#define __restrict__ __restrict
#define __CUDA_ARCH__ 900

// The linker's names of where the section begins and ends; weak, for programs without shared memory.
extern "C" char __start_shared_memory[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_shared_memory[] __attribute__((weak, visibility("hidden")));

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    cudaStream_t stream;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

inline dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace fibers {

constexpr size_t STACK = 1 << 17;
constexpr unsigned WARP = 32;
enum State { READY, AT_BARRIER, AT_EXCHANGE, DONE };

struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(STACK);
    State state = DONE;
    double slots[2];  // what is exchanged among lanes, in turns: nobody is two turns ahead
    unsigned turn = 0;
};

inline std::vector<Fiber> all;
inline ucontext_t scheduler;
inline std::function<void()> body;

inline void run_body() {
    body();
    all[threadIdx.x].state = DONE;
    swapcontext(&all[threadIdx.x].context, &scheduler);
}

inline void wait(State state) {
    const unsigned self = threadIdx.x;
    all[self].state = state;
    swapcontext(&all[self].context, &scheduler);
}

// Let those go on that wait for nobody; whether there are any.
inline bool release(unsigned threads) {
    const auto all_are = [&](unsigned first, unsigned count, State state) {
        return std::all_of(all.begin() + first, all.begin() + first + count, [&](const Fiber& f) { return f.state == state; });
    };
    const auto release_range = [&](unsigned first, unsigned count, State state) {
        if (!all_are(first, count, state)) return false;
        for (unsigned i = first; i < first + count; i++) all[i].state = READY;
        return true;
    };
    bool released = release_range(0, threads, AT_BARRIER);
    for (unsigned first = 0; first + WARP <= threads; first += WARP) released |= release_range(first, WARP, AT_EXCHANGE);
    if (!released && !all_are(0, threads, DONE)) {
        fprintf(stderr, "a barrier or an exchange that not all threads reach\n");
        abort();
    }
    return released;
}

inline void run_block(unsigned threads) {
    const bool backwards = getenv("FIBERS_BACKWARDS");
    if (all.size() < threads) all = std::vector<Fiber>(threads);
    if (__start_shared_memory) memset(__start_shared_memory, 0xff, __stop_shared_memory - __start_shared_memory);
    for (unsigned i = 0; i < threads; i++) {
        Fiber& fiber = all[i];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = STACK;
        makecontext(&fiber.context, run_body, 0);
        fiber.state = READY, fiber.turn = 0;
    }
    do {
        for (unsigned i = 0; i < threads; i++) {
            threadIdx.x = backwards ? threads - 1 - i : i;
            if (all[threadIdx.x].state == READY) swapcontext(&scheduler, &all[threadIdx.x].context);
        }
    } while (release(threads));
}

// What lane `lane` of this thread's warp has for `value`.
template <typename T>
T exchange(T value, unsigned lane) {
    const unsigned self = threadIdx.x, slot = all[self].turn++ % 2;
    all[self].slots[slot] = value;
    wait(AT_EXCHANGE);
    return T(all[self / WARP * WARP + lane].slots[slot]);
}

}  // namespace fibers

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... arguments) {
    gridDim = config->gridDim, blockDim = config->blockDim;
    fibers::body = [&] { kernel(arguments...); };
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++) fibers::run_block(blockDim.x);
    return cudaSuccess;
}

enum { cudaDevAttrMultiProcessorCount };
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) { return *value = 2, cudaSuccess; }

inline void __syncthreads() { fibers::wait(fibers::AT_BARRIER); }
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    return fibers::exchange(value, threadIdx.x % fibers::WARP ^ mask);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, unsigned by) {
    const unsigned lane = threadIdx.x % fibers::WARP;
    return fibers::exchange(value, lane < by ? lane : lane - by);
}
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
    return fibers::exchange(value, lane);
}

template <typename T>
void atomicAdd(T* to, T value) {
    *to += value;
}
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline void atomicAdd(float4* to, float4 v) { to->x += v.x, to->y += v.y, to->z += v.z, to->w += v.w; }

inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline long long __double2ll_rn(double x) { return std::isnan(x) ? 0 : llrint(x); }
using std::min;
