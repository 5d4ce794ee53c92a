/* Depthwise convolutions of maps of one type of number, T. The map may be the input of a batch
 * normalization and an activation, which are then computed wherever it is read. */

/* Pixels of C channels as float, each `spread` from the one before, so that those of one register
 * lie together; the next register is `apart`. */
INLINE void OF(as_float)(float *to, const T *from, int64_t pixels, int64_t C, int64_t apart,
                         int64_t spread, const float *scale, const float *shift, int kind) {
    for (int64_t i = 0; i < pixels; i++, to += spread * LANES, from += C) {
        float *at = to;
        for (int64_t c = 0; c < C; c += LANES, at += apart) {
            vec v = c + LANES <= C ? OF(load)(from + c) : OF(load_some)(from + c, C - c);
            if (kind != NONE) v = activate(v * load_f32(scale + c) + load_f32(shift + c), kind);
            store_f32(at, v);
        }
    }
}

static void OF(read_row)(float *to, const T *from, int64_t pixels, int64_t C, int64_t apart,
                         int64_t spread, const float *scale, const float *shift, int64_t kind) {
    if (kind == RELU) OF(as_float)(to, from, pixels, C, apart, spread, scale, shift, RELU);
    else if (kind == RELU6) OF(as_float)(to, from, pixels, C, apart, spread, scale, shift, RELU6);
    else OF(as_float)(to, from, pixels, C, apart, spread, NULL, NULL, NONE);
}

/* The same back, where the pixels of each register lie together. */
INLINE void OF(from_float)(T *to, const float *from, int64_t pixels, int64_t C, int streams) {
    for (int64_t i = 0; i < pixels; i++, to += C, from += LANES) {
        const float *at = from;
        int64_t c = 0;
        for (; c + LANES <= C; c += LANES, at += (pixels + 1) * LANES)
            if (streams) OF(stream)(to + c, load_f32(at));
            else OF(store)(to + c, load_f32(at));
        if (c < C) OF(store_some)(to + c, load_f32(at), C - c);
    }
}

/* The same, of what the activation lets through, for the input x of the normalization; and its two
 * sums, alone and along the input. C fills whole registers. */
INLINE void OF(gated_row)(T *to, const float *from, const T *x, int64_t pixels, int64_t C,
                          const float *scale, const float *shift, const float *mean, float *s,
                          float *q, int kind, int streams) {
    for (int64_t i = 0; i < pixels; i++, to += C, from += LANES, x += C)
        for (int64_t c = 0; c < C; c += LANES) {
            vec v = OF(load)(x + c), up = load_f32(from + c * (pixels + 1));
            up = let_through(up, v * load_f32(scale + c) + load_f32(shift + c), kind);
            if (streams) OF(stream)(to + c, up);
            else OF(store)(to + c, up);
            store_f32(s + c, load_f32(s + c) + up);
            store_f32(q + c, load_f32(q + c) + up * (v - load_f32(mean + c)));
        }
}

/* Adds the weight gradient of one image to sums, [k][c]. Rows are read once, as float: `up` holds
 * one of the gradient, `kept` the last ones of the input that the taps span, between zeros. */
