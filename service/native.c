/* Loops over memory that no call of numpy goes through as directly; described in native.py.

   What they read lies anywhere in memory, where no processor would guess, so it is asked for ahead.
   Arrays do not overlap. */

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__)
/* Compiled once for each; the first call finds out which the processor can do. */
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

#define AHEAD 2    /* rows */
#define LINE 16    /* floats in a line of the cache */
#define WAYS 8     /* keys in a bucket of a HashIndex: a line */
#define ABSENT (-1)

static void ask_for(const float *row, int64_t width)
{
    for (int64_t i = 0; i < width; i += LINE)
        __builtin_prefetch(row + i);
}

static int64_t first_outside(const int64_t *places, int64_t count, int64_t end)
{
    for (int64_t i = 0; i < count; i++)
        if (places[i] < 0 || places[i] >= end)
            return i;
    return -1;
}

FOR_EACH_PROCESSOR
int64_t first_layer(const float *restrict users, int64_t user_count, const int64_t *user_row,
                    const float *restrict items, int64_t item_count, const int64_t *item_row,
                    int64_t rows, const int64_t *starts, const uint8_t *relu, int64_t parts,
                    float *restrict out)
{
    const int64_t width = starts[parts];
    if (first_outside(user_row, rows, user_count) >= 0 ||
        first_outside(item_row, rows, item_count) >= 0)
        return -1;
    for (int64_t row = 0; row < rows; row++) {
        const float *user = users + user_row[row] * width;
        const float *item = items + item_row[row] * width;
        if (row + AHEAD < rows)
            ask_for(items + item_row[row + AHEAD] * width, width);
        for (int64_t part = 0; part < parts; part++) {
            const int64_t start = starts[part], columns = starts[part + 1] - start;
            float *to = out + rows * start + row * columns;
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
    return 0;
}

int64_t copy_rows(const float *restrict from, int64_t from_count, const int64_t *from_row,
                  float *restrict to, int64_t to_count, const int64_t *to_row,
                  int64_t rows, int64_t width)
{
    if (first_outside(from_row, rows, from_count) >= 0 ||
        first_outside(to_row, rows, to_count) >= 0)
        return -1;
    for (int64_t row = 0; row < rows; row++) {
        if (row + AHEAD < rows)
            ask_for(from + from_row[row + AHEAD] * width, width);
        memcpy(to + to_row[row] * width, from + from_row[row] * width, width * sizeof(float));
    }
    return 0;
}

int64_t find(const uint64_t *keys, int64_t count, const uint64_t *buckets, const int64_t *slots,
             int64_t shift, int64_t *found)
{
    for (int64_t i = 0; i < count; i++)
        __builtin_prefetch(buckets + (keys[i] >> shift) * WAYS);
    for (int64_t i = 0; i < count; i++) {
        const int64_t first = (int64_t)(keys[i] >> shift) * WAYS;
        found[i] = ABSENT;
        for (int64_t place = first; place < first + WAYS; place++)
            if (buckets[place] == keys[i])
                found[i] = slots[place]; /* a place without a key has ABSENT for a slot */
    }
    return 0;
}
