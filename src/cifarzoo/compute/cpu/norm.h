/* Batch normalization of maps of one type of number, T. */

/* The row that is left when rows are taken together, filled up: y[i] = i < n ? x[i] : fill[i] */
static void OF(fill_up)(T *y, const T *x, int64_t n, int64_t W, const float *fill) {
    for (int64_t j = 0; j < W; j += LANES) OF(store)(y + j, load_f32(fill + j));
    memcpy(y, x, (size_t)n * sizeof(T));
}

/* Sums of x - first and of its squares, over n rows; of `columns` registers at a time. Rows lie
 * apart, which processors do not foresee, so each asks for its place in the next block. */
INLINE void OF(add_up_columns)(const T *x, const float *first, float *s, float *q, int64_t n,
                               int64_t W, int columns) {
    vec f[4], sum[4], square[4];
    for (int i = 0; i < columns; i++) {
        f[i] = load_f32(first + i * LANES);
        sum[i] = square[i] = (vec){0};
    }
    for (int64_t r = 0; r < n; r++, x += W)
        for (int i = 0; i < columns; i++) {
            __builtin_prefetch(x + ROWS * W + i * LANES, 0, 2);
            vec v = OF(load)(x + i * LANES) - f[i];
            sum[i] += v;
            square[i] += v * v;
        }
    for (int i = 0; i < columns; i++) {
        store_f32(s + i * LANES, sum[i]);
        store_f32(q + i * LANES, square[i]);
    }
}

/* The same, row by row with the sums in memory: wide maps of float come from there in order. */
INLINE void OF(add_up_in_order)(const T *x, const float *first, float *s, float *q, int64_t n,
                                int64_t W) {
    for (int64_t r = 0; r < n; r++, x += W)
        for (int64_t j = 0; j < W; j += LANES) {
            vec v = OF(load)(x + j) - load_f32(first + j);
            store_f32(s + j, load_f32(s + j) + v);
            store_f32(q + j, load_f32(q + j) + v * v);
        }
}

INLINE void OF(add_up_rows)(const T *x, const float *first, float *s, float *q, int64_t n,
                            int64_t W) {
    if (IN_ORDER(T, W)) {
        OF(add_up_in_order)(x, first, s, q, n, W);
        return;
    }
    int64_t j = 0;
    for (; j + 4 * LANES <= W; j += 4 * LANES)
        OF(add_up_columns)(x + j, first + j, s + j, q + j, n, W, 4);
    for (; j < W; j += LANES) OF(add_up_columns)(x + j, first + j, s + j, q + j, n, W, 1);
}

/* Sums of x - near and of its squares, for each channel; near may be NULL for 0. */
static void OF(add_up)(const T *x, const float *near, double *sum, double *square, int64_t rows,
                       int64_t C) {
    int64_t together = rows_together(C), W = together * C, wide = rows / together;
    int64_t blocks = (wide + ROWS - 1) / ROWS, rest = rows % together * C;
    int threads = omp_get_max_threads();
    double *sums = calloc((size_t)(threads * 2 * W), sizeof(double));
    float *first = malloc((size_t)W * sizeof(float));
    repeat(first, near, C, together, 0);
    _Pragma("omp parallel")
    {
        double *mine = sums + omp_get_thread_num() * 2 * W;
        float *s = calloc((size_t)(2 * W), sizeof(float)), *q = s + W;
        T *left = malloc((size_t)W * sizeof(T));
        _Pragma("omp for schedule(static)")
        for (int64_t block = 0; block < blocks + (rest > 0); block++) {
            int64_t from = block * ROWS, n = wide - from < ROWS ? wide - from : ROWS;
            if (block < blocks) OF(add_up_rows)(x + from * W, first, s, q, n, W);
            else {
                OF(fill_up)(left, x + wide * W, rest, W, first);
                OF(add_up_rows)(left, first, s, q, 1, W);
            }
            for (int64_t j = 0; j < 2 * W; j++) mine[j] += s[j], s[j] = 0;
        }
        free(left);
        free(s);
    }
    for (int64_t c = 0; c < C; c++) {
        sum[c] = total(sums, c, C, together, 2 * W, threads);
        square[c] = total(sums + W, c, C, together, 2 * W, threads);
    }
    free(sums);
    free(first);
}

