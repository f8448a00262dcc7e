/* The first layers of a joint stage; described in layers.py.

   Half of what ReLU leaves is zero, so a row keeps the rest, with its places, and a product adds up
   only the rows of the weights that these name. */

#include "native.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define SEGMENT 64  /* inputs whose weights for that many sums stay in the first-level cache */
#define BLOCK 64    /* rows that are brought through all layers together */
#define NUMBER_BYTES(half) ((half) ? 2 : 4)
#define ABOVE_ZERO(x) (!((x) <= 0)) /* or no number, which stays none */

typedef struct {
    int64_t start, width; /* its columns of the sum of a user's and an item's numbers */
    int64_t relu;
    int64_t first_layer, layers; /* that follow, among all layers */
} Part;

typedef struct {
    const float *weights; /* see `packed` in layers.py */
    const float *bias;
    int64_t inputs, outputs;
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

typedef struct {
    const float *users;
    const int64_t *user_row;
    const char *items;
    const int64_t *item_row;
    int64_t width, half;
    int64_t rows; /* of all tensors */
    int64_t first, last; /* of those to compute */
    const Part *parts;
    int64_t count;
    const Layer *layers;
    int64_t widest; /* of what goes into or comes out of a layer; 0 if there is none */
    float *room;
    float *out;
} Work;

INLINE const char *numbers_of_item(const Work *work, int64_t row, const Part *part, int half)
{
    return work->items + (work->item_row[row] * work->width + part->start) * NUMBER_BYTES(half);
}

INLINE void ask_for_part(const Work *work, int64_t row, const Part *part, int half)
{
    ask_for(numbers_of_item(work, row, part, half), part->width * NUMBER_BYTES(half));
}

/* A number of an item, which is kept as float or as half of one. */
INLINE float number(const void *item, int64_t i, int half)
{
    return half ? (float)((const _Float16 *)item)[i] : ((const float *)item)[i];
}

INLINE void add(const float *restrict user, const void *restrict item, int64_t columns, int relu,
                int half, float *restrict to)
{
    for (int64_t i = 0; i < columns; i++) {
        const float sum = user[i] + number(item, i, half);
        to[i] = relu && !ABOVE_ZERO(sum) ? 0 : sum;
    }
}

/* Keep what is above zero of an item's numbers, and of a user's that are added if there are any. */
INLINE int64_t keep_any(const float *user, const void *item, int half, int64_t count,
                        float *values, int32_t *places)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++) {
        const float sum = (user ? user[i] : 0) + number(item, i, half);
        values[kept] = sum;
        places[kept] = (int32_t)i;
        kept += ABOVE_ZERO(sum);
    }
    return kept;
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
    for (; i < count; i++) {
        const float sum = (user ? user[i] : 0) + number(item, i, half);
        values[kept] = sum;
        places[kept] = (int32_t)i;
        kept += ABOVE_ZERO(sum);
    }
    return kept;
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
            for (int v = 0; v < vectors; v++)
                sum[v] = (Vector)((__typeof__(sum[v] < 0))sum[v] & ~(sum[v] <= 0));
            put(sum, to + row * to_width, columns, vectors);
        }
    }
}

/* A layer of rows whose inputs have been kept. */
INLINE void through(const Layer *layer, const Kept *kept, int64_t rows, float *sums, float *to,
                    const int most_vectors)
{
    const float *weights = layer->weights;
    for (int64_t column = 0; column < layer->outputs;) {
        const int64_t left = layer->outputs - column;
        const int64_t vectors = round_up(left, LANES) / LANES;
        const int64_t taken = vectors < most_vectors ? vectors : most_vectors;
        const int64_t columns = left < taken * LANES ? left : taken * LANES;
#define COLUMNS(vectors)                                                                           \
    case vectors:                                                                                  \
        columns_of(kept, rows, layer->inputs, weights, layer->bias + column, sums, to + column,    \
                   layer->outputs, columns, vectors);                                              \
        break;
        switch (taken) {
            COLUMNS(1)
            COLUMNS(2)
            COLUMNS(3)
            COLUMNS(4)
            COLUMNS(5)
            COLUMNS(6)
            COLUMNS(7)
            COLUMNS(8)
        }
        weights += taken * LANES * layer->inputs;
        column += columns;
    }
}

