/* Layers on channels_last maps, in one pass where torch takes several.
 *
 * A map is rows of channels: (batch * height * width, channels), contiguous, of float or bfloat16.
 * Sums are of float over some rows at a time, added up in double. This file is compiled on the
 * machine it runs on, once; see native.py and the files beside it, which say what each argument is.
 * The layers themselves are in other files; some are read once for each type of number. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

#ifdef __AVX512F__
#define LANES 16 /* numbers in a register */
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

typedef uint16_t bf16;
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef uint32_t vec_u32 __attribute__((vector_size(4 * LANES)));
typedef int32_t vec_i32 __attribute__((vector_size(4 * LANES)));
typedef uint16_t vec_u16 __attribute__((vector_size(2 * LANES)));
typedef vec_i32 bits_f32; /* as many numbers of a map as fill a register in float */
typedef int16_t bits_bf16 __attribute__((vector_size(2 * LANES)));

INLINE vec load_f32(const float *from) {
    vec v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE void store_f32(float *to, vec v) { memcpy(to, &v, sizeof v); }

INLINE vec load_bf16(const bf16 *from) {
    vec_u16 half;
    memcpy(&half, from, sizeof half);
    return (vec)(__builtin_convertvector(half, vec_u32) << 16);
}

INLINE void store_bf16(bf16 *to, vec v) { /* to the nearest, ties to even; NaN stays NaN */
#if defined(__AVX512BF16__) && LANES == 16
    __m256bh half = _mm512_cvtneps_pbh((__m512)v);
#else
    vec_u32 u = (vec_u32)v, rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    vec_u32 is_nan = (vec_u32)(v != v);
    vec_u16 half = __builtin_convertvector((rounded & ~is_nan) | (0x7fc0 & is_nan), vec_u16);
#endif
    memcpy(to, &half, sizeof half);
}

/* Store past the caches: a store into them reads the line before. Only float is written so, at
 * addresses that are multiples of a register. */
INLINE void stream_f32(float *to, vec v) {
#if LANES == 16
    _mm512_stream_ps(to, (__m512)v);
#elif LANES == 8
    _mm256_stream_ps(to, (__m256)v);
#else
    store_f32(to, v);
#endif
}

INLINE void stream_bf16(bf16 *to, vec v) { store_bf16(to, v); }

INLINE void end_stream(void) {
#if LANES >= 8
    _mm_sfence();
#endif
}

#define LARGE (16 << 20) /* bytes; of more, little is still in the caches when it is read */

static int is_large(const void *to, size_t bytes) {
    return bytes > LARGE && (uintptr_t)to % sizeof(vec) == 0;
}

/* the first n numbers of a register, where a row ends within it; the others are 0; and n numbers
 * past the caches, which fill whole registers */
#define DEFINE_PARTS(T, NAME)                                                                      \
    INLINE void stream_all_##NAME(T *to, const T *from, int64_t n) {                               \
        for (int64_t i = 0; i < n; i += LANES) stream_##NAME(to + i, load_##NAME(from + i));       \
    }                                                                                              \
    INLINE vec load_some_##NAME(const T *from, int64_t n) {                                        \
        T part[LANES] = {0};                                                                       \
        memcpy(part, from, (size_t)n * sizeof(T));                                                 \
        return load_##NAME(part);                                                                  \
    }                                                                                              \
    INLINE void store_some_##NAME(T *to, vec v, int64_t n) {                                       \
        T part[LANES];                                                                             \
        store_##NAME(part, v);                                                                     \
        memcpy(to, part, (size_t)n * sizeof(T));                                                   \
    }
DEFINE_PARTS(float, f32)
DEFINE_PARTS(bf16, bf16)

/* activations that may follow a normalization; native.py has the same numbers */
enum { NONE, RELU, RELU6 };

INLINE vec keep(vec_i32 where, vec v) { return (vec)((vec_i32)v & where); } /* 0 elsewhere */

INLINE vec activate(vec v, int kind) { /* NaN stays NaN */
    const vec zero = {0}, six = zero + 6;
    if (kind != NONE) v = keep(~(v < zero), v);
    if (kind == RELU6) v = (vec)((vec_i32)keep(v > six, six) | (vec_i32)keep(~(v > six), v));
    return v;
}

/* the gradient d, where the activation of v is v */
INLINE vec let_through(vec d, vec v, int kind) {
    const vec zero = {0}, six = zero + 6;
    if (kind != NONE) d = keep(v > zero, d);
    if (kind == RELU6) d = keep(v < six, d);
    return d;
}

#define ROWS 64 /* added up in float before they go to double */

/* whether a block of rows is better read in order than some registers of each row at a time */
#define IN_ORDER(T, W) (sizeof(T) == 4 && (W) > 4 * LANES)

/* Rows are taken together, so that they fill whole registers, and a loop over them is worth it. */
static int64_t rows_together(int64_t C) {
    int64_t together = 1;
    while (together * C % LANES || together * C < 4 * LANES) together *= 2;
    return together;
}

/* one number for each channel, over again for each of the rows taken together */
static void repeat(float *to, const float *from, int64_t C, int64_t together, float otherwise) {
    for (int64_t r = 0; r < together; r++)
        for (int64_t c = 0; c < C; c++) to[r * C + c] = from ? from[c] : otherwise;
}

