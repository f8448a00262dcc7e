/* Loops over memory that no call of numpy goes through as directly; described in native.py.

   What they read lies anywhere in memory, where no processor would guess, so it is asked for ahead.
   Arrays do not overlap. */

#include <stdint.h>
#include <string.h>

#ifdef __x86_64__
#include <cpuid.h>
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

/* Bits that one instruction adds: what the processor has, and the system saves for it. Compilers'
   own dispatch (target_clones) asks a runtime that zig leaves out, and then takes the least. */
int64_t vector_bits(void)
{
#ifdef __x86_64__
    uint32_t a, b, c, d, saved, unused;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 128;
    __asm__("xgetbv" : "=a"(saved), "=d"(unused) : "c"(0));
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 128;
    if (b & bit_AVX512F && (saved & 0xe6) == 0xe6)
        return 512;
    if (b & bit_AVX2 && (saved & 0x06) == 0x06)
        return 256;
#endif
    return 128;
}

static inline __attribute__((always_inline)) void
add(const float *restrict user, const float *restrict item, const float *next, int64_t columns,
    int relu, float *restrict to)
{
    int64_t i = 0;
    for (; i + LINE <= columns; i += LINE) {
        __builtin_prefetch(next + i);
        for (int64_t k = i; k < i + LINE; k++) {
            const float sum = user[k] + item[k];
            to[k] = relu && sum < 0 ? 0 : sum; /* what is no number stays none */
        }
    }
    for (; i < columns; i++) {
        const float sum = user[i] + item[i];
        to[i] = relu && sum < 0 ? 0 : sum;
    }
}

static inline __attribute__((always_inline)) void
add_rows(const float *restrict users, const int64_t *user_row, const float *restrict items,
         const int64_t *item_row, int64_t rows, const int64_t *starts, const uint8_t *relu,
         int64_t parts, float *restrict out)
{
    const int64_t width = starts[parts];
    for (int64_t row = 0; row < rows; row++) {
        const float *user = users + user_row[row] * width;
        const float *item = items + item_row[row] * width;
        const float *next = items + item_row[row + 1 < rows ? row + 1 : row] * width;
        for (int64_t part = 0; part < parts; part++) {
            const int64_t start = starts[part], columns = starts[part + 1] - start;
            float *to = out + rows * start + row * columns;
            if (relu[part])
                add(user + start, item + start, next + start, columns, 1, to);
            else
                add(user + start, item + start, next + start, columns, 0, to);
        }
    }
}

#define ADD_ROWS(name, instructions)                                                              \
    instructions static void name(                                                                \
        const float *restrict users, const int64_t *user_row, const float *restrict items,        \
        const int64_t *item_row, int64_t rows, const int64_t *starts, const uint8_t *relu,        \
        int64_t parts, float *restrict out)                                                       \
    {                                                                                             \
        add_rows(users, user_row, items, item_row, rows, starts, relu, parts, out);               \
    }

ADD_ROWS(add_rows_128, )
#ifdef __x86_64__
ADD_ROWS(add_rows_256, __attribute__((target("avx2"))))
ADD_ROWS(add_rows_512, __attribute__((target("avx512f"))))
#else
#define add_rows_256 add_rows_128
#define add_rows_512 add_rows_128
#endif

int64_t first_layer(const float *restrict users, int64_t user_count, const int64_t *user_row,
                    const float *restrict items, int64_t item_count, const int64_t *item_row,
                    int64_t rows, const int64_t *starts, const uint8_t *relu, int64_t parts,
                    float *restrict out, int64_t bits)
{
    if (first_outside(user_row, rows, user_count) >= 0 ||
        first_outside(item_row, rows, item_count) >= 0)
        return -1;
    (bits == 512 ? add_rows_512 : bits == 256 ? add_rows_256 : add_rows_128)(
        users, user_row, items, item_row, rows, starts, relu, parts, out);
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