/* sums of each channel */
void OF(channel_sums)(const T *x, float *sums, int64_t rows, int64_t C) {
    double *found = malloc((size_t)(2 * C) * sizeof(double));
    OF(add_up)(x, NULL, found, found + C, rows, C);
    for (int64_t c = 0; c < C; c++) sums[c] = (float)found[c];
    free(found);
}

/* mean and 1 / deviation of each channel; scale and shift that normalize it; the running mean and
 * variance move towards those of x */
void OF(norm_statistics)(const T *x, const float *weight, const float *bias, float *mean,
                         float *invstd, float *scale, float *shift, float *running_mean,
                         float *running_var, int64_t rows, int64_t C, double momentum,
                         double eps) {
    double *sum = malloc((size_t)(2 * C) * sizeof(double)), *square = sum + C;
    float *near = malloc((size_t)C * sizeof(float));
    /* less something near the mean, or the squares would cancel */
    for (int64_t c = 0; c < C; c++) near[c] = OF(load_some)(x + c, 1)[0];
    OF(add_up)(x, near, sum, square, rows, C);
    for (int64_t c = 0; c < C; c++) {
        double m = sum[c] / (double)rows, v = square[c] / (double)rows - m * m;
        if (v < 0) v = 0;
        mean[c] = (float)(m + near[c]);
        double unbiased = v * ((double)rows / (double)(rows - 1));
        running_mean[c] = (float)(running_mean[c] + momentum * (mean[c] - running_mean[c]));
        running_var[c] = (float)(running_var[c] + momentum * (unbiased - running_var[c]));
        invstd[c] = (float)(1 / sqrt(v + eps));
        scale[c] = (weight ? weight[c] : 1) * invstd[c];
        shift[c] = (bias ? bias[c] : 0) - mean[c] * scale[c];
    }
    free(sum);
    free(near);
}

/* y = act(x scale + shift + other) */
INLINE void OF(apply_row)(const T *x, const T *other, T *y, const float *scale,
                          const float *shift, int64_t W, int kind, int adds, int streams) {
    for (int64_t j = 0; j < W; j += LANES) {
        vec v = OF(load)(x + j) * load_f32(scale + j) + load_f32(shift + j);
        if (adds) v += OF(load)(other + j);
        v = activate(v, kind);
        if (streams) OF(stream)(y + j, v);
        else OF(store)(y + j, v);
    }
}

INLINE void OF(apply)(const T *x, const T *other, T *y, const float *scale, const float *shift,
                      int64_t rows, int64_t C, int64_t together, int kind, int adds) {
    int64_t W = together * C, wide = rows / together, rest = rows % together * C;
    int streams = is_large(y, (size_t)(rows * C) * sizeof(T));
    _Pragma("omp parallel")
    {
#define APPLY(streams)                                                                             \
    OF(apply_row)(x + r * W, other + r * W * adds, y + r * W, scale, shift, W, kind, adds, streams)
        _Pragma("omp for schedule(static)")
        for (int64_t r = 0; r < wide; r++) {
            if (streams) APPLY(1);
            else APPLY(0);
        }
        if (streams) end_stream();
#undef APPLY
    }
    if (rest) {
        T *left = calloc((size_t)(3 * W), sizeof(T));
        memcpy(left, x + wide * W, (size_t)rest * sizeof(T));
        if (adds) memcpy(left + W, other + wide * W, (size_t)rest * sizeof(T));
        OF(apply_row)(left, left + W, left + 2 * W, scale, shift, W, kind, adds, 0);
        memcpy(y + wide * W, left + 2 * W, (size_t)rest * sizeof(T));
        free(left);
    }
}

