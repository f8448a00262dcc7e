/* Products of rows with the weights of a layer.

   Half of what ReLU leaves is zero, so a row keeps the rest, with its places, and a product adds up
   only the rows of the weights that these name. */

#include "native.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define SEGMENT 64 /* inputs whose weights for that many sums stay in the first-level cache */
#define ROWS 4     /* that are brought through a product of all inputs together */
#define NUMBER_BYTES(half) ((half) ? 2 : 4)
#define ABOVE_ZERO(x) (!((x) <= 0)) /* or no number, which stays none */

typedef struct {
    const float *weights; /* see `packed` in layers.py */
    const float *bias;
    int64_t inputs, outputs;
    int64_t sparse; /* half of the inputs are zero; only the first layer of a stream's is not */
    int64_t relu;
} Layer;

/* The numbers above zero of some rows, a segment after the other, and their places in these. */
typedef struct {
    float *values;
    int32_t *places;
    int32_t *counts;
    int64_t room, segments; /* of a row */
} Kept;

typedef int64_t (*Keep)(const float *user, const void *item, int half, int64_t count,
                        float *values, int32_t *places);

INLINE int64_t round_up(int64_t count, int64_t to)
{
    return (count + to - 1) / to * to;
}

/* A number of an item, which is kept as float or as half of one. */
INLINE float number(const void *item, int64_t i, int half)
{
    return half ? (float)((const _Float16 *)item)[i] : ((const float *)item)[i];
}

/* Keep what is above zero of an item's numbers, from one on, behind what is kept already; of their
   sums with a user's, if there are any. */
INLINE int64_t keep_from(int64_t i, int64_t kept, const float *user, const void *item, int half,
                         int64_t count, float *values, int32_t *places)
{
    for (; i < count; i++) {
        const float sum = (user ? user[i] : 0) + number(item, i, half);
        values[kept] = sum;
        places[kept] = (int32_t)i;
        kept += ABOVE_ZERO(sum);
    }
    return kept;
}

INLINE int64_t keep_any(const float *user, const void *item, int half, int64_t count,
                        float *values, int32_t *places)
{
    return keep_from(0, 0, user, item, half, count, values, places);
}

#ifdef __x86_64__
WITH_512 INLINE int64_t keep_512(const float *user, const void *item, int half, int64_t count,
                                 float *values, int32_t *places)
{
    int64_t kept = 0, i = 0;
    __m512i place = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; i + LANES <= count; i += LANES) {
        const void *from = (const char *)item + i * NUMBER_BYTES(half);
        __m512 sum = half ? _mm512_cvtph_ps(_mm256_loadu_si256(from)) : _mm512_loadu_ps(from);
        if (user)
            sum = _mm512_add_ps(sum, _mm512_loadu_ps(user + i));
        const __mmask16 above = _mm512_cmp_ps_mask(sum, _mm512_setzero_ps(), _CMP_NLE_UQ);
        _mm512_storeu_ps(values + kept, _mm512_maskz_compress_ps(above, sum));
        _mm512_storeu_si512(places + kept, _mm512_maskz_compress_epi32(above, place));
        place = _mm512_add_epi32(place, _mm512_set1_epi32(LANES));
        kept += __builtin_popcount(above);
    }
    return keep_from(i, kept, user, item, half, count, values, places);
}
#endif

INLINE void keep(Keep keep_some, const float *user, const void *item, int half, int64_t count,
                 int64_t row, Kept *kept)
{
    for (int64_t at = 0, segment = 0; at < count; at += SEGMENT, segment++) {
        float *values = kept->values + row * kept->room + at;
        int32_t *places = kept->places + row * kept->room + at;
        const int64_t length = count - at < SEGMENT ? count - at : SEGMENT;
        const int64_t found =
            keep_some(user ? user + at : 0, (const char *)item + at * NUMBER_BYTES(half), half,
                      length, values, places);
        values[found] = 0; /* for a product that takes them by twos */
        places[found] = 0;
        kept->counts[row * kept->segments + segment] = (int32_t)found;
    }
}

INLINE void rectify(Vector *sum, const int vectors)
{
    for (int v = 0; v < vectors; v++)
        sum[v] = (Vector)((__typeof__(sum[v] < 0))sum[v] & ~(sum[v] <= 0));
}