static void OF(add_up_weight)(const T *g, const T *x, float *sums, float *up, float *kept,
                              int64_t H, int64_t W, int64_t C, int64_t OH, int64_t OW, int64_t K,
                              int64_t D, int64_t stride, int64_t pad, const float *scale,
                              const float *shift, int64_t kind) {
    int64_t N = whole(C), padded = (W + 2 * pad) * LANES, wide = (OW + 1) * LANES;
    int64_t held = held_rows(H, K, D), row = N / LANES * padded, next = 0;
    for (int64_t oy = 0; oy < OH; oy++) {
        int64_t iy = oy * stride - pad;
        for (; next < H && next < iy + span(K, D); next++)
            OF(read_row)(kept + next % held * row + pad * LANES, x + next * W * C, W, C, padded, 1,
                         scale, shift, kind);
        OF(read_row)(up, g + oy * OW * C, OW, C, wide, 1, NULL, NULL, NONE);
        for (int64_t c = 0; c < N / LANES; c++) {
            if (next < H) fetch_part(x + next * W * C, W * C * (int64_t)sizeof(T), c, N / LANES);
            if (oy + 1 < OH)
                fetch_part(g + (oy + 1) * OW * C, OW * C * (int64_t)sizeof(T), c, N / LANES);
            for (int64_t ky = 0; ky < K; ky++) {
                int64_t at = iy + ky * D;
                if (at < 0 || at >= H) continue;
                for (int64_t kx = 0; kx < K; kx += 3) {
                    const float *d = up + c * wide;
                    const float *from = kept + at % held * row + c * padded + kx * D * LANES;
                    float *to = sums + (ky * K + kx) * N + c * LANES;
                    if (kx + 3 <= K) add_taps(d, from, to, OW, N, stride, D, 3);
                    else if (kx + 2 <= K) add_taps(d, from, to, OW, N, stride, D, 2);
                    else add_taps(d, from, to, OW, N, stride, D, 1);
                }
            }
        }
    }
}

/* dw is [k][c] */
void OF(depthwise_weight)(const T *g, const T *x, float *dw, int64_t B, int64_t H, int64_t W,
                          int64_t C, int64_t OH, int64_t OW, int64_t K, int64_t D, int64_t stride,
                          int64_t pad) {
    int threads = omp_get_max_threads();
    int64_t N = whole(C), size = K * K * N, kept = held_rows(H, K, D) * N * (W + 2 * pad);
    double *totals = calloc((size_t)(threads * size), sizeof(double));
    _Pragma("omp parallel")
    {
        double *mine = totals + omp_get_thread_num() * size;
        float *sums = calloc((size_t)(size + kept + (OW + 1) * N), sizeof(float));
        _Pragma("omp for schedule(static)")
        for (int64_t b = 0; b < B; b++) {
            OF(add_up_weight)(g + b * OH * OW * C, x + b * H * W * C, sums, sums + size + kept,
                              sums + size, H, W, C, OH, OW, K, D, stride, pad, NULL, NULL, NONE);
            for (int64_t i = 0; i < size; i++) mine[i] += sums[i], sums[i] = 0;
        }
        free(sums);
    }
    for (int64_t i = 0; i < K * K * C; i++) /* in the order of threads: the same each time */
        dw[i] = (float)total(totals, i / C * N + i % C, C, 1, size, threads);
    free(totals);
}

/* P outputs of a row, for one register of channels: what each tap sees of the rows. */
INLINE void OF(output_strip)(const float *const *rows, const float *taps, vec first, float *y,
                             int64_t ox, int64_t K, int64_t D, int64_t stride, int P) {
    vec sums[8];
    _Pragma("GCC unroll 8") for (int p = 0; p < P; p++) sums[p] = first;
    for (int64_t ky = 0; ky < K; ky++) {
        if (!rows[ky]) continue;
        const float *from = rows[ky] + ox * stride * LANES, *tap = taps + ky * K * LANES;
        _Pragma("GCC unroll 8") for (int64_t kx = 0; kx < K; kx++) {
            vec w = load_f32(tap + kx * LANES);
            _Pragma("GCC unroll 8") for (int p = 0; p < P; p++)
                sums[p] += w * load_f32(from + (p * stride + kx * D) * LANES);
        }
    }
    _Pragma("GCC unroll 8") for (int p = 0; p < P; p++)
        store_f32(y + (ox + p) * LANES, sums[p]);
}

