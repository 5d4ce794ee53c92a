/* Batches of images as a network takes them, in numbers of type T. */

/* Cut a window of S x S pixels out of each chosen image (N, 3, S, S), which is continued by
 * reflection; mirror the first `mirrored`; replace each value by what the table (3, 256) says of
 * it, and by 0 in a square with `side` pixels. The result is channels_last. */
void OF(windows)(const uint8_t *images, const int64_t *index, const int64_t *top,
                 const int64_t *left, const int64_t *square_top, const int64_t *square_left,
                 const T *restrict table, T *restrict out, int64_t B, int64_t S, int64_t padding, int64_t mirrored,
                 int64_t side) {
    const T *red = table, *green = table + 256, *blue = table + 512;
    _Pragma("omp parallel if (B * S * S > 16384)")
    {
        int64_t *restrict columns = malloc((size_t)S * sizeof(int64_t));
        _Pragma("omp for schedule(static)")
        for (int64_t b = 0; b < B; b++) {
            for (int64_t p = 0; p < S; p++)
                columns[b < mirrored ? S - 1 - p : p] = reflected(left[b] + p - padding, S);
            for (int64_t r = 0; r < S; r++) {
                const uint8_t *from =
                    images + (index[b] * 3 * S + reflected(top[b] + r - padding, S)) * S;
                T *to = out + (b * S + r) * S * 3;
                for (int64_t p = 0; p < S; p++) {
                    const uint8_t *pixel = from + columns[p];
                    to[3 * p] = red[pixel[0]];
                    to[3 * p + 1] = green[pixel[S * S]];
                    to[3 * p + 2] = blue[pixel[2 * S * S]];
                }
                if (!side || r < square_top[b] || r >= square_top[b] + side) continue;
                int64_t first = square_left[b] < 0 ? 0 : square_left[b];
                int64_t end = square_left[b] + side < S ? square_left[b] + side : S;
                memset(to + 3 * first, 0, (size_t)(3 * (end - first)) * sizeof(T));
            }
        }
        free(columns);
    }
}
