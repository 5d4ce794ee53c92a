/* 3x3 convolutions of float maps, of stride 1, with a quarter of the multiplications:
 * F(4x4, 3x3) of Lavin & Gray 2015, arXiv:1509.09308, section 4.3; winograd.py has its matrices.
 *
 * Tiles of 4x4 pixels of output are taken together, from all images. The window of 6x6 pixels that
 * a tile depends on becomes 36 parts, each part is multiplied by that of the filters, and 36 parts
 * of the output become 4x4 pixels. TILES at a time stay in the cache, where torch's operations
 * would write the parts of all tiles to memory. Parts have channels enough to fill registers. */

#define PARTS 36
#define TILES 24 /* a multiple of the rows that are multiplied together */

#if LANES == 16
#define MANY_ROWS 12 /* rows times registers of columns: their sums stay in registers */
#define FEW_ROWS 12
#else
#define MANY_ROWS 6
#define FEW_ROWS 12
#endif

/* Parts lie a little further apart than they are long, or they would share places in the cache. */
INLINE int64_t part_pitch(int64_t channels) { return TILES * channels + 16; }

INLINE void input_parts(const vec d[6], vec t[6]) {
    vec a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
    t[0] = 4 * d[0] - 5 * d[2] + d[4];
    t[1] = a + b, t[2] = a - b, t[3] = c + e, t[4] = c - e;
    t[5] = 4 * d[1] - 5 * d[3] + d[5];
}

INLINE void output_pixels(const vec m[6], vec y[4]) {
    vec a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], e = m[3] - m[4];
    y[0] = m[0] + a + c;
    y[1] = b + 2 * e;
    y[2] = a + 4 * c;
    y[3] = b + 8 * e + m[5];
}

INLINE void output_parts(const vec y[4], vec z[6]) { /* the transpose of output_pixels */
    vec a = y[0] + y[2], b = y[1] + y[3], c = y[0] + 4 * y[2], e = 2 * y[1] + 8 * y[3];
    z[0] = y[0];
    z[1] = a + b, z[2] = a - b, z[3] = c + e, z[4] = c - e;
    z[5] = y[3];
}

/* A map of pixels, cut so that tile t of the output depends on what is `edge` pixels before it. */
typedef struct {
    float *at;
    int64_t H, W, C, rows, columns, edge; /* rows and columns of tiles */
} cut_map;

static cut_map cut(const float *at, int64_t H, int64_t W, int64_t C, int64_t OH, int64_t OW,
                   int64_t edge) {
    return (cut_map){(float *)at, H, W, C, (OH + 3) / 4, (OW + 3) / 4, edge};
}

/* Where the pixels of tile t lie, size x size of them; those that are not on the map: `outside`. */
INLINE void find_pixels(float *pixels[], const cut_map *x, float *outside, int64_t t, int size) {
    int64_t b = t / (x->rows * x->columns), of_map = t % (x->rows * x->columns);
    int64_t top = of_map / x->columns * 4 - x->edge, left = of_map % x->columns * 4 - x->edge;
    for (int i = 0; i < size; i++)
        for (int j = 0; j < size; j++) {
            int64_t row = top + i, column = left + j;
            int on_map = row >= 0 && row < x->H && column >= 0 && column < x->W;
            pixels[i * size + j] =
                on_map ? x->at + ((b * x->H + row) * x->W + column) * x->C : outside;
        }
}

#define CHANNELS_OF(from) (c + LANES <= C ? load_f32((from) + c) : load_some_f32((from) + c, C - c))

/* The parts of n tiles, from tile `first` on: [36][n][channels], each part `pitch` after the one
 * before. A tile is a window of 6x6 pixels of the input, or 4x4 of the output's gradient. */
INLINE void find_parts(const cut_map *x, float *parts, float *zeros, int64_t first, int64_t n,
                       int64_t pitch, int size) {
    int64_t C = x->C, N = whole(C);
    float *at[36];
    for (int64_t t = 0; t < n; t++) {
        find_pixels(at, x, zeros, first + t, size);
        for (int64_t c = 0; c < N; c += LANES) {
            vec half[6][6], column[6], done[6];
            for (int j = 0; j < size; j++) {
                for (int i = 0; i < size; i++) column[i] = CHANNELS_OF(at[i * size + j]);
                if (size == 6) input_parts(column, done);
                else output_parts(column, done);
                for (int i = 0; i < 6; i++) half[i][j] = done[i];
            }
            for (int i = 0; i < 6; i++) {
                if (size == 6) input_parts(half[i], done);
                else output_parts(half[i], done);
                for (int j = 0; j < 6; j++)
                    store_f32(parts + (i * 6 + j) * pitch + t * N + c, done[j]);
            }
        }
    }
}