/* sums of all threads, and of the rows taken together, in an order that is the same each time */
static double total(const double *sums, int64_t c, int64_t C, int64_t together, int64_t step,
                    int threads) {
    double sum = 0;
    for (int t = 0; t < threads; t++)
        for (int64_t r = 0; r < together; r++) sum += sums[t * step + r * C + c];
    return sum;
}

/* What the gradient of a normalized map, of some rows, is computed by, for channel c: from the sum
 * of the gradient behind it, and from its sum along the input less the mean. */
static void plan_gradient(int64_t c, double sum, double dot, int64_t rows, int64_t C,
                          const float *mean, const float *invstd, const float *scale, float *plan,
                          float *dweight, float *dbias) {
    dbias[c] = (float)sum;
    dweight[c] = (float)(dot * invstd[c]);
    /* dx = scale (d - mean(d) - x_hat mean(d x_hat)), as scale d + a + b x */
    double slope = -scale[c] * dot * invstd[c] * invstd[c] / (double)rows;
    plan[c] = (float)(-scale[c] * sum / (double)rows - slope * mean[c]);
    plan[C + c] = (float)slope;
}

/* Ask for one of some parts of what will be read soon, while the processor computes. */
INLINE void fetch_part(const void *from, int64_t bytes, int64_t part, int64_t parts) {
    int64_t lines = (bytes + 63) / 64, last = lines * (part + 1) / parts;
    for (int64_t line = lines * part / parts; line < last; line++)
        __builtin_prefetch((const char *)from + 64 * line);
}

/* channels of whole registers */
INLINE int64_t whole(int64_t C) { return (C + LANES - 1) / LANES * LANES; }

/* Pixels along a side that K taps span, which lie D pixels apart. */
INLINE int64_t span(int64_t K, int64_t D) { return (K - 1) * D + 1; }

/* Rows of a map of H that they see at a time, at most. */
INLINE int64_t held_rows(int64_t H, int64_t K, int64_t D) {
    return span(K, D) < H ? span(K, D) : H;
}

/* Numbers in a row of one register of a map's channels, as it is seen by the taps. */
static int64_t padded_row(int64_t W, int64_t OW, int64_t K, int64_t D, int64_t stride,
                          int64_t spread, int64_t pad) {
    int64_t seen = (OW - 1) * stride + span(K, D), held = (W - 1) * spread + 1 + pad;
    return (seen > held ? seen : held) * LANES;
}

/* The taps [k][c], so that those of one register of channels lie together. */
static void by_register(float *to, const float *w, int64_t K, int64_t N) {
    for (int64_t k = 0; k < K * K; k++)
        for (int64_t c = 0; c < N; c++)
            to[(c / LANES * K * K + k) * LANES + c % LANES] = w[k * N + c];
}

/* Add one row of a gradient times what up to three taps of a line saw, D pixels apart, for one
 * register of channels. Two pixels at a time have sums of their own, or each would wait for the one
 * before. */
INLINE void add_taps(const float *g, const float *x, float *sums, int64_t OW, int64_t step,
                     int64_t stride, int64_t D, int taps) {
    const int64_t C = LANES, A = D * LANES;
    vec a0 = {0}, a1 = {0}, a2 = {0}, b0 = {0}, b1 = {0}, b2 = {0};
    int64_t ox = 0;
    for (; ox + 2 <= OW; ox += 2) {
        const float *at = x + ox * stride * C, *next = at + stride * C;
        vec d = load_f32(g + ox * C), e = load_f32(g + ox * C + C);
        a0 += d * load_f32(at);
        b0 += e * load_f32(next);
        if (taps > 1) a1 += d * load_f32(at + A), b1 += e * load_f32(next + A);
        if (taps > 2) a2 += d * load_f32(at + 2 * A), b2 += e * load_f32(next + 2 * A);
    }
    if (ox < OW) {
        const float *at = x + ox * stride * C;
        vec d = load_f32(g + ox * C);
        a0 += d * load_f32(at);
        if (taps > 1) a1 += d * load_f32(at + A);
        if (taps > 2) a2 += d * load_f32(at + 2 * A);
    }
    store_f32(sums, load_f32(sums) + (a0 + b0));
    if (taps > 1) store_f32(sums + step, load_f32(sums + step) + (a1 + b1));
    if (taps > 2) store_f32(sums + 2 * step, load_f32(sums + 2 * step) + (a2 + b2));
}

/* The place that is seen where a line of S pixels is continued by reflection. */
INLINE int64_t reflected(int64_t place, int64_t S) {
    if (place < 0) place = -place;
    return place < S ? place : 2 * (S - 1) - place;
}

#define T float
#define OF(name) name##_f32
#include "norm.h"
#include "depthwise.h"
#include "pool.h"
#include "windows.h"
#undef T
#undef OF

#define T bf16
#define OF(name) name##_bf16
#include "norm.h"
#include "depthwise.h"
#include "pool.h"
#include "windows.h"
#undef T
#undef OF

#include "lookup.h"
#include "winograd.h"
#include "pixels.h"

int64_t lanes(void) { return LANES; }

#if defined(__AMX_BF16__) && LANES == 16
#include "tiles.h"
#else
int64_t has_tiles(void) { return 0; }
#endif
