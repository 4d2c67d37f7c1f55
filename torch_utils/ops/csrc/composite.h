// Compositing along rays: each interval has a weight, and as its feature the mean of its two samples.  Torch-free.
//
// weights [rays, samples - 1]; features [rays, samples, channels] in any order along the ray: order[k] is the index of the k-th
// sample by depth.  C is the number of channels if it is known at compile time, else 0.
#pragma once

#include <cstdint>

namespace multi_pose {

// The weight of the k-th sample: half the weights of the intervals on both sides.
template <typename T>
T sample_weight(const T* weights, int64_t samples, int64_t k) {
    return T(0.5) * ((k > 0 ? weights[k - 1] : T(0)) + (k < samples - 1 ? weights[k] : T(0)));
}

// Compute out [channels] for one ray.
template <typename T, int C>
void composite(const T* weights, const T* features, const int64_t* order, T* out, int64_t samples, int64_t channels) {
    if (C) channels = C;
    for (int64_t c = 0; c < channels; c++) out[c] = 0;
    for (int64_t k = 0; k < samples; k++) {
        const T weight = sample_weight(weights, samples, k);
        const T* from = features + order[k] * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) out[c] += weight * from[c];
    }
}

// Compute the gradients for one ray from grad [channels].
template <typename T, int C>
void composite_grad(const T* grad, const T* weights, const T* features, const int64_t* order, T* grad_weights, T* grad_features,
                    int64_t samples, int64_t channels) {
    if (C) channels = C;
    for (int64_t k = 0; k < samples - 1; k++) grad_weights[k] = 0;
    for (int64_t k = 0; k < samples; k++) {
        const T weight = sample_weight(weights, samples, k);
        const T* from = features + order[k] * channels;
        T* to = grad_features + order[k] * channels;
        T dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t c = 0; c < channels; c++) {
            to[c] = weight * grad[c];
            dot += from[c] * grad[c];
        }
        if (k > 0) grad_weights[k - 1] += T(0.5) * dot;
        if (k < samples - 1) grad_weights[k] += T(0.5) * dot;
    }
}

}  // namespace multi_pose
