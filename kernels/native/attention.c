/* Attention in float32: softmax(scale · Q Kᵀ) V, keys in blocks, scores never leaving the first caches.
 *
 * Rows of a step are given in groups, and every group looks at ranges of tokens: all of its rows at a whole range, as
 * questions do at the prefix that they share, or some of its rows at a range of their own, causally. Whatever a row
 * looks at is one softmax, kept as a running maximum and sum (Milakov & Gimelshein, arXiv 1805.02867; Dao et al.,
 * arXiv 2205.14135). Heads that share keys are rows of one product.
 */

#include <omp.h>
#include <stdint.h>
#include <stdlib.h>

#include "lanes.h"

/* Keys of a block; keys, or columns of values, of a panel, which a tile goes through from one end to the other. */
enum { BLOCK = 128, PANEL = WIDE * LANES, FEW_ROWS = 2 * ROWS };

/* Rows [first_row, end_row) of the step, and the ranges [first_range, end_range) that they look at. */
typedef struct {
    int64_t first_row, end_row, first_range, end_range;
} Group;

/* Rows [first_row, end_row) see tokens from `start` on: the first of them `seen`, each later one as many as the one
 * before it and `growth` more. */
typedef struct {
    int64_t first_row, end_row, start, seen, growth;
} Range;

/* A matrix of `head`s and rows, with its steps in values; the values of one row of one head are neighbours. */
typedef struct {
    float *at;
    int64_t row, head;
} Matrix;

typedef struct {
    const Group *groups;
    const Range *ranges;
    int64_t num_groups, most_rows;
    int64_t num_heads, num_kv_heads, head_dim, threads;
    float scale;
} Plan;

/* A thread's own memory: queries, outputs, maxima and sums of a group's rows, and a block: keys in panels
 * [BLOCK / PANEL][dim][PANEL], values likewise [dim / PANEL][BLOCK][PANEL], scores [ROWS][BLOCK]. */
typedef struct {
    float *queries, *out, *highest, *sum, *keys, *values, *scores;
} Room;

/* `rows` queries over `vectors` vectors of a panel of keys: scores [rows][BLOCK], and in `most` the highest of each lane. */
INLINE void score(const float *queries, const float *keys, int64_t dim, float *scores, Lanes *most, const int rows,
                  const int vectors) {
    Lanes sums[ROWS][WIDE];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) sums[i][j] = all_of(0.0f);
    /* By twos, and never none: else the compiler keeps the sums in memory around the loop. */
    const float *end = queries + dim;
    do {
        for (int d = 0; d < 2; d++) {
            Lanes column[WIDE];
            for (int j = 0; j < vectors; j++) column[j] = load(keys + d * PANEL + j * LANES);
            for (int i = 0; i < rows; i++) {
                Lanes value = all_of(queries[i * dim + d]);
                for (int j = 0; j < vectors; j++) sums[i][j] += value * column[j];
            }
        }
        keys += 2 * PANEL;
    } while ((queries += 2) < end);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) {
            store(scores + i * BLOCK + j * LANES, sums[i][j]);
            most[i] = larger(most[i], sums[i][j]);
        }
}

/* Adds weights [rows][BLOCK] times values [count], `step` apart, to `vectors` vectors of out [rows], `dim` apart. */
INLINE void add_values(const float *weights, const float *values, int64_t step, int64_t count, const float *shares,
                       float *out, int64_t dim, const int rows, const int vectors) {
    Lanes sums[ROWS][WIDE];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) sums[i][j] = all_of(shares[i]) * load(out + i * dim + j * LANES);
    const float *end = weights + count;
    do {
        Lanes row[WIDE];
        for (int j = 0; j < vectors; j++) row[j] = load_any(values + j * LANES);
        for (int i = 0; i < rows; i++) {
            Lanes weight = all_of(weights[i * BLOCK]);
            for (int j = 0; j < vectors; j++) sums[i][j] += weight * row[j];
        }
        values += step;
    } while (++weights < end);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) store(out + i * dim + j * LANES, sums[i][j]);
}

/* The highest of a row's first `count` scores, and of what was the highest before. */
INLINE float top_of(const float *scores, int64_t count, float highest) {
    Lanes most = all_of(highest);
    int64_t j = 0;
    for (; j + LANES <= count; j += LANES) most = larger(most, load(scores + j));
    if (j < count) most = larger(most, either(load(scores + j), most, first_of(count - j)));
    return largest(most);
}

/* Turns a row's scores of `count` keys, in `vectors` vectors, into weights below `top`, in place, zero beyond them; they
 * are added to what the earlier ones are worth now. */
