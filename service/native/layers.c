/* The first layers of a joint stage, and the levels above; described in layers.py. */

#include "mixtures.h"
#include "products.h"

#define NUMBER_BYTES(half) ((half) ? 2 : 4)

typedef struct {
    int64_t start, width; /* its columns of the sum of a user's and an item's numbers, or its stream */
    int64_t relu;
    int64_t first_layer, layers; /* that follow, among all layers */
} Part;

typedef struct {
    const Level *levels;
    int64_t count;
    const Part *parts;
    const Layer *layers;
    int64_t widest;            /* of what goes into or comes out of a layer; 0 if there is none */
    int64_t outputs, mixtures; /* numbers of a row: of a level's parts, and of its gates; at most */
    int64_t weights;           /* of a level's gates, at most */
} Network;

typedef struct {
    const float *users;
    const int64_t *user_row;
    const char *items;
    const int64_t *item_row;
    int64_t width, half;
    int64_t first, last; /* of the rows, those to compute */
} Work;

/* Where a block of rows is worked on. */
typedef struct {
    Inputs inputs, next_inputs;
    float *sums;
    float *outputs, *mixtures;
    Vector *weights;
} Room;

/* Lay a room out from an address on; its end. */
INLINE uint64_t lay_out(const Network *network, uint64_t at, Room *room)
{
    const int64_t width = round_up(network->widest, SEGMENT), segments = width / SEGMENT;
    at = round_up(at, LINE_BYTES);
#define TAKE(pointer, numbers)                                                                     \
    pointer = (void *)at;                                                                          \
    at += round_up(numbers, LANES) * sizeof(float);
    room->inputs = room->next_inputs = (Inputs){.width = width, .segments = segments};
    TAKE(room->inputs.numbers, BLOCK * width)
    TAKE(room->next_inputs.numbers, BLOCK * width)
    TAKE(room->inputs.above, BLOCK * segments * 2)
    TAKE(room->next_inputs.above, BLOCK * segments * 2)
    TAKE(room->sums, BLOCK * SUMS * LANES)
    TAKE(room->outputs, BLOCK * network->outputs)
    TAKE(room->mixtures, BLOCK * network->mixtures)
    TAKE(room->weights, LANES * network->weights)
    return at;
}

INLINE const char *numbers_of_item(const Work *work, int64_t row, const Part *part, int half)
{
    return work->items + (work->item_row[row] * work->width + part->start) * NUMBER_BYTES(half);
}

/* Numbers of an item, which are kept as floats or as halves of them, from one on. */
INLINE Vector some_numbers(const char *item, int64_t i, int half)
{
    typedef _Float16 Halves __attribute__((vector_size(2 * LANES), aligned(2)));
    if (half)
        return __builtin_convertvector(*(const Halves *)(item + i * 2), Vector);
    return *(const Vector *)(item + i * 4);
}

INLINE float number(const char *item, int64_t i, int half)
{
    return half ? (float)((const _Float16 *)item)[i] : ((const float *)item)[i];
}

INLINE void add(const float *user, const char *item, int64_t columns, int relu, int half, float *to)
{
    int64_t i = 0;
    for (; i + LANES <= columns; i += LANES) {
        Vector sum = *(const Vector *)(user + i) + some_numbers(item, i, half);
        if (relu)
            rectify(&sum, 1);
        *(Vector *)(to + i) = sum;
    }
    for (; i < columns; i++) {
        const float sum = user[i] + number(item, i, half);
        to[i] = relu && !ABOVE_ZERO(sum) ? 0 : sum;
    }
}

/* Say which of a row's numbers are above zero. */
INLINE void mark(Inputs *inputs, int64_t row, int64_t count)
{
    const float *numbers = inputs->numbers + row * inputs->width;
    for (int64_t at = 0, segment = 0; at < count; at += SEGMENT, segment++)
        inputs->above[row * inputs->segments + segment] =
            above_zero(numbers + at, count - at < SEGMENT ? count - at : SEGMENT);
}

/* Have what is read of a part, from a row on, asked for in so many steps; none, at once. */
INLINE void look_ahead(const Work *work, const Part *part, int64_t first, int64_t steps,
                       Ahead *ahead, int half)
{
    const int64_t bytes = part->width * NUMBER_BYTES(half), left = work->last - first;
    ahead->rows = left < BLOCK ? left : BLOCK;
    ahead->bytes = steps ? round_up((bytes + steps - 1) / steps, LINE_BYTES) : 0;
    for (int64_t row = 0; row < ahead->rows; row++) {
        ahead->of_row[row] = numbers_of_item(work, first + row, part, half);
        if (!steps)
            ask_for(ahead->of_row[row], bytes);
    }
}

/* The sum of a user's and an item's numbers for some rows: marked, or as a tensor if no layer
   follows. */
