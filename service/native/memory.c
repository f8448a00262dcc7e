/* Loops over memory that no call of numpy goes through as directly; described in memory.py.

   What they read lies anywhere in memory, where no processor would guess, so it is asked for ahead. */

#include "native.h"

#define AHEAD 2 /* rows */
#define WAYS 8  /* keys in a bucket of a HashIndex: a line */
#define ABSENT (-1)

int64_t copy_rows(const char *restrict from, int64_t from_count, const int64_t *from_row,
                  char *restrict to, int64_t to_count, const int64_t *to_row,
                  int64_t rows, int64_t row_bytes)
{
    if (first_outside(from_row, rows, from_count) >= 0 ||
        first_outside(to_row, rows, to_count) >= 0)
        return -1;
    for (int64_t row = 0; row < rows; row++) {
        if (row + AHEAD < rows)
            ask_for(from + from_row[row + AHEAD] * row_bytes, row_bytes);
        memcpy(to + to_row[row] * row_bytes, from + from_row[row] * row_bytes, row_bytes);
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