INLINE void OF(output_row)(const float *const *rows, const float *taps, vec first, float *y,
                           int64_t OW, int64_t K, int64_t D, int64_t stride) {
    int64_t ox = 0;
    for (; ox + 8 <= OW; ox += 8) OF(output_strip)(rows, taps, first, y, ox, K, D, stride, 8);
    for (; ox + 4 <= OW; ox += 4) OF(output_strip)(rows, taps, first, y, ox, K, D, stride, 4);
    for (; ox < OW; ox++) OF(output_strip)(rows, taps, first, y, ox, K, D, stride, 1);
}

/* Row oy of the outputs of one image, in `made`. `kept` holds the last rows of the image that the
 * taps span, as float between zeros, its pixels `spread` apart; the first `next` rows have been
 * read. */
static int64_t OF(make_row)(const T *x, const float *taps, const float *bias, float *made,
                            float *kept, const float **rows, int64_t next, int64_t oy, int64_t H,
                            int64_t W, int64_t C, int64_t OW, int64_t padded, int64_t K, int64_t D,
                            int64_t stride, int64_t spread, int64_t pad, const float *scale,
                            const float *shift, int64_t kind) {
    int64_t top = oy * stride - pad, row = whole(C) / LANES * padded;
    int64_t held = held_rows(H, K, D);
    for (; next < H && next * spread < top + span(K, D); next++)
        OF(read_row)(kept + next % held * row + pad * LANES, x + next * W * C, W, C, padded, spread,
                     scale, shift, kind);
    for (int64_t c = 0; c < C; c += LANES) {
        if (next < H)
            fetch_part(x + next * W * C, W * C * (int64_t)sizeof(T), c / LANES, whole(C) / LANES);
        for (int64_t ky = 0; ky < K; ky++) {
            int64_t at = top + ky * D, iy = at / spread;
            int is_pixel = at >= 0 && at % spread == 0 && iy < H;
            rows[ky] = is_pixel ? kept + iy % held * row + c / LANES * padded : NULL;
        }
        int64_t n = C - c < LANES ? C - c : LANES;
        vec first = bias ? load_some_f32(bias + c, n) : (vec){0};
#define OUTPUTS(K, D, stride)                                                                      \
    OF(output_row)(rows, taps + c * K * K, first, made + c * (OW + 1), OW, K, D, stride)
        if (K == 3 && D == 1 && stride == 1) OUTPUTS(3, 1, 1);
        else if (K == 3 && D == 1 && stride == 2) OUTPUTS(3, 1, 2);
        else if (K == 5 && D == 1 && stride == 1) OUTPUTS(5, 1, 1);
        else if (K == 7 && stride == 1) OUTPUTS(7, D, 1);
        else OUTPUTS(K, D, stride);
#undef OUTPUTS
    }
    return next;
}

/* A depthwise convolution by taps that lie D pixels apart, of pixels that lie `spread` apart, with
 * zeros between; one of the two, stride and spread, is 1. w is [k][c] of whole registers of
 * channels, bias may be NULL. */
