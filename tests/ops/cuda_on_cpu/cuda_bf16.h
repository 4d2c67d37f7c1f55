// The upper half of a float under CUDA's name, rounded to nearest even.
#pragma once

#include <cstdint>
#include <cstring>

struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float x) {
        uint32_t word;
        memcpy(&word, &x, sizeof(word));
        bits = x == x ? (word + 0x7fff + (word >> 16 & 1)) >> 16 : 0x7fc0;
    }
    operator float() const {
        const uint32_t word = uint32_t(bits) << 16;
        float x;
        memcpy(&x, &word, sizeof(x));
        return x;
    }
};