void OF(norm_apply)(const T *x, const T *other, T *y, const float *scale, const float *shift,
                    int64_t rows, int64_t C, int64_t kind) {
    int64_t n = rows_together(C);
    float *a = malloc((size_t)(2 * n * C) * sizeof(float)), *b = a + n * C;
    repeat(a, scale, C, n, 1);
    repeat(b, shift, C, n, 0);
    if (other && kind == RELU) OF(apply)(x, other, y, a, b, rows, C, n, RELU, 1);
    else if (other) OF(apply)(x, other, y, a, b, rows, C, n, NONE, 1);
    else if (kind == RELU) OF(apply)(x, x, y, a, b, rows, C, n, RELU, 0);
    else if (kind == RELU6) OF(apply)(x, x, y, a, b, rows, C, n, RELU6, 0);
    else OF(apply)(x, x, y, a, b, rows, C, n, NONE, 0);
    free(a);
}

/* What the gradient is before the activation, and its two sums: alone and along the input.
 * Either x tells where the activation lets it through, or y, what came out; then d keeps it. */
INLINE void OF(add_up_gradients_of)(const T *g, const T *x, const T *y, T *d, const float *scale,
                                    const float *shift, const float *mean, float *s, float *q,
                                    int64_t n, int64_t W, int kind, int keeps, int columns) {
    vec k[4], h[4], m[4], sum[4], along[4];
    for (int i = 0; i < columns; i++) {
        k[i] = load_f32(scale + i * LANES);
        h[i] = load_f32(shift + i * LANES);
        m[i] = load_f32(mean + i * LANES);
        sum[i] = along[i] = (vec){0};
    }
    for (int64_t r = 0; r < n; r++)
        for (int i = 0; i < columns; i++) {
            int64_t at = r * W + i * LANES;
            __builtin_prefetch(x + ROWS * W + at, 0, 2);
            __builtin_prefetch(g + ROWS * W + at, 0, 2);
            vec v = OF(load)(x + at), up = OF(load)(g + at);
            if (keeps) {
                up = let_through(up, OF(load)(y + at), kind);
                OF(store)(d + at, up);
            } else if (kind != NONE) up = let_through(up, v * k[i] + h[i], kind);
            sum[i] += up;
            along[i] += up * (v - m[i]);
        }
    for (int i = 0; i < columns; i++) {
        store_f32(s + i * LANES, sum[i]);
        store_f32(q + i * LANES, along[i]);
    }
}

INLINE void OF(add_up_gradients_in_order)(const T *g, const T *x, const T *y, T *d,
                                          const float *scale, const float *shift,
                                          const float *mean, float *s, float *q, int64_t n,
                                          int64_t W, int kind, int keeps) {
    for (int64_t r = 0; r < n; r++)
        for (int64_t j = 0; j < W; j += LANES) {
            int64_t at = r * W + j;
            vec v = OF(load)(x + at), up = OF(load)(g + at);
            if (keeps) {
                up = let_through(up, OF(load)(y + at), kind);
                OF(store)(d + at, up);
            } else if (kind != NONE)
                up = let_through(up, v * load_f32(scale + j) + load_f32(shift + j), kind);
            store_f32(s + j, load_f32(s + j) + up);
            store_f32(q + j, load_f32(q + j) + up * (v - load_f32(mean + j)));
        }
}

INLINE void OF(add_up_gradients)(const T *g, const T *x, const T *y, T *d, const float *scale,
                                 const float *shift, const float *mean, float *s, float *q,
                                 int64_t n, int64_t W, int kind, int keeps) {
    if (IN_ORDER(T, W)) {
        OF(add_up_gradients_in_order)(g, x, y, d, scale, shift, mean, s, q, n, W, kind, keeps);
        return;
    }
#define COLUMNS(n_of)                                                                              \
    OF(add_up_gradients_of)(g + j, x + j, y + j * keeps, d + j * keeps, scale + j, shift + j,      \
                            mean + j, s + j, q + j, n, W, kind, keeps, n_of)
    int64_t j = 0;
    for (; j + 4 * LANES <= W; j += 4 * LANES) COLUMNS(4);
    for (; j < W; j += LANES) COLUMNS(1);
#undef COLUMNS
}

