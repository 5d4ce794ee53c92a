/* Layers on channels_last maps, in one pass where torch takes several.
 *
 * A map is rows of channels: (batch * height * width, channels), contiguous, of float or bfloat16
 * (T). Sums are of float over a few rows at a time, added up in double. This file is compiled on
 * the machine it runs on, once; see native.py, which also says what each argument is. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <omp.h>

typedef uint16_t bf16;

static inline float up_f32(float v) { return v; }
static inline float up_bf16(bf16 v) {
    union { uint32_t i; float f; } u = {(uint32_t)v << 16};
    return u.f;
}
static inline float down_f32(float v) { return v; }
static inline bf16 down_bf16(float v) { /* to the nearest, ties to even; NaN stays NaN */
    union { float f; uint32_t i; } u = {v};
    uint32_t rounded = (u.i + 0x7fff + ((u.i >> 16) & 1)) >> 16;
    return v != v ? 0x7fc0 : (bf16)rounded;
}

#define ROWS 64 /* added up in float before they go to double */

#define DEFINE(T, NAME)                                                                            \
/* mean and inverse standard deviation of each channel, then the normalized map */                 \
void norm_forward_##NAME(const T *x, T *y, const float *weight, const float *bias, float *mean,    \
                         float *var, float *invstd, int64_t rows, int64_t C, double eps) {         \
    int threads = omp_get_max_threads();                                                           \
    double *sums = calloc((size_t)threads * 2 * C, sizeof(double));                                \
    float *scale = malloc(3 * (size_t)C * sizeof(float));                                          \
    float *shift = scale + C, *first = scale + 2 * C;                                              \
    /* less something near the mean, or the squares would cancel */                                \
    for (int64_t c = 0; c < C; c++) first[c] = up_##NAME(x[c]);                                    \
    _Pragma("omp parallel")                                                                        \
    {                                                                                              \
        double *mine = sums + (size_t)omp_get_thread_num() * 2 * C;                                \
        float *s = calloc(2 * (size_t)C, sizeof(float)), *q = s + C;                               \
        _Pragma("omp for schedule(static)")                                                        \
        for (int64_t block = 0; block < (rows + ROWS - 1) / ROWS; block++) {                       \
            int64_t r = block * ROWS, end = r + ROWS < rows ? r + ROWS : rows;                     \
            for (; r + 4 <= end; r += 4) {                                                         \
                const T *a = x + r * C, *b = a + C, *d = b + C, *e = d + C;                        \
                _Pragma("omp simd")                                                                \
                for (int64_t c = 0; c < C; c++) {                                                  \
                    float va = up_##NAME(a[c]) - first[c], vb = up_##NAME(b[c]) - first[c];        \
                    float vd = up_##NAME(d[c]) - first[c], ve = up_##NAME(e[c]) - first[c];        \
                    s[c] += (va + vb) + (vd + ve);                                                 \
                    q[c] += (va * va + vb * vb) + (vd * vd + ve * ve);                             \
                }                                                                                  \
            }                                                                                      \
            for (; r < end; r++) {                                                                 \
                const T *a = x + r * C;                                                            \
                _Pragma("omp simd")                                                                \
                for (int64_t c = 0; c < C; c++) {                                                  \
                    float va = up_##NAME(a[c]) - first[c];                                         \
                    s[c] += va;                                                                    \
                    q[c] += va * va;                                                               \
                }                                                                                  \
            }                                                                                      \
            for (int64_t c = 0; c < 2 * C; c++) { mine[c] += s[c]; s[c] = 0; }                     \
        }                                                                                          \
        free(s);                                                                                   \
        _Pragma("omp single")                                                                      \
        for (int64_t c = 0; c < C; c++) {                                                          \
            double sum = 0, square = 0;                                                            \
            for (int t = 0; t < threads; t++) {                                                    \
                sum += sums[(size_t)t * 2 * C + c];                                                \
                square += sums[(size_t)t * 2 * C + C + c];                                         \
            }                                                                                      \
            double m = sum / rows, v = square / rows - m * m;                                      \
            if (v < 0) v = 0;                                                                      \
            mean[c] = (float)(m + first[c]);                                                       \
            var[c] = (float)v;                                                                     \
            invstd[c] = (float)(1 / sqrt(v + eps));                                                \
            scale[c] = (weight ? weight[c] : 1) * invstd[c];                                       \
            shift[c] = (bias ? bias[c] : 0) - mean[c] * scale[c];                                  \
        }                                                                                          \
        _Pragma("omp for schedule(static)")                                                        \
        for (int64_t r = 0; r < rows; r++) {                                                       \
            const T *in = x + r * C;                                                               \
            T *out = y + r * C;                                                                    \
            _Pragma("omp simd")                                                                    \
            for (int64_t c = 0; c < C; c++)                                                        \
                out[c] = down_##NAME(up_##NAME(in[c]) * scale[c] + shift[c]);                      \
        }                                                                                          \
    }                                                                                              \
    free(sums);                                                                                    \
    free(scale);                                                                                   \
}                                                                                                  \
                                                                                                   \