static void window_parts(const cut_map *x, float *parts, float *zeros, int64_t first, int64_t n,
                         int64_t pitch) {
    find_parts(x, parts, zeros, first, n, pitch, 6);
}

static void gradient_parts(const cut_map *g, float *parts, float *zeros, int64_t first, int64_t n,
                           int64_t pitch) {
    find_parts(g, parts, zeros, first, n, pitch, 4);
}

/* 4x4 pixels of each tile from its parts, plus a bias */
static void write_pixels(const float *parts, const float *bias, const cut_map *y, float *nowhere,
                         int64_t first, int64_t n, int64_t pitch) {
    int64_t C = y->C, N = whole(C);
    float *at[16];
    for (int64_t t = 0; t < n; t++) {
        find_pixels(at, y, nowhere, first + t, 4);
        for (int64_t c = 0; c < N; c += LANES) {
            vec half[4][6], column[6], done[4];
            for (int j = 0; j < 6; j++) {
                for (int i = 0; i < 6; i++)
                    column[i] = load_f32(parts + (i * 6 + j) * pitch + t * N + c);
                output_pixels(column, done);
                for (int i = 0; i < 4; i++) half[i][j] = done[i];
            }
            for (int i = 0; i < 4; i++) {
                output_pixels(half[i], done);
                for (int j = 0; j < 4; j++) {
                    vec pixel = done[j] + load_f32(bias + c);
                    if (c + LANES <= C) store_f32(at[i * 4 + j] + c, pixel);
                    else store_some_f32(at[i * 4 + j] + c, pixel, C - c);
                }
            }
        }
    }
}

/* m = v u, for some rows of v and some registers of columns; u is (CI, CO), v has rows of `length` */
INLINE void multiply_some(const float *v, const float *u, float *m, int64_t CI, int64_t length,
                          int64_t CO, int rows, int columns) {
    vec sums[12][2];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) sums[r][c] = (vec){0};
    for (int64_t k = 0; k < CI; k++, u += CO) {
        vec filters[2];
        for (int c = 0; c < columns; c++) filters[c] = load_f32(u + c * LANES);
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < columns; c++) sums[r][c] += v[r * length + k] * filters[c];
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) store_f32(m + r * CO + c * LANES, sums[r][c]);
}

static void multiply_parts(const float *v, const float *u, float *m, int64_t CI, int64_t CO) {
    int64_t c = 0, length = whole(CI);
    for (; c + 2 * LANES <= CO; c += 2 * LANES)
        for (int64_t r = 0; r < TILES; r += MANY_ROWS)
            multiply_some(v + r * length, u + c, m + r * CO + c, CI, length, CO, MANY_ROWS, 2);
    for (; c < CO; c += LANES)
        for (int64_t r = 0; r < TILES; r += FEW_ROWS)
            multiply_some(v + r * length, u + c, m + r * CO + c, CI, length, CO, FEW_ROWS, 1);
}

/* y (B, OH, OW, CO) of x (B, H, W, CI), the parts of the filters [36][CI][CO filled up], and a
 * bias or NULL */
void winograd_apply_f32(const float *x, const float *filters, const float *bias, float *y,
                        int64_t B, int64_t H, int64_t W, int64_t CI, int64_t OH, int64_t OW,
                        int64_t CO, int64_t edge) {
    cut_map from = cut(x, H, W, CI, OH, OW, edge), to = cut(y, OH, OW, CO, OH, OW, 0);
    int64_t tiles = B * to.rows * to.columns, blocks = (tiles + TILES - 1) / TILES;
    int64_t N = whole(CO), in = part_pitch(whole(CI)), out = part_pitch(N);
    _Pragma("omp parallel")
    {
        float *parts = calloc((size_t)(PARTS * (in + out) + CI + 2 * N), sizeof(float));
        float *products = parts + PARTS * in, *offset = products + PARTS * out;
        float *nowhere = offset + N, *zeros = nowhere + N;
        if (bias) memcpy(offset, bias, (size_t)CO * sizeof(float));
        _Pragma("omp for schedule(static)")
        for (int64_t block = 0; block < blocks; block++) {
            int64_t first = block * TILES, n = tiles - first < TILES ? tiles - first : TILES;
            window_parts(&from, parts, zeros, first, n, in);
            for (int64_t p = 0; p < PARTS; p++)
                multiply_parts(parts + p * in, filters + p * CI * N, products + p * out, CI, N);
            write_pixels(products, offset, &to, nowhere, first, n, out);
        }
        free(parts);
    }
}

