/* Maximum pooling by windows of 2x2 pixels, in steps of 2, of maps of one type of number, T.
 * A last row or column that no window reaches is left out. C fills a register. */

/* The largest of four numbers: of equal ones the first, and NaN if there is one. */
INLINE vec OF(largest)(const T *x, int64_t row, int64_t C) {
    vec most = OF(load)(x);
    for (int p = 1; p < 4; p++) {
        vec v = OF(load)(x + p / 2 * row + p % 2 * C);
        vec_i32 is_more = (v > most) | (v != v);
        most = (vec)(((vec_i32)v & is_more) | ((vec_i32)most & ~is_more));
    }
    return most;
}

void OF(pool)(const T *x, T *y, int64_t B, int64_t H, int64_t W, int64_t C) {
    int64_t OH = H / 2, OW = W / 2, row = W * C;
    _Pragma("omp parallel for schedule(static)")
    for (int64_t r = 0; r < B * OH; r++)
        for (int64_t o = 0; o < OW; o++) {
            const T *at = x + (r / OH * H + r % OH * 2) * row + 2 * o * C;
            T *to = y + (r * OW + o) * C;
            for (int64_t c = 0; c < C; c += LANES) {
                int64_t k = c + LANES <= C ? c : C - LANES; /* the last ones once more */
                OF(store)(to + k, OF(largest)(at + k, row, C));
            }
        }
}

/* The gradient goes to the first number that has the bits of the largest; the others get 0. */
INLINE void OF(pool_gradient_at)(const T *g, const T *x, T *dx, int64_t row, int64_t C) {
    OF(bits) up, most, left = {0};
    OF(store)((T *)&most, OF(largest)(x, row, C));
    memcpy(&up, g, sizeof up);
    left = ~left;
    for (int p = 0; p < 4; p++) {
        int64_t at = p / 2 * row + p % 2 * C;
        OF(bits) of, found;
        memcpy(&of, x + at, sizeof of);
        found = (of == most) & left;
        left &= ~found;
        found &= up;
        memcpy(dx + at, &found, sizeof found);
    }
}

void OF(pool_gradient)(const T *g, const T *x, T *dx, int64_t B, int64_t H, int64_t W, int64_t C) {
    int64_t OH = H / 2, OW = W / 2, row = W * C;
    _Pragma("omp parallel for schedule(static)")
    for (int64_t b = 0; b < B; b++) {
        T *last = dx + (b * H + H - 1) * row;
        for (int64_t r = 0; r < OH; r++) {
            int64_t at = (b * H + 2 * r) * row;
            for (int64_t o = 0; o < OW; o++)
                for (int64_t c = 0; c < C; c += LANES) {
                    int64_t k = c + LANES <= C ? c : C - LANES, to = at + 2 * o * C + k;
                    const T *up = g + ((b * OH + r) * OW + o) * C + k;
                    OF(pool_gradient_at)(up, x + to, dx + to, row, C);
                }
            for (int i = 1; i <= 2 && W % 2; i++)
                memset(dx + at + i * row - C, 0, (size_t)C * sizeof(T));
        }
        if (H % 2) memset(last, 0, (size_t)row * sizeof(T));
    }
}