void norm_backward_##NAME(const T *g, const T *x, T *dx, const float *weight,                      \
                          const float *mean, const float *invstd, float *dweight, float *dbias,    \
                          int64_t rows, int64_t C) {                                               \
    int threads = omp_get_max_threads();                                                           \
    double *sums = calloc((size_t)threads * 2 * C, sizeof(double));                                \
    float *scale = malloc(3 * (size_t)C * sizeof(float)), *a = scale + C, *b = scale + 2 * C;      \
    for (int64_t c = 0; c < C; c++) scale[c] = (weight ? weight[c] : 1) * invstd[c];               \
    _Pragma("omp parallel")                                                                        \
    {                                                                                              \
        double *mine = sums + (size_t)omp_get_thread_num() * 2 * C;                                \
        float *s = calloc(2 * (size_t)C, sizeof(float)), *q = s + C;                               \
        _Pragma("omp for schedule(static)")                                                        \
        for (int64_t block = 0; block < (rows + ROWS - 1) / ROWS; block++) {                       \
            int64_t r = block * ROWS, end = r + ROWS < rows ? r + ROWS : rows;                     \
            for (; r + 2 <= end; r += 2) {                                                         \
                const T *xa = x + r * C, *xb = xa + C, *ga = g + r * C, *gb = ga + C;              \
                _Pragma("omp simd")                                                                \
                for (int64_t c = 0; c < C; c++) {                                                  \
                    float va = up_##NAME(xa[c]), vb = up_##NAME(xb[c]);                            \
                    float da = up_##NAME(ga[c]);                                                   \
                    float db = up_##NAME(gb[c]);                                                   \
                    s[c] += da + db;                                                               \
                    q[c] += da * (va - mean[c]) + db * (vb - mean[c]);                             \
                }                                                                                  \
            }                                                                                      \
            for (; r < end; r++) {                                                                 \
                const T *xa = x + r * C, *ga = g + r * C;                                          \
                _Pragma("omp simd")                                                                \
                for (int64_t c = 0; c < C; c++) {                                                  \
                    float va = up_##NAME(xa[c]);                                                   \
                    float da = up_##NAME(ga[c]);                                                   \
                    s[c] += da;                                                                    \
                    q[c] += da * (va - mean[c]);                                                   \
                }                                                                                  \
            }                                                                                      \
            for (int64_t c = 0; c < 2 * C; c++) { mine[c] += s[c]; s[c] = 0; }                     \
        }                                                                                          \
        free(s);                                                                                   \
        _Pragma("omp single")                                                                      \
        for (int64_t c = 0; c < C; c++) {                                                          \
            double sum = 0, dot = 0;                                                               \
            for (int t = 0; t < threads; t++) {                                                    \
                sum += sums[(size_t)t * 2 * C + c];                                                \
                dot += sums[(size_t)t * 2 * C + C + c];                                            \
            }                                                                                      \
            dbias[c] = (float)sum;                                                                 \
            dweight[c] = (float)(dot * invstd[c]);                                                 \
            /* dx = scale (d - mean(d) - x_hat mean(d x_hat)), as scale d + a + b x */             \
            double slope = -scale[c] * dot * invstd[c] * invstd[c] / rows;                         \
            b[c] = (float)slope;                                                                   \
            a[c] = (float)(-scale[c] * sum / rows - slope * mean[c]);                              \
        }                                                                                          \
        _Pragma("omp for schedule(static)")                                                        \
        for (int64_t r = 0; r < rows; r++) {                                                       \
            const T *in = x + r * C, *up = g + r * C;                                              \
            T *out = dx + r * C;                                                                   \
            _Pragma("omp simd")                                                                    \
            for (int64_t c = 0; c < C; c++) {                                                      \
                float v = up_##NAME(in[c]);                                                        \
                float d = up_##NAME(up[c]);                                                        \
                out[c] = down_##NAME(d * scale[c] + (a[c] + v * b[c]));                            \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    free(sums);                                                                                    \
    free(scale);                                                                                   \
}                                                                                                  \
                                                                                                   \
/* weight gradient of a depthwise convolution: sums[k][c] of g times what the tap k saw */         \
void depthwise_weight_##NAME(const T *g, const T *x, float *dw, int64_t B, int64_t H, int64_t W,   \
                             int64_t C, int64_t OH, int64_t OW, int64_t K, int64_t stride,         \
                             int64_t pad) {                                                        \
    int64_t size = K * K * C;                                                                      \
    int threads = omp_get_max_threads();                                                           \
    double *totals = calloc((size_t)(threads * size), sizeof(double));                             \
    _Pragma("omp parallel")                                                                        \
    {                                                                                              \
        float *mine = calloc((size_t)size, sizeof(float));                                         \
        double *total = totals + omp_get_thread_num() * size;                                      \
        _Pragma("omp for schedule(static)")                                                        \
        for (int64_t n = 0; n < B; n++) {                                                          \
            for (int64_t oy = 0; oy < OH; oy++)                                                    \
                for (int64_t ky = 0; ky < K; ky++) {                                               \
                    int64_t iy = oy * stride + ky - pad;                                           \
                    if (iy < 0 || iy >= H) continue;                                               \
                    const T *gr = g + (n * OH + oy) * OW * C, *xr = x + (n * H + iy) * W * C;      \
                    for (int64_t kx = 0; kx < K; kx++) {                                           \
                        float *acc = mine + (ky * K + kx) * C;                                     \
                        int64_t ox = 0, end = OW;                                                  \
                        while (ox < OW && ox * stride + kx - pad < 0) ox++;                        \
                        while (end > ox && (end - 1) * stride + kx - pad >= W) end--;              \
                        for (; ox + 4 <= end; ox += 4) {                                           \
                            const T *ga = gr + ox * C, *gb = ga + C, *gc = gb + C, *gd = gc + C;   \
                            const T *xa = xr + (ox * stride + kx - pad) * C;                       \
                            const T *xb = xa + stride * C, *xc = xb + stride * C;                  \
                            const T *xd = xc + stride * C;                                         \
                            _Pragma("omp simd")                                                    \
                            for (int64_t c = 0; c < C; c++)                                        \
                                acc[c] += (up_##NAME(ga[c]) * up_##NAME(xa[c]) +                   \
                                           up_##NAME(gb[c]) * up_##NAME(xb[c])) +                  \
                                          (up_##NAME(gc[c]) * up_##NAME(xc[c]) +                   \
                                           up_##NAME(gd[c]) * up_##NAME(xd[c]));                   \
                        }                                                                          \
                        for (; ox < end; ox++) {                                                   \
                            const T *ga = gr + ox * C, *xa = xr + (ox * stride + kx - pad) * C;    \
                            _Pragma("omp simd")                                                    \
                            for (int64_t c = 0; c < C; c++)                                        \
                                acc[c] += up_##NAME(ga[c]) * up_##NAME(xa[c]);                     \
                        }                                                                          \
                    }                                                                              \
                }                                                                                  \
            for (int64_t i = 0; i < size; i++) { total[i] += mine[i]; mine[i] = 0; }               \
        }                                                                                          \
        free(mine);                                                                                \
    }                                                                                              \
    for (int64_t i = 0; i < size; i++) { /* in the order of threads: the same each time */         \
        double sum = 0;                                                                            \
        for (int t = 0; t < threads; t++) sum += totals[t * size + i];                             \
        dw[i] = (float)sum;                                                                        \
    }                                                                                              \
    free(totals);                                                                                  \
}                                                                                                  \
                                                                                                   \
/* input gradient of a depthwise convolution; w is [k][c] */                                       \
void depthwise_input_##NAME(const T *g, const float *w, T *dx, int64_t B, int64_t H, int64_t W,    \
                            int64_t C, int64_t OH, int64_t OW, int64_t K, int64_t stride,          \
                            int64_t pad) {                                                         \
    _Pragma("omp parallel")                                                                        \
    {                                                                                              \
        float *row = malloc((size_t)(W * C) * sizeof(float));                                      \
        _Pragma("omp for schedule(static) collapse(2)")                                            \
        for (int64_t n = 0; n < B; n++)                                                            \
            for (int64_t iy = 0; iy < H; iy++) {                                                   \
                memset(row, 0, (size_t)(W * C) * sizeof(float));                                   \
                for (int64_t ky = 0; ky < K; ky++) {                                               \
                    int64_t at = iy + pad - ky;                                                    \
                    if (at < 0 || at % stride || at / stride >= OH) continue;                      \
                    const T *gr = g + (n * OH + at / stride) * OW * C;                             \
                    for (int64_t ox = 0; ox < OW; ox++)                                            \
                        for (int64_t kx = 0; kx < K; kx++) {                                       \
                            int64_t ix = ox * stride + kx - pad;                                   \
                            if (ix < 0 || ix >= W) continue;                                       \
                            const T *ga = gr + ox * C;                                             \
                            const float *wk = w + (ky * K + kx) * C;                               \
                            float *out = row + ix * C;                                             \
                            _Pragma("omp simd")                                                    \
                            for (int64_t c = 0; c < C; c++) out[c] += up_##NAME(ga[c]) * wk[c];    \
                        }                                                                          \
                }                                                                                  \
                T *to = dx + (n * H + iy) * W * C;                                                 \
                _Pragma("omp simd")                                                                \
                for (int64_t i = 0; i < W * C; i++) to[i] = down_##NAME(row[i]);                   \
            }                                                                                      \
        free(row);                                                                                 \
    }                                                                                              \
}

DEFINE(float, f32)
DEFINE(bf16, bf16)
