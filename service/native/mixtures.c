/* What gates make of experts; described in mixtures.py. */

#include "native.h"

/* e^x for x <= 0: 2^n e^r, the latter by Cephes' polynomial. */
INLINE float exp_of(float x)
{
    const float shifted = x * 1.44269504f + 12582912.f, whole = shifted - 12582912.f;
    const float r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1;
    uint32_t n;
    memcpy(&n, &shifted, sizeof n);
    const uint32_t power = (n - 0x4b400000u + 127u) << 23;
    float scale;
    memcpy(&scale, &power, sizeof scale);
    return x < -87 ? 0 : x == x ? p * scale : x;
}

/* A gate's softmax weights of a row, in place of their logits. */
INLINE void softmax(float *logits, const float *mask, int64_t experts)
{
    float most = -__builtin_inff(), total = 0;
    for (int64_t e = 0; e < experts; e++) {
        logits[e] += mask ? mask[e] : 0;
        most = logits[e] > most ? logits[e] : most;
    }
#pragma clang loop vectorize_width(8) /* there are rarely more experts */
    for (int64_t e = 0; e < experts; e++)
        logits[e] = exp_of(logits[e] - most);
    for (int64_t e = 0; e < experts; e++)
        total += logits[e];
    for (int64_t e = 0; e < experts; e++)
        logits[e] /= total;
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

typedef struct {
    float *logits;
    int64_t of_row, of_gate; /* numbers from one's logits to the next one's */
    const float *mask;
    const float *outputs;
    int64_t rows, gates, experts, width;
    float *out;
    int64_t first, last; /* of the rows, those to mix */
} Work;

INLINE void mix_rows(const Work *work)
{
    const int64_t experts = work->experts, width = work->width, step = work->rows * width;
    for (int64_t row = work->first; row < work->last; row++) {
        for (int64_t gate = 0; gate < work->gates; gate++) {
            float *weights = work->logits + row * work->of_row + gate * work->of_gate;
            softmax(weights, work->mask ? work->mask + gate * experts : 0, experts);
            const float *from = work->outputs + row * width;
            float *to = work->out + gate * step + row * width;
            int64_t i = 0;
            for (; i + 4 * LANES <= width; i += 4 * LANES)
                mix_columns(weights, from + i, step, experts, to + i, 4 * LANES, 4);
            for (; i + LANES <= width; i += LANES)
                mix_columns(weights, from + i, step, experts, to + i, LANES, 1);
            for (; i < width; i++) {
                to[i] = 0;
                for (int64_t e = 0; e < experts; e++)
                    to[i] += weights[e] == 0 ? 0 : weights[e] * from[e * step + i];
            }
        }
    }
}

#define LOOP(bits, instructions)                                                                   \
    instructions static void mix_##bits(const Work *work) { mix_rows(work); }

LOOP(128, )
#ifdef __x86_64__
LOOP(256, WITH_256)
LOOP(512, WITH_512)
#else
#define mix_256 mix_128
#define mix_512 mix_128
#endif

int64_t mix(float *logits, int64_t of_row, int64_t of_gate, const float *mask,
            const float *outputs, int64_t rows, int64_t gates, int64_t experts, int64_t width,
            float *out, int64_t first, int64_t last, int64_t bits)
{
    const Work work = {logits,  of_row, of_gate, mask,  outputs, rows, gates,
                       experts, width,  out,     first, last};
    (bits == 512 ? mix_512 : bits == 256 ? mix_256 : mix_128)(&work);
    return 0;
}
