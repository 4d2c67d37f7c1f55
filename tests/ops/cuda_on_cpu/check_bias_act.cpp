// bias_act of the CUDA kernels and its gradients against plain loops; the exit status is 1 where they differ.
#include <cstdio>
#include <vector>

#include "bias_act.cuh"

using namespace multi_pose::cuda;

// Sums of what the gradients' parts hold must be those of the loops.
bool sums_agree(bool last, int channels, int pixels) {
    const int size = channels * pixels;
    std::vector<float> x(size), grad(size), out(size), grad_x(size), bias(channels), noise(pixels);
    for (int i = 0; i < size; i++) x[i] = i % 13 - 6.5f, grad[i] = i % 7 - 2;
    for (int c = 0; c < channels; c++) bias[c] = c % 3;
    for (int p = 0; p < pixels; p++) noise[p] = p % 2;
    const BiasAct<float> op{nullptr, noise.data(), bias.data(), 0.5f, 2.0f, 100.0f, 1, 1, channels, pixels, last};
    const BiasActParts parts = bias_act_parts(op, grad.data(), x.data(), grad_x.data());
    std::vector<float> grad_bias(parts.of_pixels * channels), grad_noise(parts.of_channels * pixels);
    bias_act(op, x.data(), out.data(), nullptr);
    bias_act_grad<float>(op, grad.data(), x.data(), grad_x.data(), nullptr, grad_bias.data(), grad_noise.data(), nullptr);
    std::vector<float> by_channel(channels), by_pixel(pixels);
    for (int c = 0; c < channels; c++)
        for (int p = 0; p < pixels; p++) {
            const int i = last ? p * channels + c : c * pixels + p;
            const float v = x[i] + bias[c] + noise[p], factor = v > 0 ? 2.0f : 1.0f;
            if (out[i] != v * factor || grad_x[i] != grad[i] * factor) return false;
            by_channel[c] += grad[i] * factor, by_pixel[p] += grad[i] * factor;
        }
    for (int i = 0; i < int(grad_bias.size()); i++) by_channel[i % channels] -= grad_bias[i];
    for (int i = 0; i < int(grad_noise.size()); i++) by_pixel[i % pixels] -= grad_noise[i];
    for (float left : by_channel)
        if (!(left == 0)) return false;  // whole numbers: no rounding; NaN differs
    for (float left : by_pixel)
        if (!(left == 0)) return false;
    return true;
}

int main() {
    for (bool last : {false, true})
        if (!sums_agree(last, 70, 300) || !sums_agree(last, 6, 35)) return puts("bias_act differs"), 1;
    return 0;
}