/* dx = scale d + a + b x, and more, if it adds; one register of it */
INLINE void OF(gradient_at)(int64_t i, const T *g, const T *x, const T *more, T *dx,
                            const float *scale, const float *shift, const float *a, const float *b,
                            int kind, int adds, int streams) {
    vec v = OF(load)(x + i), d = OF(load)(g + i), k = load_f32(scale + i);
    if (kind != NONE) d = let_through(d, v * k + load_f32(shift + i), kind);
    d = d * k + (load_f32(a + i) + v * load_f32(b + i));
    if (adds) d += OF(load)(more + i);
    if (streams) OF(stream)(dx + i, d);
    else OF(store)(dx + i, d);
}

/* W numbers of it, which fill a register */
INLINE void OF(gradient_row)(const T *g, const T *x, const T *more, T *dx, const float *scale,
                             const float *shift, const float *a, const float *b, int64_t W,
                             int kind, int adds, int streams) {
    int64_t j = 0;
    for (; j + LANES <= W; j += LANES)
        OF(gradient_at)(j, g, x, more, dx, scale, shift, a, b, kind, adds, streams);
    if (j < W) /* the last ones once more */
        OF(gradient_at)(W - LANES, g, x, more, dx, scale, shift, a, b, kind, adds, 0);
}

INLINE void OF(backward)(const T *g, const T *x, const T *y, T *dx, T *other, float *plan,
                         const float *mean, const float *invstd, const float *scale,
                         const float *shift, float *dweight, float *dbias, int64_t rows, int64_t C,
                         int kind, int keeps) {
    int64_t together = rows_together(C), W = together * C, wide = rows / together;
    int64_t blocks = (wide + ROWS - 1) / ROWS, rest = rows % together * C;
    int threads = omp_get_max_threads();
    double *sums = calloc((size_t)(threads * 2 * W), sizeof(double));
    float *k = malloc((size_t)(5 * W) * sizeof(float)), *h = k + W, *m = h + W, *a = m + W;
    float *b = a + W;
    T *left = calloc((size_t)(5 * W), sizeof(T)); /* the row that is left: g, x, y, dx, other */
    repeat(k, scale, C, together, 1);
    repeat(h, shift, C, together, 0);
    repeat(m, mean, C, together, 0);
    if (rest) {
        memcpy(left, g + wide * W, (size_t)rest * sizeof(T));
        memcpy(left + W, x + wide * W, (size_t)rest * sizeof(T));
        if (keeps) memcpy(left + 2 * W, y + wide * W, (size_t)rest * sizeof(T));
    }
    _Pragma("omp parallel")
    {
        double *mine = sums + omp_get_thread_num() * 2 * W;
        float *s = calloc((size_t)(2 * W), sizeof(float)), *q = s + W;
        _Pragma("omp for schedule(static)")
        for (int64_t block = 0; block < blocks + (rest > 0); block++) {
            int64_t at = block * ROWS * W;
            int64_t n = wide - block * ROWS < ROWS ? wide - block * ROWS : ROWS;
            if (block < blocks)
                OF(add_up_gradients)(g + at, x + at, keeps ? y + at : y, keeps ? other + at : other,
                                     k, h, m, s, q, n, W, kind, keeps);
            else
                OF(add_up_gradients)(left, left + W, left + 2 * W, left + 4 * W, k, h, m, s, q, 1,
                                     W, kind, keeps);
            for (int64_t j = 0; j < 2 * W; j++) mine[j] += s[j], s[j] = 0;
        }
        free(s);
        _Pragma("omp single")
        for (int64_t c = 0; c < C; c++) {
            double sum = total(sums, c, C, together, 2 * W, threads);
            double dot = total(sums + W, c, C, together, 2 * W, threads);
            plan_gradient(c, sum, dot, rows, C, mean, invstd, scale, plan, dweight, dbias);
        }
        _Pragma("omp single")
        {
            repeat(a, plan, C, together, 0);
            repeat(b, plan + C, C, together, 0);
        }
        const T *up = keeps ? other : g; /* what is kept has passed the activation */
        int64_t last = dx ? wide : 0;
        int streams = dx && is_large(dx, (size_t)(rows * C) * sizeof(T));
#define GRADIENT(streams)                                                                          \
    OF(gradient_row)(up + r * W, x + r * W, NULL, dx + r * W, k, h, a, b, W, keeps ? NONE : kind,  \
                     0, streams)
        _Pragma("omp for schedule(static)")
        for (int64_t r = 0; r < last; r++) {
            if (streams) GRADIENT(1);
            else GRADIENT(0);
        }
        if (streams) end_stream();
#undef GRADIENT
    }
    if (rest && dx) {
        OF(gradient_row)(keeps ? left + 4 * W : left, left + W, NULL, left + 3 * W, k, h, a, b, W,
                         keeps ? NONE : kind, 0, 0);
        memcpy(dx + wide * W, left + 3 * W, (size_t)rest * sizeof(T));
        if (keeps) memcpy(other + wide * W, left + 4 * W, (size_t)rest * sizeof(T));
    }
    free(sums);
    free(k);
    free(left);
}