/* A part of some rows, into `to`; what the next one reads, so many rows ahead, is asked for. */
INLINE void part_of(const Work *work, const Part *part, const Part *next, int64_t ahead,
                    int64_t first, int64_t rows, float *to, Keep keep_some, int half,
                    const int most_vectors)
{
    const int64_t widest = round_up(work->widest, LANES);
    float *activations = (float *)round_up((int64_t)work->room, LINE_BYTES);
    float *sums = activations + BLOCK * widest;
    Kept kept = {.room = widest + LANES, .segments = widest / SEGMENT + 1};
    kept.values = sums + BLOCK * SUMS * LANES;
    kept.places = (int32_t *)(kept.values + BLOCK * kept.room);
    kept.counts = kept.places + BLOCK * kept.room;
    for (int64_t row = 0; row < rows; row++) {
        const int64_t at = first + row;
        const float *user = work->users + work->user_row[at] * work->width + part->start;
        const char *item = numbers_of_item(work, at, part, half);
        if (at + ahead < work->last)
            ask_for_part(work, at + ahead, next, half);
        if (part->layers)
            keep(keep_some, user, item, half, part->width, row, &kept);
        else if (part->relu)
            add(user, item, part->width, 1, half, to + row * part->width);
        else
            add(user, item, part->width, 0, half, to + row * part->width);
    }
    for (int64_t number = 0; number < part->layers; number++) {
        const Layer *layer = work->layers + part->first_layer + number;
        const int last = number + 1 == part->layers;
        through(layer, &kept, rows, sums, last ? to : activations, most_vectors);
        for (int64_t row = 0; !last && row < rows; row++)
            keep(keep_some, 0, activations + row * layer->outputs, 0, layer->outputs, row, &kept);
    }
}

INLINE void parts_of(const Work *work, Keep keep_some, int half, const int most_vectors)
{
    const Part *parts = work->parts;
    for (int64_t row = work->first; row < work->last && row < work->first + BLOCK; row++)
        ask_for_part(work, row, parts, half);
    for (int64_t first = work->first; first < work->last; first += BLOCK) {
        const int64_t rows = work->last - first < BLOCK ? work->last - first : BLOCK;
        float *tensor = work->out;
        for (int64_t number = 0; number < work->count; number++) {
            const Part *part = parts + number;
            const int end = number + 1 == work->count;
            const int64_t width =
                part->layers ? work->layers[part->first_layer + part->layers - 1].outputs
                             : part->width;
            part_of(work, part, end ? parts : part + 1, end ? BLOCK : 0, first, rows,
                    tensor + first * width, keep_some, half, most_vectors);
            tensor += work->rows * width;
        }
    }
}

#define LOOPS(bits, instructions, keep_some)                                                       \
    instructions static void parts_##bits(const Work *work)                                        \
    {                                                                                              \
        if (work->half)                                                                            \
            parts_of(work, keep_some, 1, bits / 64);                                               \
        else                                                                                       \
            parts_of(work, keep_some, 0, bits / 64);                                               \
    }

LOOPS(128, , keep_any)
#ifdef __x86_64__
LOOPS(256, WITH_256, keep_any)
LOOPS(512, WITH_512, keep_512)
#else
#define parts_256 parts_128
#define parts_512 parts_128
#endif

int64_t layers_room(int64_t widest)
{
    widest = round_up(widest, LANES);
    return LANES + BLOCK * (3 * widest + SUMS * LANES + 2 * LANES + widest / SEGMENT + 1);
}

int64_t layers(const float *users, int64_t user_count, const int64_t *user_row, const char *items,
               int64_t item_count, const int64_t *item_row, int64_t width, int64_t half,
               int64_t rows, int64_t first, int64_t last, const Part *parts, int64_t count,
               const Layer *all_layers, int64_t widest, float *room, float *out, int64_t bits)
{
    if (first_outside(user_row + first, last - first, user_count) >= 0 ||
        first_outside(item_row + first, last - first, item_count) >= 0)
        return -1;
    const Work work = {users, user_row, items,  item_row,   width,  half, rows,
                       first, last,     parts,  count,      all_layers, widest, room, out};
    (bits == 512 ? parts_512 : bits == 256 ? parts_256 : parts_128)(&work);
    return 0;
}