INLINE void weigh(float *scores, int64_t count, int64_t vectors, float top, float share, float *sum) {
    int64_t j = 0;
    Lanes sums = load(sum) * share;
    for (; j + LANES <= count; j += LANES) {
        Lanes weights = two_to(load(scores + j) - top);
        sums += weights;
        store(scores + j, weights);
    }
    if (j < count) {
        Lanes weights = only(two_to(load(scores + j) - top), first_of(count - j));
        sums += weights;
        store(scores + j, weights);
        j += LANES;
    }
    for (; j < vectors * LANES; j += LANES) store(scores + j, all_of(0.0f));
    store(sum, sums);
}

/* A block's values: rows `step` apart, panels of columns `apart`. */
typedef struct {
    const float *at;
    int64_t step, apart;
} Values;

/* `rows` rows over one block; `seen[i]` of its keys count for row i, `count` at most. */
INLINE void tile(const Room *room, int64_t first, const int64_t *seen, const Values *values, int64_t dim, int64_t count,
                 const int rows) {
    const float *queries = room->queries + first * dim;
    int64_t vectors = (count + LANES - 1) / LANES, key = 0;
    float *highest = room->highest + first, tops[ROWS], shares[ROWS];
    Lanes most[ROWS];
    for (int i = 0; i < rows; i++) most[i] = all_of(highest[i]);
    for (; key + WIDE <= vectors; key += WIDE)
        score(queries, room->keys + key * LANES * dim, dim, room->scores + key * LANES, most, rows, WIDE);
    for (int64_t left; (left = vectors - key) > 0; key += left > 1 ? 2 : 1) {
        const float *keys = room->keys + key / WIDE * PANEL * dim + key % WIDE * LANES;
        if (left > 1)
            score(queries, keys, dim, room->scores + key * LANES, most, rows, 2);
        else
            score(queries, keys, dim, room->scores + key * LANES, most, rows, 1);
    }
    for (int i = 0; i < rows; i++)
        tops[i] = seen[i] == vectors * LANES ? largest(most[i]) : top_of(room->scores + i * BLOCK, seen[i], highest[i]);
    for (int i = 0; i < rows; i++) {
        shares[i] = two_to(all_of(highest[i] - tops[i]))[0];
        highest[i] = tops[i];
    }
    for (int i = 0; i < rows; i++)
        weigh(room->scores + i * BLOCK, seen[i], vectors, tops[i], shares[i], room->sum + (first + i) * LANES);
    float *out = room->out + first * dim;
    const float *panel = values->at;
    int64_t column = 0;
    for (; column + PANEL <= dim; column += PANEL, panel += values->apart)
        add_values(room->scores, panel, values->step, count, shares, out + column, dim, rows, WIDE);
    for (; column + 2 * LANES <= dim; column += 2 * LANES, panel += 2 * LANES)
        add_values(room->scores, panel, values->step, count, shares, out + column, dim, rows, 2);
    if (column < dim)
        add_values(room->scores, panel, values->step, count, shares, out + column, dim, rows, 1);
}

static void any_tile(const Room *room, int64_t first, int64_t rows, const int64_t *seen, const Values *values,
                     int64_t dim, int64_t count) {
    switch (rows) {
    case 1: tile(room, first, seen, values, dim, count, 1); break;
    case 2: tile(room, first, seen, values, dim, count, 2); break;
    case 3: tile(room, first, seen, values, dim, count, 3); break;
    case 4: tile(room, first, seen, values, dim, count, 4); break;
    case 5: tile(room, first, seen, values, dim, count, 5); break;
    default: tile(room, first, seen, values, dim, count, 6);
    }
}

/* Keys [count] as columns, in panels. */
static void turn_keys(const float *keys, int64_t step, int64_t count, int64_t dim, float *to) {
    for (int64_t key = 0; key < count; key += LANES)
        for (int64_t d = 0; d < dim; d += LANES)
            transpose_tile(keys + key * step + d, step, count - key,
                           to + key / PANEL * PANEL * dim + d * PANEL + key % PANEL, PANEL);
}

/* Values [count] in panels; as they are for few rows, which would not pay the copying back. */
static Values lay_values(const Room *room, const float *values, int64_t step, int64_t count, int64_t dim, int64_t rows) {
    if (rows <= FEW_ROWS) return (Values){values, step, PANEL};
    for (int64_t d = 0; d < dim; d += LANES) {
        float *to = room->values + d / PANEL * PANEL * BLOCK + d % PANEL;
        for (int64_t key = 0; key < count; key++) store(to + key * PANEL, load_any(values + key * step + d));
    }
    return (Values){room->values, PANEL, PANEL * BLOCK};
}

