/* Depthwise convolutions of maps of one type of number, T. */

/* Pixels of C channels as float, each `spread` from the one before, so that those of one register
 * lie together; the next register is `apart`. */
static void OF(as_float)(float *to, const T *from, int64_t pixels, int64_t C, int64_t apart,
                         int64_t spread) {
    for (int64_t i = 0; i < pixels; i++, to += spread * LANES, from += C) {
        float *at = to;
        int64_t c = 0;
        for (; c + LANES <= C; c += LANES, at += apart) store_f32(at, OF(load)(from + c));
        if (c < C) store_f32(at, OF(load_some)(from + c, C - c));
    }
}

/* The same back, where the pixels of each register lie together. */
INLINE void OF(from_float)(T *to, const float *from, int64_t pixels, int64_t C, int streams) {
    for (int64_t i = 0; i < pixels; i++, to += C, from += LANES) {
        const float *at = from;
        int64_t c = 0;
        for (; c + LANES <= C; c += LANES, at += pixels * LANES)
            if (streams) OF(stream)(to + c, load_f32(at));
            else OF(store)(to + c, load_f32(at));
        if (c < C) OF(store_some)(to + c, load_f32(at), C - c);
    }
}

/* dw is [k][c] */
void OF(depthwise_weight)(const T *g, const T *x, float *dw, int64_t B, int64_t H, int64_t W,
                          int64_t C, int64_t OH, int64_t OW, int64_t K, int64_t stride,
                          int64_t pad) {
    int threads = omp_get_max_threads();
    int64_t N = (C + LANES - 1) / LANES * LANES, size = K * K * N;
    int64_t padded = (W + 2 * pad) * LANES, wide = OW * LANES, row = N / LANES * padded;
    double *totals = calloc((size_t)(threads * size), sizeof(double));
    _Pragma("omp parallel")
    {
        double *mine = totals + omp_get_thread_num() * size;
        /* rows as float, read once: of the gradient, and the last K of the input, between zeros */
        float *sums = calloc((size_t)(size + OW * N + K * row), sizeof(float));
        float *up = sums + size, *kept = up + OW * N;
        _Pragma("omp for schedule(static)")
        for (int64_t b = 0; b < B; b++) {
            int64_t next = 0;
            for (int64_t oy = 0; oy < OH; oy++) {
                int64_t iy = oy * stride - pad;
                for (; next < H && next < iy + K; next++)
                    OF(as_float)(kept + next % K * row + pad * LANES,
                                 x + (b * H + next) * W * C, W, C, padded, 1);
                OF(as_float)(up, g + (b * OH + oy) * OW * C, OW, C, wide, 1);
                for (int64_t ky = 0; ky < K; ky++, iy++) {
                    if (iy < 0 || iy >= H) continue;
                    for (int64_t c = 0; c < N / LANES; c++)
                        for (int64_t kx = 0; kx < K; kx += 3) {
                            const float *d = up + c * wide;
                            const float *from = kept + iy % K * row + c * padded + kx * LANES;
                            float *to = sums + (ky * K + kx) * N + c * LANES;
                            if (kx + 3 <= K) add_taps(d, from, to, OW, N, stride, 3);
                            else if (kx + 2 <= K) add_taps(d, from, to, OW, N, stride, 2);
                            else add_taps(d, from, to, OW, N, stride, 1);
                        }
                }
            }
            for (int64_t i = 0; i < size; i++) mine[i] += sums[i], sums[i] = 0;
        }
        free(sums);
    }
    for (int64_t k = 0; k < K * K; k++)
        for (int64_t c = 0; c < C; c++) { /* in the order of threads: the same each time */
            double sum = 0;
            for (int t = 0; t < threads; t++) sum += totals[t * size + k * N + c];
            dw[k * C + c] = (float)sum;
        }
    free(totals);
}