/* max(x W^T + b, 0) in some columns of all rows: as many as `vectors` have. */
INLINE void columns_of(const Kept *kept, int64_t rows, int64_t inputs, const float *weights,
                       const float *bias, float *sums, float *to, int64_t to_width,
                       int64_t columns, const int vectors)
{
    for (int64_t at = 0, segment = 0; at < inputs; at += SEGMENT, segment++) {
        const float *of_segment = weights + at * vectors * LANES;
        for (int64_t row = 0; row < rows; row++) {
            const float *values = kept->values + row * kept->room + at;
            const int32_t *places = kept->places + row * kept->room + at;
            const int64_t count = kept->counts[row * kept->segments + segment];
            float *so_far = sums + row * vectors * LANES;
            Vector sum[SUMS];
            for (int v = 0; v < vectors; v++)
                sum[v] = *(const Vector *)((at ? so_far : bias) + v * LANES);
            for (int64_t i = 0; i < count; i += 2) {
                const float *one = of_segment + places[i] * (vectors * LANES);
                const float *other = of_segment + places[i + 1] * (vectors * LANES);
                for (int v = 0; v < vectors; v++)
                    sum[v] += values[i] * ((const Vector *)one)[v];
                for (int v = 0; v < vectors; v++)
                    sum[v] += values[i + 1] * ((const Vector *)other)[v];
            }
            if (at + SEGMENT < inputs) {
                for (int v = 0; v < vectors; v++)
                    ((Vector *)so_far)[v] = sum[v];
                continue;
            }
            rectify(sum, vectors);
            put(sum, to + row * to_width, columns, vectors);
        }
    }
}

/* x W^T + b, or max(x W^T + b, 0), in some columns of some rows, of all inputs. */
INLINE void columns_of_all(const float *from, int64_t inputs, const float *weights,
                           const float *bias, int64_t relu, float *to, int64_t to_width,
                           int64_t columns, const int vectors, const int rows)
{
    Vector sum[ROWS][SUMS / 2];
    for (int row = 0; row < rows; row++)
        for (int v = 0; v < vectors; v++)
            sum[row][v] = ((const Vector *)bias)[v];
    for (int64_t i = 0; i < inputs; i++)
        for (int row = 0; row < rows; row++)
            for (int v = 0; v < vectors; v++)
                sum[row][v] +=
                    from[row * inputs + i] * ((const Vector *)weights)[i * vectors + v];
    for (int row = 0; row < rows; row++) {
        if (relu)
            rectify(sum[row], vectors);
        put(sum[row], to + row * to_width, columns, vectors);
    }
}

INLINE void columns_of_rows(const float *from, int64_t rows, int64_t inputs, const float *weights,
                            const float *bias, int64_t relu, float *to, int64_t to_width,
                            int64_t columns, const int vectors)
{
    int64_t row = 0;
    for (; row + ROWS <= rows; row += ROWS)
        columns_of_all(from + row * inputs, inputs, weights, bias, relu, to + row * to_width,
                       to_width, columns, vectors, ROWS);
    for (; row < rows; row++)
        columns_of_all(from + row * inputs, inputs, weights, bias, relu, to + row * to_width,
                       to_width, columns, vectors, 1);
}

/* A layer of some rows, whose inputs have been kept or lie at `from`. */
INLINE void through(const Layer *layer, const Kept *kept, const float *from, int64_t rows,
                    float *sums, float *to, const int most_vectors)
{
    const float *weights = layer->weights;
    const int64_t most = layer->sparse ? most_vectors : most_vectors / 2;
    for (int64_t column = 0; column < layer->outputs;) {
        const int64_t left = layer->outputs - column;
        const int64_t vectors = round_up(left, LANES) / LANES;
        const int64_t taken = vectors < most ? vectors : most;
        const int64_t columns = left < taken * LANES ? left : taken * LANES;
#define COLUMNS(vectors)                                                                           \
    case vectors:                                                                                  \
        columns_of(kept, rows, layer->inputs, weights, layer->bias + column, sums, to + column,    \
                   layer->outputs, columns, vectors);                                              \
        break;
#define COLUMNS_OF_ALL(vectors)                                                                    \
    case SUMS + vectors:                                                                           \
        columns_of_rows(from, rows, layer->inputs, weights, layer->bias + column, layer->relu,     \
                        to + column, layer->outputs, columns, vectors);                            \
        break;
        switch (layer->sparse ? taken : SUMS + taken) {
            COLUMNS(1)
            COLUMNS(2)
            COLUMNS(3)
            COLUMNS(4)
            COLUMNS(5)
            COLUMNS(6)
            COLUMNS(7)
            COLUMNS(8)
            COLUMNS_OF_ALL(1)
            COLUMNS_OF_ALL(2)
            COLUMNS_OF_ALL(3)
            COLUMNS_OF_ALL(4)
        }
        weights += taken * LANES * layer->inputs;
        column += columns;
    }
}
