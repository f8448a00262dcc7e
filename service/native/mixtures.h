/* What gates make of experts. */

#pragma once

#include "native.h"

typedef struct {
    int64_t first_part, parts;     /* of the level, among all parts */
    int64_t gates, experts, width; /* gates mix the first parts, each so wide; no gate, nothing */
    int64_t apart;                 /* a gate's logits are a part, or else all gates' are one */
    const float *mask;             /* [gates, experts], or none */
} Level;

/* Tensors of so many rows, one after the other, of which those from `first` on are written. */
typedef struct {
    float *numbers;
    int64_t rows, first;
} Target;

INLINE Vector choose(Integers when, Vector one, Vector other)
{
    return (Vector)(((Integers)one & when) | ((Integers)other & ~when));
}

/* e^x for x <= 0: 2^n e^r, the latter by Cephes' polynomial. */
INLINE Vector exp_of(Vector x)
{
    const Vector shifted = x * 1.44269504f + 12582912.f, whole = shifted - 12582912.f;
    const Vector r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    Vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1;
    const Integers power = ((Integers)shifted - 0x4b400000 + 127) << 23;
    return choose(x < -87, (Vector){0}, p * (Vector)power);
}

/* A gate's softmax weights of at most LANES rows: a Vector of an expert's. */
INLINE void softmax(const float *logits, int64_t of_row, int64_t rows, const float *mask,
                    int64_t experts, Vector *weights)
{
    Vector most = (Vector){0} - __builtin_inff(), total = {0};
    for (int64_t e = 0; e < experts; e++) {
        Vector of_expert = {0};
        for (int64_t row = 0; row < rows; row++)
            of_expert[row] = logits[row * of_row + e];
        weights[e] = of_expert + (mask ? mask[e] : 0);
        most = choose(weights[e] > most, weights[e], most);
    }
    for (int64_t e = 0; e < experts; e++) {
        weights[e] = exp_of(weights[e] - most);
        total += weights[e];
    }
    for (int64_t e = 0; e < experts; e++)
        weights[e] /= total;
}

/* A gate's weighted sum of what the experts have in some columns of a row. */
INLINE void mix_columns(const float *weights, const float *outputs, int64_t step, int64_t experts,
                        float *to, int64_t columns, const int vectors)
{
    Vector sum[SUMS];
    for (int v = 0; v < vectors; v++)
        sum[v] = (Vector){0};
    for (int64_t e = 0; e < experts; e++) {
        const float weight = weights[e * LANES];
        if (weight == 0) /* not the gate's */
            continue;
        for (int v = 0; v < vectors; v++)
            sum[v] += weight * ((const Vector *)(outputs + e * step))[v];
    }
    put(sum, to, columns, vectors);
}

INLINE void mix_row(const float *weights, const float *outputs, int64_t step, int64_t experts,
                    float *to, int64_t width)
{
    int64_t i = 0;
    for (; i + 4 * LANES <= width; i += 4 * LANES)
        mix_columns(weights, outputs + i, step, experts, to + i, 4 * LANES, 4);
    for (; i + LANES <= width; i += LANES)
        mix_columns(weights, outputs + i, step, experts, to + i, LANES, 1);
    for (; i < width; i++) {
        to[i] = 0;
        for (int64_t e = 0; e < experts; e++)
            to[i] += weights[e * LANES] == 0 ? 0 : weights[e * LANES] * outputs[e * step + i];
    }
}

/* Mix all rows of a level's outputs: its experts', and then the logits. */
INLINE void mix(const Level *level, const float *outputs, int64_t rows, Vector *weights,
                const Target *to)
{
    const int64_t experts = level->experts, width = level->width;
    const float *logits = outputs + experts * rows * width;
    const int64_t of_row = level->apart ? experts : level->gates * experts;
    const int64_t of_gate = level->apart ? rows * experts : experts;
    for (int64_t row = 0; row < rows; row++) {
        if (row % LANES == 0)
            for (int64_t gate = 0; gate < level->gates; gate++)
                softmax(logits + row * of_row + gate * of_gate, of_row,
                        rows - row < LANES ? rows - row : LANES,
                        level->mask ? level->mask + gate * experts : 0, experts,
                        weights + gate * experts);
        for (int64_t gate = 0; gate < level->gates; gate++)
            mix_row((const float *)(weights + gate * experts) + row % LANES, outputs + row * width,
                    rows * width, experts,
                    to->numbers + (gate * to->rows + to->first + row) * width, width);
    }
}
