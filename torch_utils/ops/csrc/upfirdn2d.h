// Up-sample, pad, filter and down-sample one picture [height, width, channels].  Torch-free.
#pragma once

#include <algorithm>
#include <cstdint>

namespace multi_pose {

struct Resampling {
    int64_t up_x, up_y, down_x, down_y;
    int64_t pad_x, pad_y;  // on the left and on top
    int64_t taps_x, taps_y;
    int64_t height, width, channels, out_height, out_width;
};

// The taps that meet a pixel of the input for one output place on an axis: every up-th from `first` to before `end`, and the
// input pixel that the first one meets.
struct Taps {
    int64_t first, end, pixel;
    Taps(int64_t place, int64_t up, int64_t down, int64_t pad, int64_t taps, int64_t size) {
        const int64_t start = place * down - pad;  // of the filter, in up-sampled pixels
        first = start <= 0 ? -start : (up - start % up) % up;
        pixel = (start + first) / up;
        end = std::min(taps, size * up - start);
    }
};

// Row number `row` of out; taps [taps_y, taps_x] in the order of a correlation.
template <typename T>
void upfirdn2d_row(const T* x, const T* taps, T* out, const Resampling& s, int64_t row) {
    constexpr int64_t BLOCK = 64;  // channels summed at a time
    const Taps ys(row, s.up_y, s.down_y, s.pad_y, s.taps_y, s.height);
    for (int64_t column = 0; column < s.out_width; column++) {
        const Taps xs(column, s.up_x, s.down_x, s.pad_x, s.taps_x, s.width);
        T* to = out + (row * s.out_width + column) * s.channels;
        for (int64_t c = 0; c < s.channels; c += BLOCK) {
            const int64_t count = std::min(BLOCK, s.channels - c);
            T sums[BLOCK] = {};
            const auto add = [&](int64_t size) {
                int64_t y = ys.pixel;
                for (int64_t j = ys.first; j < ys.end; j += s.up_y, y++) {
                    int64_t i = xs.first;
                    const T* from = x + (y * s.width + xs.pixel) * s.channels + c;
                    for (; i < xs.end; i += s.up_x, from += s.channels) {
                        const T tap = taps[j * s.taps_x + i];
#pragma omp simd
                        for (int64_t k = 0; k < size; k++) sums[k] += tap * from[k];
                    }
                }
            };
            if (count == BLOCK)
                add(BLOCK);  // a constant: the sums stay in registers
            else if (count == 32)
                add(32);
            else if (count == 16)
                add(16);
            else
                add(count);
            for (int64_t k = 0; k < count; k++) to[c + k] = sums[k];
        }
    }
}

}  // namespace multi_pose