/* sums += v' z, for some rows of it and some registers of columns, over n tiles */
INLINE void add_products(const float *v, const float *z, float *sums, int64_t n, int64_t CI,
                         int64_t CO, int rows, int columns) {
    vec total[8][2];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) total[r][c] = load_f32(sums + r * CO + c * LANES);
    for (int64_t t = 0; t < n; t++, v += CI, z += CO) {
        vec errors[2];
        for (int c = 0; c < columns; c++) errors[c] = load_f32(z + c * LANES);
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < columns; c++) total[r][c] += v[r] * errors[c];
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) store_f32(sums + r * CO + c * LANES, total[r][c]);
}

/* parts of the gradient of the filters [36][CI][CO], both filled up, from that of y */
void winograd_weight_f32(const float *g, const float *x, float *found, int64_t B, int64_t H,
                         int64_t W, int64_t CI, int64_t OH, int64_t OW, int64_t CO, int64_t edge) {
    cut_map from = cut(x, H, W, CI, OH, OW, edge), up = cut(g, OH, OW, CO, OH, OW, 0);
    int64_t tiles = B * up.rows * up.columns, blocks = (tiles + TILES - 1) / TILES;
    int64_t M = whole(CI), N = whole(CO), in = part_pitch(M), out = part_pitch(N);
    int64_t size = PARTS * M * N;
    int threads = omp_get_max_threads();
    float *totals = calloc((size_t)(threads * size), sizeof(float));
    _Pragma("omp parallel")
    {
        float *sums = totals + omp_get_thread_num() * size;
        float *parts = calloc((size_t)(PARTS * (in + out) + M + N), sizeof(float));
        float *errors = parts + PARTS * in, *zeros = errors + PARTS * out;
        _Pragma("omp for schedule(static)")
        for (int64_t block = 0; block < blocks; block++) {
            int64_t first = block * TILES, n = tiles - first < TILES ? tiles - first : TILES;
            window_parts(&from, parts, zeros, first, n, in);
            gradient_parts(&up, errors, zeros, first, n, out);
            for (int64_t p = 0; p < PARTS; p++)
                for (int64_t i = 0; i < M; i += 4) {
                    float *to = sums + (p * M + i) * N;
                    const float *v = parts + p * in + i, *z = errors + p * out;
                    int64_t c = 0;
                    for (; c + 2 * LANES <= N; c += 2 * LANES)
                        add_products(v, z + c, to + c, n, M, N, 4, 2);
                    for (; c < N; c += LANES) add_products(v, z + c, to + c, n, M, N, 4, 1);
                }
        }
        free(parts);
        _Pragma("omp for schedule(static)")
        for (int64_t i = 0; i < size; i++) { /* in the order of threads: the same each time */
            float sum = 0;
            for (int t = 0; t < threads; t++) sum += totals[t * size + i];
            found[i] = sum;
        }
    }
    free(totals);
}

/* The same in steps, for so many channels that the filters alone fill the cache: torch multiplies
 * the parts [36][n][C] of n tiles, from tile `first` on. C fills whole registers. */
void winograd_parts_f32(const float *x, float *parts, int64_t H, int64_t W, int64_t C, int64_t OH,
                        int64_t OW, int64_t edge, int64_t first, int64_t n, int64_t size) {
    cut_map from = cut(x, H, W, C, OH, OW, edge);
    _Pragma("omp parallel")
    {
        float *zeros = calloc((size_t)C, sizeof(float));
        _Pragma("omp for schedule(static)")
        for (int64_t t = 0; t < n; t++)
            if (size == 6) window_parts(&from, parts + t * C, zeros, first + t, 1, n * C);
            else gradient_parts(&from, parts + t * C, zeros, first + t, 1, n * C);
        free(zeros);
    }
}

void winograd_pixels_f32(const float *parts, const float *bias, float *y, int64_t OH, int64_t OW,
                         int64_t C, int64_t first, int64_t n) {
    cut_map to = cut(y, OH, OW, C, OH, OW, 0);
    _Pragma("omp parallel")
    {
        float *offset = calloc((size_t)(2 * C), sizeof(float)), *nowhere = offset + C;
        if (bias) memcpy(offset, bias, (size_t)C * sizeof(float));
        _Pragma("omp for schedule(static)")
        for (int64_t t = 0; t < n; t++)
            write_pixels(parts + t * C, offset, &to, nowhere, first + t, 1, n * C);
        free(offset);
    }
}
