/* What gates make of experts; described in mixtures.py. */

#include "native.h"

/* Softmax weights of a row, in place of their logits. */
INLINE void softmax(float *logits, const float *mask, int64_t gates, int64_t experts)
{
    const int64_t count = gates * experts;
    for (int64_t gate = 0; gate < gates; gate++) {
        float *of_gate = logits + gate * experts, most = -__builtin_inff();
        for (int64_t e = 0; e < experts; e++) {
            of_gate[e] += mask ? mask[gate * experts + e] : 0;
            most = of_gate[e] > most ? of_gate[e] : most;
        }
        for (int64_t e = 0; e < experts; e++)
            of_gate[e] -= most;
    }
    for (int64_t i = 0; i < count; i++) { /* e^x for x <= 0: 2^n e^r, r by Cephes' polynomial */
        const float x = logits[i], shifted = x * 1.44269504f + 12582912.f;
        int32_t n;
        memcpy(&n, &shifted, sizeof n);
        const float whole = shifted - 12582912.f;
        const float r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
        float p = 1.9875691500e-4f;
        p = p * r + 1.3981999507e-3f;
        p = p * r + 8.3334519073e-3f;
        p = p * r + 4.1665795894e-2f;
        p = p * r + 1.6666665459e-1f;
        p = p * r + 5.0000001201e-1f;
        p = p * r * r + r + 1;
        const uint32_t power = ((uint32_t)n - 0x4b400000u + 127u) << 23;
        float scale;
        memcpy(&scale, &power, sizeof scale);
        logits[i] = x < -87 ? 0 : x == x ? p * scale : x;
    }
    for (int64_t gate = 0; gate < gates; gate++) {
        float *of_gate = logits + gate * experts, total = 0;
        for (int64_t e = 0; e < experts; e++)
            total += of_gate[e];
        for (int64_t e = 0; e < experts; e++)
            of_gate[e] /= total;
    }
}

/* A gate's weighted sum of what the experts have in some columns of a row. */
INLINE void mix_columns(const float *weights, const float *outputs, int64_t step, int64_t experts,
                        float *to, int64_t columns, const int vectors)
{
    Vector sum[SUMS];
    for (int v = 0; v < vectors; v++)
        sum[v] = (Vector){0};
    for (int64_t e = 0; e < experts; e++) {
        if (weights[e] == 0) /* not the gate's */
            continue;
        for (int v = 0; v < vectors; v++)
            sum[v] += weights[e] * ((const Vector *)(outputs + e * step))[v];
    }
    put(sum, to, columns, vectors);
}

INLINE void mix_rows(float *logits, const float *mask, const float *outputs, int64_t rows,
                     int64_t gates, int64_t experts, int64_t width, float *out, int64_t first,
                     int64_t last)
{
    for (int64_t row = first; row < last; row++) {
        float *weights = logits + row * gates * experts;
        softmax(weights, mask, gates, experts);
        for (int64_t gate = 0; gate < gates; gate++, weights += experts) {
            const float *from = outputs + row * width;
            float *to = out + (gate * rows + row) * width;
            int64_t i = 0;
            for (; i + 4 * LANES <= width; i += 4 * LANES)
                mix_columns(weights, from + i, rows * width, experts, to + i, 4 * LANES, 4);
            for (; i + LANES <= width; i += LANES)
                mix_columns(weights, from + i, rows * width, experts, to + i, LANES, 1);
            for (; i < width; i++) {
                to[i] = 0;
                for (int64_t e = 0; e < experts; e++)
                    to[i] += weights[e] == 0 ? 0 : weights[e] * from[e * rows * width + i];
            }
        }
    }
}

#define LOOP(bits, instructions)                                                                   \
    instructions static void mix_##bits(float *logits, const float *mask, const float *outputs,    \
                                        int64_t rows, int64_t gates, int64_t experts,              \
                                        int64_t width, float *out, int64_t first, int64_t last)    \
    {                                                                                              \
        mix_rows(logits, mask, outputs, rows, gates, experts, width, out, first, last);            \
    }

LOOP(128, )
#ifdef __x86_64__
LOOP(256, WITH_256)
LOOP(512, WITH_512)
#else
#define mix_256 mix_128
#define mix_512 mix_128
#endif

int64_t mix(float *logits, const float *mask, const float *outputs, int64_t rows, int64_t gates,
            int64_t experts, int64_t width, float *out, int64_t first, int64_t last, int64_t bits)
{
    (bits == 512 ? mix_512 : bits == 256 ? mix_256 : mix_128)(
        logits, mask, outputs, rows, gates, experts, width, out, first, last);
    return 0;
}
