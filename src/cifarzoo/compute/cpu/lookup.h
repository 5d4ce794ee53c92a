/* Functions of one number: a bfloat16 has 65,536 values, so a table holds the results of all.
 * A training meets some thousands of them, which stay in the first cache. */

#define SOME 256 /* looked up before they are computed with, or each would wait to be written */

void lookup_bf16(const bf16 *x, const bf16 *table, bf16 *y, int64_t n) {
    _Pragma("omp parallel for schedule(static)")
    for (int64_t i = 0; i < n; i++) y[i] = table[x[i]];
}

/* dx = g slope(x) */
void lookup_gradient_bf16(const bf16 *g, const bf16 *x, const float *slopes, bf16 *dx, int64_t n) {
    _Pragma("omp parallel for schedule(static)")
    for (int64_t from = 0; from < n; from += SOME) {
        int64_t some = n - from < SOME ? n - from : SOME, i = 0;
        float slope[SOME];
        for (int64_t k = 0; k < some; k++) slope[k] = slopes[x[from + k]];
        for (; i + LANES <= some; i += LANES)
            store_bf16(dx + from + i, load_bf16(g + from + i) * load_f32(slope + i));
        if (i < some) {
            float rest[LANES] = {0};
            memcpy(rest, slope + i, (size_t)(some - i) * sizeof(float));
            store_some_bf16(dx + from + i, load_some_bf16(g + from + i, some - i) * load_f32(rest),
                            some - i);
        }
    }
}
#undef SOME
