/* The first layers of a joint stage; described in layers.py. */

#include "products.h"

#define BLOCK 64 /* rows that are brought through all layers together */

typedef struct {
    int64_t start, width; /* its columns of the sum of a user's and an item's numbers, or its stream */
    int64_t relu;
    int64_t first_layer, layers; /* that follow, among all layers */
} Part;

typedef struct {
    const float *streams; /* [streams, rows, inputs]; what follows is of the sum, if there are none */
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

INLINE void add(const float *restrict user, const void *restrict item, int64_t columns, int relu,
                int half, float *restrict to)
{
    for (int64_t i = 0; i < columns; i++) {
        const float sum = user[i] + number(item, i, half);
        to[i] = relu && !ABOVE_ZERO(sum) ? 0 : sum;
    }
}

/* The sum of a user's and an item's numbers for some rows: kept, or as a tensor if no layer follows.
   What the next part reads, so many rows ahead, is asked for. */
INLINE void sum_of(const Work *work, const Part *part, const Part *next, int64_t ahead,
                   int64_t first, int64_t rows, Kept *kept, float *to, Keep keep_some, int half)
{
    for (int64_t row = 0; row < rows; row++) {
        const int64_t at = first + row;
        const float *user = work->users + work->user_row[at] * work->width + part->start;
        const char *item = numbers_of_item(work, at, part, half);
        if (at + ahead < work->last)
            ask_for_part(work, at + ahead, next, half);
        if (part->layers)
            keep(keep_some, user, item, half, part->width, row, kept);
        else if (part->relu)
            add(user, item, part->width, 1, half, to + row * part->width);
        else
            add(user, item, part->width, 0, half, to + row * part->width);
    }
}

INLINE void parts_of(const Work *work, Keep keep_some, int half, const int most_vectors)
{
    const int64_t widest = round_up(work->widest, LANES);
    float *activations = (float *)round_up((int64_t)work->room, LINE_BYTES);
    float *sums = activations + BLOCK * widest;
    Kept kept = {.room = widest + LANES, .segments = widest / SEGMENT + 1};
    kept.values = sums + BLOCK * SUMS * LANES;
    kept.places = (int32_t *)(kept.values + BLOCK * kept.room);
    kept.counts = kept.places + BLOCK * kept.room;
    if (!work->streams)
        for (int64_t row = work->first; row < work->last && row < work->first + BLOCK; row++)
            ask_for_part(work, row, work->parts, half);
    for (int64_t first = work->first; first < work->last; first += BLOCK) {
        const int64_t rows = work->last - first < BLOCK ? work->last - first : BLOCK;
        float *tensor = work->out;
        for (int64_t number = 0; number < work->count; number++) {
            const Part *part = work->parts + number;
            const Layer *layers = work->layers + part->first_layer;
            const int64_t width = part->layers ? layers[part->layers - 1].outputs : part->width;
            const int end = number + 1 == work->count;
            float *to = tensor + first * width;
            const float *from = 0;
            if (work->streams)
                from = work->streams + (part->start * work->rows + first) * part->width;
            else
                sum_of(work, part, end ? work->parts : part + 1, end ? BLOCK : 0, first, rows,
                       &kept, to, keep_some, half);
            for (const Layer *layer = layers; layer < layers + part->layers; layer++) {
                const int last = layer + 1 == layers + part->layers;
                through(layer, &kept, from, rows, sums, last ? to : activations, most_vectors);
                for (int64_t row = 0; !last && row < rows; row++)
                    keep(keep_some, 0, activations + row * layer->outputs, 0, layer->outputs, row,
                         &kept);
            }
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

static void compute(const Work *work, int64_t bits)
{
    (bits == 512 ? parts_512 : bits == 256 ? parts_256 : parts_128)(work);
}

int64_t layers(const float *users, int64_t user_count, const int64_t *user_row, const char *items,
               int64_t item_count, const int64_t *item_row, int64_t width, int64_t half,
               int64_t rows, int64_t first, int64_t last, const Part *parts, int64_t count,
               const Layer *all_layers, int64_t widest, float *room, float *out, int64_t bits)
{
    if (first_outside(user_row + first, last - first, user_count) >= 0 ||
        first_outside(item_row + first, last - first, item_count) >= 0)
        return -1;
    const Work work = {0,    users, user_row, items, item_row,   width,  half, rows,
                       first, last, parts,    count, all_layers, widest, room, out};
    compute(&work, bits);
    return 0;
}

int64_t level(const float *streams, int64_t rows, int64_t first, int64_t last, const Part *parts,
              int64_t count, const Layer *all_layers, int64_t widest, float *room, float *out,
              int64_t bits)
{
    const Work work = {.streams = streams, .rows = rows,         .first = first,   .last = last,
                       .parts = parts,     .count = count,       .layers = all_layers,
                       .widest = widest,   .room = room,         .out = out};
    compute(&work, bits);
    return 0;
}
