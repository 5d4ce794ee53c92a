/* Convolutions of 1x1 pixels of float maps: products of the pixels' channels and a matrix. */

#define PIXELS 48 /* taken together: a multiple of the rows that are multiplied together */

/* Some pixels of y = x w + bias, and some registers of their channels; w is (CI, CO). */
INLINE void some_pixels(const float *x, const float *w, const float *bias, float *y, int64_t CI,
                        int64_t CO, int rows, int columns, int streams) {
    vec sums[12][3];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) sums[r][c] = load_f32(bias + c * LANES);
    for (int64_t k = 0; k < CI; k++, w += CO) {
        vec filters[3];
        for (int c = 0; c < columns; c++) filters[c] = load_f32(w + c * LANES);
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < columns; c++) sums[r][c] += x[r * CI + k] * filters[c];
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++)
            if (streams) stream_f32(y + r * CO + c * LANES, sums[r][c]);
            else store_f32(y + r * CO + c * LANES, sums[r][c]);
}

INLINE void some_channels(const float *x, const float *w, const float *bias, float *y, int64_t n,
                          int64_t CI, int64_t CO, int rows, int columns, int streams) {
    int64_t r = 0;
    for (; r + rows <= n; r += rows)
        some_pixels(x + r * CI, w, bias, y + r * CO, CI, CO, rows, columns, streams);
    for (; r < n; r++) some_pixels(x + r * CI, w, bias, y + r * CO, CI, CO, 1, columns, streams);
}

INLINE void all_channels(const float *x, const float *w, const float *bias, float *y, int64_t n,
                         int64_t CI, int64_t CO, int streams) {
    int64_t registers = CO / LANES, c = 0;
#define CHANNELS(from, rows, columns)                                                              \
    some_channels(x, w + (from), bias + (from), y + (from), n, CI, CO, rows, columns, streams)
    if (registers % 3 == 0 && registers < 12) /* few are not read once more */
        for (; c < registers; c += 3) CHANNELS(c * LANES, MANY_ROWS * 2 / 3, 3);
    for (; c + 2 <= registers; c += 2) CHANNELS(c * LANES, MANY_ROWS, 2);
    if (c < registers) CHANNELS(c * LANES, FEW_ROWS, 1);
    if (CO % LANES) CHANNELS(CO - LANES, FEW_ROWS, 1); /* some of them once more */
#undef CHANNELS
}

/* y (P, CO) of x (P, CI), w (CI, CO) and a bias (CO,); CO fills a register */
void pixels_apply_f32(const float *x, const float *w, const float *bias, float *y, int64_t P,
                      int64_t CI, int64_t CO) {
    int streams = is_large(y, (size_t)(P * CO) * sizeof(float)), fits = CO % 16 == 0;
    int64_t blocks = (P + PIXELS - 1) / PIXELS;
    _Pragma("omp parallel")
    {
        float *part = malloc((size_t)(PIXELS * CO) * sizeof(float));
        _Pragma("omp for schedule(static)")
        for (int64_t block = 0; block < blocks; block++) {
            int64_t p = block * PIXELS, n = P - p < PIXELS ? P - p : PIXELS;
            int apart = streams && !fits && n == PIXELS; /* together they fill registers */
            if (streams && fits) all_channels(x + p * CI, w, bias, y + p * CO, n, CI, CO, 1);
            else all_channels(x + p * CI, w, bias, apart ? part : y + p * CO, n, CI, CO, 0);
            if (apart) stream_all_f32(y + p * CO, part, PIXELS * CO);
        }
        if (streams) end_stream();
        free(part);
    }
}
