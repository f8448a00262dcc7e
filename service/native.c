/* Loops over memory that no call of numpy goes through as directly; described in native.py.

   What they read lies anywhere in memory, where no processor would guess, so it is asked for ahead.
   Arrays do not overlap. */

#include <stdint.h>
#include <string.h>

#ifdef __x86_64__
#include <cpuid.h>
#endif

#define AHEAD 2       /* rows */
#define LINE_BYTES 64 /* in a line of the cache */
#define WAYS 8        /* keys in a bucket of a HashIndex: a line */
#define ABSENT (-1)
#define NUMBER_BYTES(half) ((half) ? 2 : 4)

static int64_t first_outside(const int64_t *places, int64_t count, int64_t end)
{
    for (int64_t i = 0; i < count; i++)
        if (places[i] < 0 || places[i] >= end)
            return i;
    return -1;
}

/* Bits that one instruction adds: what the processor has, and the system saves for it. Compilers'
   own dispatch (target_clones) asks a runtime that zig leaves out, and then takes the least. */
int64_t vector_bits(void)
{
#ifdef __x86_64__
    uint32_t a, b, c, c1, d, saved, unused;
    if (!__get_cpuid(1, &a, &b, &c1, &d) || !(c1 & bit_OSXSAVE))
        return 128;
    __asm__("xgetbv" : "=a"(saved), "=d"(unused) : "c"(0));
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 128;
    if (b & bit_AVX512F && (saved & 0xe6) == 0xe6)
        return 512;
    if (b & bit_AVX2 && c1 & bit_F16C && (saved & 0x06) == 0x06)
        return 256;
#endif
    return 128;
}

#define INLINE static inline __attribute__((always_inline))

/* A number of an item, which is kept as float or as half of one. */
INLINE float number(const void *item, int64_t i, int half)
{
    return half ? (float)((const _Float16 *)item)[i] : ((const float *)item)[i];
}

INLINE void add_part(const float *restrict user, const void *restrict item, const void *next,
                     int64_t start, int64_t columns, int relu, int half, float *restrict to)
{
    const int64_t line = LINE_BYTES / NUMBER_BYTES(half);
    int64_t i = 0;
    for (; i + line <= columns; i += line) {
        __builtin_prefetch((const char *)next + (start + i) * NUMBER_BYTES(half));
        for (int64_t k = i; k < i + line; k++) {
            const float sum = user[start + k] + number(item, start + k, half);
            to[k] = relu && sum < 0 ? 0 : sum; /* what is no number stays none */
        }
    }
    for (; i < columns; i++) {
        const float sum = user[start + i] + number(item, start + i, half);
        to[i] = relu && sum < 0 ? 0 : sum;
    }
}

INLINE void add_rows(const float *users, const int64_t *user_row, const char *items,
                     const int64_t *item_row, int64_t rows, const int64_t *starts,
                     const uint8_t *relu, int64_t parts, int half, float *out)
{
    const int64_t width = starts[parts], item_bytes = width * NUMBER_BYTES(half);
    for (int64_t row = 0; row < rows; row++) {
        const float *user = users + user_row[row] * width;
        const char *item = items + item_row[row] * item_bytes;
        const char *next = items + item_row[row + 1 < rows ? row + 1 : row] * item_bytes;
        for (int64_t part = 0; part < parts; part++) {
            const int64_t start = starts[part], columns = starts[part + 1] - start;
            float *to = out + rows * start + row * columns;
            if (relu[part])
                add_part(user, item, next, start, columns, 1, half, to);
            else
                add_part(user, item, next, start, columns, 0, half, to);
        }
    }
}

#define ADD_ROWS(name, instructions)                                                               \
    instructions static void name(const float *users, const int64_t *user_row, const char *items,  \
                                  const int64_t *item_row, int64_t rows, const int64_t *starts,    \
                                  const uint8_t *relu, int64_t parts, int half, float *out)        \
    {                                                                                              \
        if (half)                                                                                  \
            add_rows(users, user_row, items, item_row, rows, starts, relu, parts, 1, out);         \
        else                                                                                       \
            add_rows(users, user_row, items, item_row, rows, starts, relu, parts, 0, out);         \
    }

ADD_ROWS(add_rows_128, )
#ifdef __x86_64__
ADD_ROWS(add_rows_256, __attribute__((target("avx2,f16c"))))
ADD_ROWS(add_rows_512, __attribute__((target("avx512f"))))
#else
#define add_rows_256 add_rows_128
#define add_rows_512 add_rows_128
#endif

int64_t first_layer(const float *users, int64_t user_count, const int64_t *user_row,
                    const char *items, int64_t item_count, const int64_t *item_row, int64_t half,
                    int64_t rows, const int64_t *starts, const uint8_t *relu, int64_t parts,
                    float *out, int64_t bits)
{
    if (first_outside(user_row, rows, user_count) >= 0 ||
        first_outside(item_row, rows, item_count) >= 0)
        return -1;
    (bits == 512 ? add_rows_512 : bits == 256 ? add_rows_256 : add_rows_128)(
        users, user_row, items, item_row, rows, starts, relu, parts, half != 0, out);
    return 0;
}

int64_t copy_rows(const char *restrict from, int64_t from_count, const int64_t *from_row,
                  char *restrict to, int64_t to_count, const int64_t *to_row,
                  int64_t rows, int64_t row_bytes)
{
    if (first_outside(from_row, rows, from_count) >= 0 ||
        first_outside(to_row, rows, to_count) >= 0)
        return -1;
    for (int64_t row = 0; row < rows; row++) {
        if (row + AHEAD < rows)
            for (int64_t i = 0; i < row_bytes; i += LINE_BYTES)
                __builtin_prefetch(from + from_row[row + AHEAD] * row_bytes + i);
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
