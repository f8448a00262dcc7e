/* The first layer of a joint stage; what it computes, and for whom: first_layer.py. */

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__)
/* Compiled once for each; the first call finds out which the processor can do. */
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

/* Items lie anywhere in memory, where no processor would guess: their lines are asked for ahead. */
#define AHEAD 2
#define LINE 16

/* Part p of the sum is written to out + rows * starts[p], as rows rows of starts[p + 1] - starts[p].
   Returns the first row that names a user or an item which is not there, -1 when all are. */
FOR_EACH_PROCESSOR
int64_t first_layer(const float *restrict users, int64_t user_count, const int64_t *user_row,
                    const float *restrict items, int64_t item_count, const int64_t *item_row,
                    int64_t rows, const int64_t *starts, const uint8_t *relu, int64_t parts,
                    float *restrict out)
{
    const int64_t width = starts[parts];
    for (int64_t row = 0; row < rows; row++)
        if (user_row[row] < 0 || user_row[row] >= user_count || item_row[row] < 0 ||
            item_row[row] >= item_count)
            return row;
    for (int64_t row = 0; row < rows; row++) {
        const float *user = users + user_row[row] * width;
        const float *item = items + item_row[row] * width;
        const float *soon = items + item_row[row + AHEAD < rows ? row + AHEAD : row] * width;
        for (int64_t part = 0; part < parts; part++) {
            const int64_t start = starts[part], columns = starts[part + 1] - start;
            float *to = out + rows * start + row * columns;
            for (int64_t i = 0; i < columns; i += LINE)
                __builtin_prefetch(soon + start + i);
            if (relu[part])
                for (int64_t i = 0; i < columns; i++) {
                    const float sum = user[start + i] + item[start + i];
                    to[i] = sum < 0 ? 0 : sum; /* what is no number stays none */
                }
            else
                for (int64_t i = 0; i < columns; i++)
                    to[i] = user[start + i] + item[start + i];
        }
    }
    return -1;
}
