/* Weight gradients of convolutions on the matrix unit (AMX), in bfloat16.
 *
 * dw[co][tap][ci] is the product of g, transposed, and x, moved by the tap. Both are laid out along
 * one line of pixels: rows and images follow each other with `pad` zeros between them, so that what
 * a tap sees beyond an edge is zero, and a tap is a distance on that line. The unit multiplies
 * registers of 16 x 32 numbers by 32 x 16, the latter in pairs of neighbours; of x there are two
 * lines of pairs, for even and for odd distances. */

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIDE 16  /* channels in a tile */
#define DEPTH 32 /* pixels in a tile */
#define CHUNK (512 * 1024) /* bytes of pixels laid out at a time, so that they stay in the cache */

/* whether this process may use the unit */
int64_t has_tiles(void) {
    return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
}

static void configure_tiles(void) {
    struct {
        uint8_t palette, start, none[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
    __asm__ volatile("" : : "m"(config)); /* gcc believes that 8 of its bytes are read */
    _tile_loadconfig(&config);
}

/* 16 channels of a pixel, of which there are n */
INLINE __m256i channels(const bf16 *from, int64_t n) {
    if (n >= SIDE) return _mm256_loadu_si256((const __m256i *)from);
    bf16 part[SIDE] = {0};
    memcpy(part, from, (size_t)n * sizeof(bf16));
    return _mm256_loadu_si256((const __m256i *)part);
}

/* two pixels, channel by channel */
INLINE void store_pair(bf16 *to, __m256i a, __m256i b) {
    __m256i low = _mm256_unpacklo_epi16(a, b), high = _mm256_unpackhi_epi16(a, b);
    _mm256_storeu_si256((__m256i *)to, _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256((__m256i *)(to + SIDE), _mm256_permute2x128_si256(low, high, 0x31));
}

/* 16 pixels of 16 channels as 16 channels of 16 pixels, `apart` numbers from each other */
INLINE void store_transposed(bf16 *to, int64_t apart, __m256i *v) {
    __m256i w[16];
    for (int i = 0; i < 8; i++) {
        w[i] = _mm256_unpacklo_epi16(v[2 * i], v[2 * i + 1]);
        w[8 + i] = _mm256_unpackhi_epi16(v[2 * i], v[2 * i + 1]);
    }
    for (int h = 0; h < 16; h += 8)
        for (int i = 0; i < 4; i++) {
            v[h + i] = _mm256_unpacklo_epi32(w[h + 2 * i], w[h + 2 * i + 1]);
            v[h + 4 + i] = _mm256_unpackhi_epi32(w[h + 2 * i], w[h + 2 * i + 1]);
        }
    for (int q = 0; q < 16; q += 4)
        for (int i = 0; i < 2; i++) {
            w[q + i] = _mm256_unpacklo_epi64(v[q + 2 * i], v[q + 2 * i + 1]);
            w[q + 2 + i] = _mm256_unpackhi_epi64(v[q + 2 * i], v[q + 2 * i + 1]);
        }
    for (int i = 0; i < 8; i++) {
        __m256i a = w[2 * i], b = w[2 * i + 1];
        bf16 *low = to + i * apart, *high = low + 8 * apart;
        _mm256_storeu_si256((__m256i *)low, _mm256_permute2x128_si256(a, b, 0x20));
        _mm256_storeu_si256((__m256i *)high, _mm256_permute2x128_si256(a, b, 0x31));
    }
}

/* Add tile `TILE` to the sums; rows are output channels, `apart` numbers from each other. */
#define ADD_TILE(TILE, to)                                                                         \
    do {                                                                                           \
        float part[SIDE][SIDE];                                                                    \
        _tile_stored(TILE, part, 64);                                                              \
        for (int i = 0; i < SIDE; i++)                                                             \
            _mm512_storeu_ps((to) + i * apart, _mm512_add_ps(_mm512_loadu_ps((to) + i * apart),    \
                                                             _mm512_loadu_ps(part[i])));           \
    } while (0)

/* two by two tiles of the product, along `steps` tiles of pixels */
INLINE void multiply(const bf16 *a0, const bf16 *a1, int64_t line, const bf16 *b0, const bf16 *b1,
                     int64_t steps, float *to00, float *to01, float *to10, float *to11,
                     int64_t apart) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < steps; k++) {
        _tile_loadd(4, a0 + k * DEPTH, line * sizeof(bf16));
        _tile_loadd(6, b0 + k * DEPTH * SIDE, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (to01) {
            _tile_loadd(7, b1 + k * DEPTH * SIDE, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (to10) {
            _tile_loadd(5, a1 + k * DEPTH, line * sizeof(bf16));
            _tile_dpbf16ps(2, 5, 6);
            if (to01) _tile_dpbf16ps(3, 5, 7);
        }
    }
    ADD_TILE(0, to00);
    if (to01) ADD_TILE(1, to01);
    if (to10) ADD_TILE(2, to10);
    if (to10 && to01) ADD_TILE(3, to11);
}

/* Lay out the gradients of n images, channel by channel along the line; `where` says which pixel of
 * an image's gradient is at a place of its line, if one is. */
static void lay_across(bf16 *across, const bf16 *g, const int32_t *where, int64_t n, int64_t image,
                       int64_t pixels, int64_t CO, int64_t line) {
    for (int64_t t = 0; t * SIDE < CO; t++) {
        int64_t b = 0, at = 0;
        for (int64_t p = 0; p < n * image; p += SIDE) {
            __m256i v[SIDE];
            for (int64_t i = 0; i < SIDE; i++) {
                if (b < n && where[at] >= 0)
                    v[i] = channels(g + (b * pixels + where[at]) * CO + t * SIDE, CO - t * SIDE);
                else
                    v[i] = _mm256_setzero_si256();
                if (++at == image) at = 0, b++;
            }
            store_transposed(across + t * SIDE * line + p, line, v);
        }
    }
}

/* Lay out a row of W pixels from place p on, in pairs with the one before, and beside both ends. */
static void lay_pairs(bf16 *even, bf16 *odd, const bf16 *x, int64_t p, int64_t W, int64_t CI,
                      int64_t pairs) {
    for (int64_t t = 0; t * SIDE < CI; t++) {
        __m256i before = _mm256_setzero_si256();
        for (int64_t at = 0; at <= W; at++) {
            __m256i now = _mm256_setzero_si256();
            if (at < W) now = channels(x + at * CI + t * SIDE, CI - t * SIDE);
            bf16 *line = (p + at) % 2 ? even : odd;
            store_pair(line + t * pairs + (p + at - 1) / 2 * 2 * SIDE, before, now);
            before = now;
        }
    }
}

/* The same for filters of one pixel, which see only even distances; W is even. */
static void lay_even(bf16 *even, const bf16 *x, int64_t p, int64_t W, int64_t CI, int64_t pairs) {
    for (int64_t t = 0; t * SIDE < CI; t++, x += SIDE) {
        bf16 *to = even + t * pairs + p * SIDE;
        for (int64_t at = 0; at < W; at += 2, to += 2 * SIDE) {
            __m256i a = channels(x + at * CI, CI - t * SIDE);
            store_pair(to, a, channels(x + at * CI + CI, CI - t * SIDE));
        }
    }
}

/* g is (B, OH, OW, CO), x is (B, H, W, CI), dw is [CO][K * K][CI]; K is odd, the padding K / 2, and
 * W is even where K is 1 */
void conv_weight_bf16(const bf16 *g, const bf16 *x, float *dw, int64_t B, int64_t H, int64_t W,
                      int64_t CI, int64_t OH, int64_t OW, int64_t CO, int64_t K, int64_t stride) {
    int64_t pad = K / 2, row = W + pad, image = (H + pad) * row, taps = K * K;
    int64_t ci = (CI + SIDE - 1) / SIDE, co = (CO + SIDE - 1) / SIDE; /* tiles */
    int64_t threads = omp_get_max_threads(), share = (B + threads - 1) / threads;
    int64_t count = CHUNK / (image * (2 * ci + co) * SIDE * (int64_t)sizeof(bf16)); /* images */
    count = count < 1 ? 1 : count > share ? share : count;
    int64_t steps = (count * image + DEPTH - 1) / DEPTH;
    int64_t line = steps * DEPTH + (steps % 16 ? 0 : DEPTH); /* or rows share a place in cache */
    /* a line of x goes on where taps reach beyond its ends; in whole pairs */
    int64_t margin = (pad * row + pad + 3) / 2 * 2, apart = taps * ci * SIDE;
    int64_t pairs = (steps * DEPTH + 2 * margin) * SIDE, sums = co * SIDE * apart;
    float *totals = aligned_alloc(64, (size_t)(threads * sums) * sizeof(float));
    int32_t *where = malloc((size_t)image * sizeof(int32_t));
    for (int64_t p = 0; p < image; p++) {
        int64_t y = p / row, at = p % row;
        int is_one = y < H && at < W && y % stride == 0 && at % stride == 0;
        where[p] = is_one ? (int32_t)(y / stride * OW + at / stride) : -1;
    }
    _Pragma("omp parallel")
    {
        size_t bytes = (size_t)(co * SIDE * line + 2 * ci * pairs) * sizeof(bf16);
        bf16 *across = aligned_alloc(64, (bytes + 63) / 64 * 64);
        bf16 *even = across + co * SIDE * line, *odd = even + ci * pairs;
        float *mine = totals + omp_get_thread_num() * sums;
        memset(across, 0, bytes);
        memset(mine, 0, (size_t)sums * sizeof(float));
        configure_tiles();
        _Pragma("omp for schedule(static)")
        for (int64_t from = 0; from < B; from += count) {
            int64_t n = B - from < count ? B - from : count;
            if (n < count) memset(across, 0, bytes);
            lay_across(across, g + from * OH * OW * CO, where, n, image, OH * OW, CO, line);
            for (int64_t b = 0; b < n; b++)
                for (int64_t y = 0; y < H; y++) {
                    const bf16 *in = x + ((from + b) * H + y) * W * CI;
                    int64_t p = margin + b * image + y * row;
                    if (K == 1) lay_even(even, in, p, W, CI, pairs);
                    else lay_pairs(even, odd, in, p, W, CI, pairs);
                }
            for (int64_t tap = 0; tap < taps; tap++) {
                int64_t away = margin + (tap / K - pad) * row + tap % K - pad;
                const bf16 *b = (away % 2 ? odd : even) + away / 2 * 2 * SIDE;
                for (int64_t o = 0; o < co; o += 2)
                    for (int64_t i = 0; i < ci; i += 2) {
                        const bf16 *a0 = across + o * SIDE * line, *b0 = b + i * pairs;
                        float *to = mine + o * SIDE * apart + (tap * ci + i) * SIDE;
                        float *below = o + 1 < co ? to + SIDE * apart : NULL;
                        float *beside = i + 1 < ci ? to + SIDE : NULL;
                        multiply(a0, a0 + SIDE * line, line, b0, b0 + pairs, steps, to, beside,
                                 below, to + SIDE * apart + SIDE, apart);
                    }
            }
        }
        _tile_release();
        free(across);
        _Pragma("omp for schedule(static)")
        for (int64_t o = 0; o < CO; o++) /* in the order of threads: the same each time */
            for (int64_t tap = 0; tap < taps; tap++)
                for (int64_t i = 0; i < CI; i++) {
                    float sum = 0;
                    for (int64_t t = 0; t < threads; t++)
                        sum += totals[t * sums + o * apart + tap * ci * SIDE + i];
                    dw[(o * taps + tap) * CI + i] = sum;
                }
    }
    free(where);
    free(totals);
}