/* A group's rows of one key head over one range, `first` being the group's first row and `stacked` heads a row. */
static void over_range(const Room *room, const Range *range, int64_t first, int64_t stacked, const float *keys,
                       int64_t key_step, const float *values, int64_t value_step, int64_t dim) {
    int64_t begin = (range->first_row - first) * stacked, end = (range->end_row - first) * stacked;
    int64_t most = range->seen + (range->end_row - range->first_row - 1) * range->growth;
    for (int64_t block = 0; block < most; block += BLOCK) {
        int64_t count = most - block < BLOCK ? most - block : BLOCK;
        turn_keys(keys + (range->start + block) * key_step, key_step, count, dim, room->keys);
        const float *from = values + (range->start + block) * value_step;
        Values laid = lay_values(room, from, value_step, count, dim, end - begin);
        for (int64_t row = begin; row < end; row += ROWS) {
            int64_t rows = end - row < ROWS ? end - row : ROWS, seen[ROWS];
            for (int64_t i = 0; i < rows; i++) {
                int64_t left = range->seen + (row + i - begin) / stacked * range->growth - block;
                seen[i] = left < 0 ? 0 : left < count ? left : count;
            }
            /* Later rows see more. */
            if (seen[rows - 1]) any_tile(room, row, rows, seen, &laid, dim, seen[rows - 1]);
        }
    }
}

static void one_head(const Plan *plan, const Group *group, int64_t head, const Matrix *queries, const Matrix *keys,
                     const Matrix *values, const Matrix *out, const Room *room) {
    int64_t dim = plan->head_dim, stacked = plan->num_heads / plan->num_kv_heads;
    int64_t rows = (group->end_row - group->first_row) * stacked;
    /* Powers of two are taken of scores. */
    float scale = plan->scale * 1.44269504f;
    for (int64_t row = 0; row < rows; row++) {
        const float *from = queries->at + (group->first_row + row / stacked) * queries->row +
                            (head * stacked + row % stacked) * queries->head;
        for (int64_t d = 0; d < dim; d += LANES) {
            store(room->queries + row * dim + d, load_any(from + d) * scale);
            store(room->out + row * dim + d, all_of(0.0f));
        }
        room->highest[row] = -1e30f;
        store(room->sum + row * LANES, all_of(0.0f));
    }
    for (int64_t place = group->first_range; place < group->end_range; place++)
        over_range(room, plan->ranges + place, group->first_row, stacked, keys->at + head * keys->head, keys->row,
                   values->at + head * values->head, values->row, dim);
    for (int64_t row = 0; row < rows; row++) {
        float *to = out->at + (group->first_row + row / stacked) * out->row + (head * stacked + row % stacked) * out->head;
        float share = 1.0f / total(load(room->sum + row * LANES));
        for (int64_t d = 0; d < dim; d += LANES)
            store_any(to + d, load(room->out + row * dim + d) * share);
    }
}

/* Values of a room for `rows` rows; all its parts begin at multiples of 16 values. */
static int64_t room_values(int64_t rows, int64_t dim) {
    int64_t padded = (rows + LANES - 1) / LANES * LANES;
    return 2 * padded * dim + (1 + LANES) * padded + BLOCK * dim + BLOCK * ((dim + PANEL - 1) / PANEL * PANEL) + ROWS * BLOCK;
}

static Room room_at(float *at, int64_t rows, int64_t dim) {
    int64_t padded = (rows + LANES - 1) / LANES * LANES;
    Room room = {.queries = at, .out = at + padded * dim, .highest = at + 2 * padded * dim};
    room.sum = room.highest + padded;
    room.keys = room.sum + LANES * padded;
    room.scores = room.keys + BLOCK * dim;
    room.values = room.scores + ROWS * BLOCK;
    return room;
}

/* Every row of the plan's groups, into `out`. 0, or 1 where there was no memory for it. */
int lookonce_attend(const Plan *plan, const Matrix *queries, const Matrix *keys, const Matrix *values, const Matrix *out) {
    int64_t stacked = plan->num_heads / plan->num_kv_heads;
    int64_t units = plan->num_groups * plan->num_kv_heads, next = 0;
    int64_t size = room_values(plan->most_rows * stacked, plan->head_dim);
    int64_t threads = plan->threads < units ? plan->threads : units;
    float *memory = aligned_alloc(64, (size_t)(size * threads) * sizeof(float));
    if (!memory) return 1;
#pragma omp parallel num_threads(threads)
    {
        Room room = room_at(memory + omp_get_thread_num() * size, plan->most_rows * stacked, plan->head_dim);
        int64_t place;
        while ((place = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < units)
            one_head(plan, plan->groups + place / plan->num_kv_heads, place % plan->num_kv_heads, queries, keys, values,
                     out, &room);
    }
    free(memory);
    return 0;
}
