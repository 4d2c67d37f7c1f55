// Up-sample, pad, filter and down-sample one picture [height, width, channels].  Torch-free.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace multi_pose {

struct Resampling {
    int64_t up_x, up_y, down_x, down_y;
    int64_t pad_x, pad_y;  // left and top
    int64_t taps_x, taps_y;
    int64_t height, width, channels, out_height, out_width;
};

// The taps that fall on input pixels for one output position on an axis: every up-th from `first` up to `end` (exclusive), and
// the input pixel of the first one.
struct Taps {
    int64_t first, end, pixel;
    Taps(int64_t place, int64_t up, int64_t down, int64_t pad, int64_t taps, int64_t size) {
        const int64_t start = place * down - pad;  // of the filter, in up-sampled pixels
        first = start <= 0 ? -start : (up - start % up) % up;
        pixel = (start + first) / up;
        end = std::min(taps, size * up - start);
    }
};

// COUNT channels of one output pixel, a constant so that the sums stay in registers, or `count` of them if it is 0.
template <typename T, int COUNT>
void upfirdn2d_pixel(const T* x, const T* taps, T* out, const Resampling& s, const Taps& xs, const Taps& ys, int64_t count) {
    constexpr int64_t MOST = 64;
    T sums[COUNT ? COUNT : MOST] = {};
    if (COUNT) count = COUNT;
    int64_t y = ys.pixel;
    for (int64_t j = ys.first; j < ys.end; j += s.up_y, y++) {
        const T* from = x + (y * s.width + xs.pixel) * s.channels;
        for (int64_t i = xs.first; i < xs.end; i += s.up_x, from += s.channels) {
            const T tap = taps[j * s.taps_x + i];
#pragma GCC unroll 8
            for (int64_t k = 0; k < (COUNT ? COUNT : count); k++) sums[k] += tap * from[k];
        }
    }
    for (int64_t k = 0; k < count; k++) out[k] = sums[k];
}

// Compute row number `row` of out, channels last; taps [taps_y, taps_x] in the order of a correlation.
template <typename T>
void upfirdn2d_row(const T* x, const T* taps, T* out, const Resampling& s, int64_t row) {
    const Taps ys(row, s.up_y, s.down_y, s.pad_y, s.taps_y, s.height);
    for (int64_t column = 0; column < s.out_width; column++) {
        const Taps xs(column, s.up_x, s.down_x, s.pad_x, s.taps_x, s.width);
        T* to = out + (row * s.out_width + column) * s.channels;
        for (int64_t c = 0; c < s.channels;) {
            const int64_t left = s.channels - c;
            const int64_t count = left >= 64 ? 64 : left >= 32 ? 32 : left >= 16 ? 16 : left;
            if (count == 64)
                upfirdn2d_pixel<T, 64>(x + c, taps, to + c, s, xs, ys, count);
            else if (count == 32)
                upfirdn2d_pixel<T, 32>(x + c, taps, to + c, s, xs, ys, count);
            else if (count == 16)
                upfirdn2d_pixel<T, 16>(x + c, taps, to + c, s, xs, ys, count);
            else
                upfirdn2d_pixel<T, 0>(x + c, taps, to + c, s, xs, ys, count);
            c += count;
        }
    }
}

// Compute row number `row` of out [out_height, out_width] from one channel x [height, width].
template <typename T>
void upfirdn2d_plane_row(const T* x, const T* taps, T* out, const Resampling& s, int64_t row) {
    const Taps ys(row, s.up_y, s.down_y, s.pad_y, s.taps_y, s.height);
    // A tap contributes to every `stride`-th pixel of out, from every `step`-th pixel of x.
    const int64_t common = std::gcd(s.up_x, s.down_x), stride = s.up_x / common, step = s.down_x / common;
    T* to = out + row * s.out_width;
    std::fill(to, to + s.out_width, T(0));
    int64_t y = ys.pixel;
    for (int64_t j = ys.first; j < ys.end; j += s.up_y, y++) {
        for (int64_t i = 0; i < s.taps_x; i++) {
            int64_t column = 0;
            while (column < stride && (column * s.down_x + i - s.pad_x) % s.up_x) column++;
            if (column == stride) continue;
            int64_t pixel = (column * s.down_x + i - s.pad_x) / s.up_x;
            const int64_t skipped = pixel < 0 ? (-pixel + step - 1) / step : 0;
            column += skipped * stride, pixel += skipped * step;
            if (column >= s.out_width || pixel >= s.width) continue;
            const int64_t count = std::min((s.out_width - 1 - column) / stride, (s.width - 1 - pixel) / step) + 1;
            const T tap = taps[j * s.taps_x + i];
            const T* from = x + y * s.width + pixel;
            T* at = to + column;
            if (stride == 1 && step == 1)
#pragma omp simd
                for (int64_t k = 0; k < count; k++) at[k] += tap * from[k];
            else
                for (int64_t k = 0; k < count; k++) at[k * stride] += tap * from[k * step];
        }
    }
}

}  // namespace multi_pose
