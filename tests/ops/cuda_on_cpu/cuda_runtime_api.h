// The types of CUDA's run-time library that launchers have in their signatures; see cuda_runtime.h.
#pragma once

typedef int cudaError_t;
typedef void* cudaStream_t;
constexpr cudaError_t cudaSuccess = 0;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "unknown"; }