/* y and other are NULL, but where something was added before the activation, whose gradient other
 * is; dx may be NULL, and be computed by norm_gradient by the plan later */
void OF(norm_backward)(const T *g, const T *x, const T *y, T *dx, T *other, float *plan,
                       const float *mean, const float *invstd, const float *scale,
                       const float *shift, float *dweight, float *dbias, int64_t rows, int64_t C,
                       int64_t kind) {
#define BACKWARD(kind, keeps)                                                                      \
    OF(backward)(g, x, y, dx, other, plan, mean, invstd, scale, shift, dweight, dbias, rows, C,  \
                 kind, keeps)
    if (other) BACKWARD(RELU, 1);
    else if (kind == RELU) BACKWARD(RELU, 0);
    else if (kind == RELU6) BACKWARD(RELU6, 0);
    else BACKWARD(NONE, 0);
#undef BACKWARD
}

/* dx by the plan, and more, if it adds, whose rows are `pitch` apart; C fills a register */
INLINE void OF(gradient)(const T *g, const T *x, const T *more, T *dx, const float *plan,
                         const float *scale, const float *shift, int64_t rows, int64_t C,
                         int64_t pitch, int kind, int adds) {
    /* rows may begin within a register, but some together fill whole ones */
    int64_t together = rows_together(C), W = together * C;
    int streams = is_large(dx, (size_t)(rows * C) * sizeof(T));
    _Pragma("omp parallel")
    {
        T *part = malloc((size_t)W * sizeof(T));
        _Pragma("omp for schedule(static)")
        for (int64_t from = 0; from < rows; from += together) {
            int64_t to = from + together < rows ? from + together : rows;
            int whole = streams && to == from + together;
            for (int64_t r = from; r < to; r++)
                OF(gradient_row)(g + r * C, x + r * C, adds ? more + r * pitch : NULL,
                                 whole ? part + (r - from) * C : dx + r * C, scale, shift, plan,
                                 plan + C, C, kind, adds, 0);
            if (whole) OF(stream_all)(dx + from * C, part, W);
        }
        if (streams) end_stream();
        free(part);
    }
}

void OF(norm_gradient)(const T *g, const T *x, const T *more, T *dx, const float *plan,
                       const float *scale, const float *shift, int64_t rows, int64_t C,
                       int64_t pitch, int64_t kind) {
#define GRADIENT(kind)                                                                             \
    do {                                                                                           \
        if (more) OF(gradient)(g, x, more, dx, plan, scale, shift, rows, C, pitch, kind, 1);       \
        else OF(gradient)(g, x, NULL, dx, plan, scale, shift, rows, C, 0, kind, 0);                \
    } while (0)
    if (kind == RELU) GRADIENT(RELU);
    else if (kind == RELU6) GRADIENT(RELU6);
    else GRADIENT(NONE);
#undef GRADIENT
}