INLINE void sum_of(const Work *work, const Part *part, int64_t first, int64_t rows, Inputs *inputs,
                   float *to, int half)
{
    for (int64_t row = 0; row < rows; row++) {
        const int64_t at = first + row;
        const float *user = work->users + work->user_row[at] * work->width + part->start;
        const char *item = numbers_of_item(work, at, part, half);
        if (part->layers) {
            add(user, item, part->width, 0, half, inputs->numbers + row * inputs->width);
            mark(inputs, row, part->width);
        } else if (part->relu)
            add(user, item, part->width, 1, half, to + row * part->width);
        else
            add(user, item, part->width, 0, half, to + row * part->width);
    }
}

/* All parts of a level, for a block of rows: of the first level, or of one that reads streams. */
INLINE void parts_of(const Network *network, const Level *level, const Work *work,
                     const float *streams, int64_t first, int64_t rows, Room *room,
                     const Target *to, int half, const int most_vectors)
{
    const Part *parts = network->parts + level->first_part;
    float *tensor = to->numbers;
    for (int64_t number = 0; number < level->parts; number++) {
        const Part *part = parts + number;
        const Layer *layers = network->layers + part->first_layer;
        const int64_t width = part->layers ? layers[part->layers - 1].outputs : part->width;
        const int end = number + 1 == level->parts;
        float *of_part = tensor + to->first * width;
        const float *from = 0;
        Ahead ahead = {.rows = 0};
        if (streams)
            from = streams + part->start * rows * part->width;
        else {
            sum_of(work, part, first, rows, &room->inputs, of_part, half);
            look_ahead(work, end ? parts : part + 1, end ? first + rows : first,
                       part->layers ? round_up(part->width, SEGMENT) / SEGMENT : 0, &ahead, half);
        }
        for (const Layer *layer = layers; layer < layers + part->layers; layer++) {
            if (layer + 1 == layers + part->layers) {
                through(layer, &room->inputs, from, rows, &ahead, room->sums, of_part, width,
                        most_vectors);
                continue;
            }
            const Inputs next = room->next_inputs;
            through(layer, &room->inputs, from, rows, &ahead, room->sums, next.numbers, next.width,
                    most_vectors);
            ahead.rows = 0;
            room->next_inputs = room->inputs;
            room->inputs = next;
            for (int64_t row = 0; row < rows; row++)
                mark(&room->inputs, row, layer->outputs);
        }
        tensor += to->rows * width;
    }
}

INLINE void rows_of(const Network *network, const Work *work, float *memory, const Target *out,
                    int half, const int most_vectors)
{
    Room room;
    lay_out(network, (uint64_t)memory, &room);
    const Level *levels = network->levels, *end = levels + network->count;
    Ahead ahead;
    look_ahead(work, network->parts, work->first, 0, &ahead, half);
    for (int64_t first = work->first; first < work->last; first += BLOCK) {
        const int64_t rows = work->last - first < BLOCK ? work->last - first : BLOCK;
        const Target of_block = {room.outputs, rows, 0}, of_gates = {room.mixtures, rows, 0};
        const Target result = {out->numbers, out->rows, first};
        for (const Level *level = levels; level < end; level++) {
            const int last = level + 1 == end;
            parts_of(network, level, work, level == levels ? 0 : room.mixtures, first, rows, &room,
                     last && !level->gates ? &result : &of_block, half, most_vectors);
            if (level->gates)
                mix(level, room.outputs, rows, room.weights, last ? &result : &of_gates);
        }
    }
}

#define LOOPS(bits, instructions)                                                                  \
    instructions static void rows_##bits(const Network *network, const Work *work, float *memory,  \
                                         const Target *out)                                        \
    {                                                                                              \
        if (work->half)                                                                            \
            rows_of(network, work, memory, out, 1, bits / 64);                                     \
        else                                                                                       \
            rows_of(network, work, memory, out, 0, bits / 64);                                     \
    }

LOOPS(128, )
#ifdef __x86_64__
LOOPS(256, WITH_256)
LOOPS(512, WITH_512)
#else
#define rows_256 rows_128
#define rows_512 rows_128
#endif

int64_t layers_room(const Network *network)
{
    Room room;
    return (lay_out(network, 0, &room) + LINE_BYTES) / sizeof(float);
}

int64_t layers(const Network *network, const float *users, int64_t user_count,
               const int64_t *user_row, const char *items, int64_t item_count,
               const int64_t *item_row, int64_t width, int64_t half, int64_t rows, int64_t first,
               int64_t last, float *memory, float *out, int64_t bits)
{
    if (first_outside(user_row + first, last - first, user_count) >= 0 ||
        first_outside(item_row + first, last - first, item_count) >= 0)
        return -1;
    const Work work = {users, user_row, items, item_row, width, half, first, last};
    const Target target = {out, rows, 0};
    (bits == 512 ? rows_512 : bits == 256 ? rows_256 : rows_128)(network, &work, memory, &target);
    return 0;
}