void OF(depthwise_apply)(const T *x, const float *w, const float *bias, T *y, const float *scale,
                         const float *shift, int64_t kind, int64_t B, int64_t H, int64_t W,
                         int64_t C, int64_t OH, int64_t OW, int64_t K, int64_t D, int64_t stride,
                         int64_t spread, int64_t pad) {
    int64_t N = whole(C), size = K * K * N, padded = padded_row(W, OW, K, D, stride, spread, pad);
    int64_t held = held_rows(H, K, D) * N / LANES * padded;
    int streams = C % LANES == 0 && is_large(y, (size_t)(B * OH * OW * C) * sizeof(T));
    _Pragma("omp parallel")
    {
        /* the last rows; the taps; the outputs of a row */
        float *kept = calloc((size_t)(held + size + (OW + 1) * N), sizeof(float));
        float *taps = kept + held, *made = taps + size;
        const float **rows = malloc((size_t)K * sizeof(float *));
        by_register(taps, w, K, N);
        _Pragma("omp for schedule(static)")
        for (int64_t b = 0; b < B; b++) {
            int64_t next = 0;
            for (int64_t oy = 0; oy < OH; oy++) {
                next = OF(make_row)(x + b * H * W * C, taps, bias, made, kept, rows, next, oy, H, W,
                                    C, OW, padded, K, D, stride, spread, pad, scale, shift, kind);
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

/* All gradients of a depthwise convolution behind a normalization and its activation. An image is
 * read for the weights, and once more, from the cache, for the map. turned are the filters turned
 * round, [k][c]; d receives the gradient before the activation, of which norm_gradient makes that
 * of x by the plan. C fills whole registers. */
void OF(depthwise_backward)(const T *g, const T *x, const float *turned, T *d, float *dw,
                            float *plan, const float *mean, const float *invstd,
                            const float *scale, const float *shift, float *dweight, float *dbias,
                            int64_t kind, int64_t B, int64_t H, int64_t W, int64_t C, int64_t OH,
                            int64_t OW, int64_t K, int64_t D, int64_t stride, int64_t pad) {
    int threads = omp_get_max_threads();
    int64_t size = K * K * C, edge = span(K, D) - 1 - pad, step = size + 2 * C;
    int64_t padded = padded_row(OW, W, K, D, 1, stride, edge);
    int64_t held = held_rows(OH, K, D) * C / LANES * padded;
    int64_t held_of_x = held_rows(H, K, D) * C * (W + 2 * pad);
    int streams = is_large(d, (size_t)(B * H * W * C) * sizeof(T));
    double *totals = calloc((size_t)(threads * step), sizeof(double));
    _Pragma("omp parallel")
    {
        double *mine = totals + omp_get_thread_num() * step;
        /* sums of an image: of the weights, s and q of the map; rows of x and g; taps; one row */
        float *sums = calloc((size_t)(step + held_of_x + held + size + ((W > OW ? W : OW) + 1) * C),
                             sizeof(float));
        float *s = sums + size, *q = s + C, *kept_x = q + C, *kept = kept_x + held_of_x;
        float *taps = kept + held, *made = taps + size;
        const float **rows = malloc((size_t)K * sizeof(float *));
        by_register(taps, turned, K, C);
        _Pragma("omp for schedule(static)")
        for (int64_t b = 0; b < B; b++) {
            const T *image = x + b * H * W * C, *up = g + b * OH * OW * C;
            OF(add_up_weight)(up, image, sums, made, kept_x, H, W, C, OH, OW, K, D, stride, pad,
                              scale, shift, kind);
            int64_t next = 0;
            for (int64_t iy = 0; iy < H; iy++) {
                next = OF(make_row)(up, taps, NULL, made, kept, rows, next, iy, OH, OW, C, W,
                                    padded, K, D, 1, stride, edge, NULL, NULL, NONE);
#define GATED(kind, streams)                                                                       \
    OF(gated_row)(d + (b * H + iy) * W * C, made, image + iy * W * C, W, C, scale, shift, mean, s, \
                  q, kind, streams)
                if (kind == RELU && streams) GATED(RELU, 1);
                else if (kind == RELU) GATED(RELU, 0);
                else if (streams) GATED(RELU6, 1);
                else GATED(RELU6, 0);
#undef GATED
            }
            for (int64_t i = 0; i < step; i++) mine[i] += sums[i], sums[i] = 0;
        }
        if (streams) end_stream();
        free(sums);
        free(rows);
    }
    for (int64_t i = 0; i < size; i++) dw[i] = (float)total(totals, i, C, 1, step, threads);
    for (int64_t c = 0; c < C; c++) {
        double sum = total(totals + size, c, C, 1, step, threads);
        double dot = total(totals + size + C, c, C, 1, step, threads);
        plan_gradient(c, sum, dot, B * H * W, C, mean, invstd, scale, plan, dweight, dbias);
    }
    free(totals);
}
