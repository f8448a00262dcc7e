/* What the loops in C share. Arrays do not overlap. */

#pragma once

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define LINE_BYTES 64 /* in a line of the cache */
#define LANES 16      /* numbers in a Vector, of however many of the processor's that is */
#define SUMS 8        /* Vectors that are added up at a time, at most */

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES), aligned(4)));

#ifdef __x86_64__ /* see vector_bits in processor.c */
#define WITH_256 __attribute__((target("avx2,fma,f16c,bmi")))
#define WITH_512 __attribute__((target("avx512f,bmi")))
#endif

INLINE int64_t round_up(int64_t count, int64_t to)
{
    return (count + to - 1) / to * to;
}

INLINE int64_t first_outside(const int64_t *places, int64_t count, int64_t end)
{
    for (int64_t i = 0; i < count; i++)
        if (places[i] < 0 || places[i] >= end)
            return i;
    return -1;
}

/* Have what lies there read into the cache. */
INLINE void ask_for(const void *from, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += LINE_BYTES)
        __builtin_prefetch((const char *)from + i);
}

/* As many columns as the vectors have, of which the last may not be full. */
INLINE void put(const Vector *sum, float *to, int64_t columns, const int vectors)
{
    for (int v = 0; v + 1 < vectors; v++)
        ((Vector *)to)[v] = sum[v];
    const Vector last = sum[vectors - 1];
    float *to_last = to + (vectors - 1) * LANES;
    if (columns == vectors * LANES)
        *(Vector *)to_last = last;
    else
        memcpy(to_last, &last, (columns - (vectors - 1) * LANES) * sizeof(float));
}