/* P outputs of a row, for one register of channels: what each tap sees of the rows. */
INLINE void OF(output_strip)(const float *const *rows, const float *taps, vec first, float *y,
                             int64_t ox, int64_t K, int64_t stride, int P) {
    vec sums[8];
    _Pragma("GCC unroll 8") for (int p = 0; p < P; p++) sums[p] = first;
    for (int64_t ky = 0; ky < K; ky++) {
        if (!rows[ky]) continue;
        const float *from = rows[ky] + ox * stride * LANES, *tap = taps + ky * K * LANES;
        _Pragma("GCC unroll 8") for (int64_t kx = 0; kx < K; kx++) {
            vec w = load_f32(tap + kx * LANES);
            _Pragma("GCC unroll 8") for (int p = 0; p < P; p++)
                sums[p] += w * load_f32(from + (p * stride + kx) * LANES);
        }
    }
    _Pragma("GCC unroll 8") for (int p = 0; p < P; p++)
        store_f32(y + (ox + p) * LANES, sums[p]);
}

INLINE void OF(output_row)(const float *const *rows, const float *taps, vec first, float *y,
                           int64_t OW, int64_t K, int64_t stride) {
    int64_t ox = 0;
    for (; ox + 8 <= OW; ox += 8) OF(output_strip)(rows, taps, first, y, ox, K, stride, 8);
    for (; ox + 4 <= OW; ox += 4) OF(output_strip)(rows, taps, first, y, ox, K, stride, 4);
    for (; ox < OW; ox++) OF(output_strip)(rows, taps, first, y, ox, K, stride, 1);
}

/* A depthwise convolution of pixels that lie `spread` apart, with zeros between; one of the
 * two, stride and spread, is 1. w is [k][c] of whole registers of channels, bias may be NULL. */
void OF(depthwise_apply)(const T *x, const float *w, const float *bias, T *y, int64_t B, int64_t H,
                         int64_t W, int64_t C, int64_t OH, int64_t OW, int64_t K, int64_t stride,
                         int64_t spread, int64_t pad) {
    int64_t groups = (C + LANES - 1) / LANES, N = groups * LANES, size = K * K * N;
    int64_t seen = (OW - 1) * stride + K, held = (W - 1) * spread + 1 + pad;
    int64_t padded = (seen > held ? seen : held) * LANES, row = groups * padded;
    int streams = C % LANES == 0 && is_large(y, (size_t)(B * OH * OW * C) * sizeof(T));
    _Pragma("omp parallel")
    {
        /* the last K rows as float, between zeros; the taps; the outputs of a row */
        float *kept = calloc((size_t)(K * row + size + OW * N), sizeof(float));
        float *taps = kept + K * row, *made = taps + size;
        const float **rows = malloc((size_t)K * sizeof(float *));
        for (int64_t k = 0; k < K * K; k++)
            for (int64_t c = 0; c < N; c++)
                taps[(c / LANES * K * K + k) * LANES + c % LANES] = w[k * N + c];
        _Pragma("omp for schedule(static)")
        for (int64_t b = 0; b < B; b++) {
            int64_t next = 0;
            for (int64_t oy = 0; oy < OH; oy++) {
                int64_t top = oy * stride - pad;
                for (; next < H && next * spread < top + K; next++)
                    OF(as_float)(kept + next % K * row + pad * LANES,
                                 x + (b * H + next) * W * C, W, C, padded, spread);
                for (int64_t c = 0; c < C; c += LANES) {
                    for (int64_t ky = 0; ky < K; ky++) {
                        int64_t at = top + ky, iy = at / spread;
                        int is_pixel = at >= 0 && at % spread == 0 && iy < H;
                        rows[ky] = is_pixel ? kept + iy % K * row + c / LANES * padded : NULL;
                    }
                    int64_t n = C - c < LANES ? C - c : LANES;
                    vec first = bias ? load_some_f32(bias + c, n) : (vec){0};
#define OUTPUTS(K, stride)                                                                         \
    OF(output_row)(rows, taps + c * K * K, first, made + c * OW, OW, K, stride)
                    if (K == 3 && stride == 1) OUTPUTS(3, 1);
                    else if (K == 3 && stride == 2) OUTPUTS(3, 2);
                    else if (K == 5 && stride == 1) OUTPUTS(5, 1);
                    else OUTPUTS(K, stride);
#undef OUTPUTS
                }
                T *out = y + (b * OH + oy) * OW * C;
                if (streams) OF(from_float)(out, made, OW, C, 1);
                else OF(from_float)(out, made, OW, C, 0);
            }
        }
        if (streams) end_stream();
        free(kept);
        free(rows);
    }
}
