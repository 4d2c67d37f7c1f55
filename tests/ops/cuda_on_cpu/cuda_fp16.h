// IEEE half precision of the compiler under CUDA's name.
#pragma once

struct __half {
    _Float16 value;
    __half() = default;
    __half(float x) : value(x) {}
    operator float() const { return float(value); }
};
