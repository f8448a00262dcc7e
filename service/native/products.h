/* Products of rows with the weights of a layer.

   Half of what ReLU leaves is zero: a product adds up only the rows of the weights whose inputs are
   above zero, as a bit for each input says. */

#pragma once

#include "native.h"

#define SEGMENT 64 /* inputs, of which a word has the bits; the weights for so many sums stay in the
                      first-level cache */
#define BLOCK 64   /* rows that are brought through all layers together, at most */
#define ROWS 4     /* of these, that are brought through a product of all inputs together */
#define ABOVE_ZERO(x) (!((x) <= 0)) /* or no number, which stays none */
#define ALL_ABOVE_ZERO(x) (~((x) <= 0))

typedef struct {
    const float *weights; /* see `packed` in layers.py */
    const float *bias;
    int64_t inputs, outputs;
    int64_t sparse; /* half of the inputs are zero; only the first layer of a stream's is not */
    int64_t relu;
} Layer;

/* Numbers of some rows, and which of them are above zero. */
typedef struct {
    float *numbers;
    uint64_t *above;
    int64_t width, segments; /* from one row to the next */
} Inputs;

/* What is read after a product: of some rows so many bytes, asked for as a segment of a row is
   multiplied. All at once, they would have to wait for each other. */
typedef struct {
    const char *of_row[BLOCK];
    int64_t rows, bytes;
} Ahead;

typedef _Bool Bits __attribute__((ext_vector_type(LANES)));

/* Which of a segment's numbers are above zero. */
INLINE uint64_t above_zero(const float *numbers, int64_t count)
{
    uint64_t above = 0;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const Bits bits = __builtin_convertvector(ALL_ABOVE_ZERO(*(const Vector *)(numbers + i)), Bits);
        uint16_t some;
        memcpy(&some, &bits, sizeof some);
        above |= (uint64_t)some << i;
    }
    for (; i < count; i++)
        above |= (uint64_t)ABOVE_ZERO(numbers[i]) << i;
    return above;
}

INLINE void rectify(Vector *sum, const int vectors)
{
    for (int v = 0; v < vectors; v++)
        sum[v] = (Vector)((Integers)sum[v] & ALL_ABOVE_ZERO(sum[v]));
}

/* max(x W^T + b, 0) in some columns of all rows: as many as `vectors` have. */
INLINE void columns_of(const Inputs *from, int64_t rows, int64_t inputs, const float *weights,
                       const float *bias, const Ahead *ahead, float *sums, float *to,
                       int64_t to_width, int64_t columns, const int vectors)
{
    for (int64_t at = 0, segment = 0; at < inputs; at += SEGMENT, segment++) {
        const float *of_segment = weights + at * vectors * LANES;
        for (int64_t row = 0; row < rows; row++) {
            const float *numbers = from->numbers + row * from->width + at;
            float *so_far = sums + row * vectors * LANES;
            Vector sum[SUMS];
            for (int v = 0; v < vectors; v++)
                sum[v] = *(const Vector *)((at ? so_far : bias) + v * LANES);
            if (row < ahead->rows)
                ask_for(ahead->of_row[row] + segment * ahead->bytes, ahead->bytes);
            uint64_t above = from->above[row * from->segments + segment];
            for (; above; above &= above - 1) {
                const int64_t i = __builtin_ctzll(above);
                const Vector *of_input = (const Vector *)(of_segment + i * (vectors * LANES));
                for (int v = 0; v < vectors; v++)
                    sum[v] += numbers[i] * of_input[v];
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

/* A layer of some rows: of `sparse_from`, or of `from`, which has a row after the other. */
INLINE void through(const Layer *layer, const Inputs *sparse_from, const float *from, int64_t rows,
                    const Ahead *ahead, float *sums, float *to, int64_t to_width,
                    const int most_vectors)
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
        columns_of(sparse_from, rows, layer->inputs, weights, layer->bias + column, ahead,         \
                   sums, to + column, to_width, columns, vectors);                                 \
        break;
#define COLUMNS_OF_ALL(vectors)                                                                    \
    case SUMS + vectors:                                                                           \
        columns_of_rows(from, rows, layer->inputs, weights, layer->bias + column, layer->relu,     \
                        to + column, to_width, columns, vectors);                                  \
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
