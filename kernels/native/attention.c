/* Attention in float32 with AVX-512: softmax(scale · Q Kᵀ) V, keys in blocks, scores never leaving the first caches.
 *
 * Rows of a step are given in groups, and every group looks at ranges of tokens: all of its rows at a whole range, as
 * questions do at the prefix that they share, or some of its rows at a range of their own, causally. Whatever a row
 * looks at is one softmax, kept as a running maximum and sum (Milakov & Gimelshein, arXiv 1805.02867; Dao et al.,
 * arXiv 2205.14135). Heads that share keys are rows of one product.
 */

#include <immintrin.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>

/* Keys of a block, and the rows that a product keeps in registers: 6 × 4 accumulators of 16 values. */
enum { LANES = 16, BLOCK = 64, ROWS = 6 };

#define INLINE static inline __attribute__((always_inline))

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

/* A thread's own memory: queries, outputs, maxima and sums of a group's rows, and a block of keys and values. */
typedef struct {
    float *queries, *out, *highest, *sum, *keys, *values, *scores;
} Room;

/* eˣ for x ≤ 0, to the last bit or two: 2ⁿ · eʳ with |r| ≤ ln 2 / 2, eʳ by its series. */
INLINE __m512 exponential(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.0f));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 8);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.0f / 5040);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* 16 rows of 16 values, `step` apart, as 16 columns in `to`, BLOCK apart. */
INLINE void transpose_tile(const float *from, int64_t step, int64_t rows, float *to) {
    __m512 a[LANES], b[LANES];
    for (int i = 0; i < LANES; i++)
        a[i] = i < rows ? _mm512_loadu_ps(from + i * step) : _mm512_setzero_ps();
    for (int i = 0; i < LANES; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4)
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = (__m512)_mm512_unpacklo_pd((__m512d)b[i + j], (__m512d)b[i + j + 2]);
            a[i + 2 * j + 1] = (__m512)_mm512_unpackhi_pd((__m512d)b[i + j], (__m512d)b[i + j + 2]);
        }
    /* a[4·g + c] holds, in its quarter q, column 4·q + c of rows 4·g to 4·g + 3. */
    for (int c = 0; c < 4; c++) {
        __m512 low = _mm512_shuffle_f32x4(a[c], a[4 + c], 0x44), high = _mm512_shuffle_f32x4(a[c], a[4 + c], 0xee);
        __m512 low2 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x44);
        __m512 high2 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xee);
        _mm512_store_ps(to + c * BLOCK, _mm512_shuffle_f32x4(low, low2, 0x88));
        _mm512_store_ps(to + (4 + c) * BLOCK, _mm512_shuffle_f32x4(low, low2, 0xdd));
        _mm512_store_ps(to + (8 + c) * BLOCK, _mm512_shuffle_f32x4(high, high2, 0x88));
        _mm512_store_ps(to + (12 + c) * BLOCK, _mm512_shuffle_f32x4(high, high2, 0xdd));
    }
}

/* `rows` queries over a block of keys [dim][BLOCK], `vectors` · 16 of them: scores [rows][BLOCK]. */
INLINE void score(const float *queries, const float *keys, int64_t dim, float *scores, const int rows, const int vectors) {
    __m512 sums[ROWS][4];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) sums[i][j] = _mm512_setzero_ps();
    for (int64_t d = 0; d < dim; d++) {
        __m512 column[4];
        for (int j = 0; j < vectors; j++) column[j] = _mm512_load_ps(keys + d * BLOCK + j * LANES);
        for (int i = 0; i < rows; i++) {
            __m512 value = _mm512_set1_ps(queries[i * dim + d]);
            for (int j = 0; j < vectors; j++) sums[i][j] = _mm512_fmadd_ps(value, column[j], sums[i][j]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) _mm512_store_ps(scores + i * BLOCK + j * LANES, sums[i][j]);
}

/* Adds weights [rows][BLOCK] times values [count], `step` apart, to `vectors` · 16 columns of out [rows], `dim` apart. */
INLINE void add_values(const float *weights, const float *values, int64_t step, int64_t count, const float *shares,
                       float *out, int64_t dim, const int rows, const int vectors) {
    __m512 sums[ROWS][4];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++)
            sums[i][j] = _mm512_mul_ps(_mm512_set1_ps(shares[i]), _mm512_load_ps(out + i * dim + j * LANES));
    for (int64_t key = 0; key < count; key++) {
        __m512 row[4];
        for (int j = 0; j < vectors; j++) row[j] = _mm512_loadu_ps(values + key * step + j * LANES);
        for (int i = 0; i < rows; i++) {
            __m512 weight = _mm512_set1_ps(weights[i * BLOCK + key]);
            for (int j = 0; j < vectors; j++) sums[i][j] = _mm512_fmadd_ps(weight, row[j], sums[i][j]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) _mm512_store_ps(out + i * dim + j * LANES, sums[i][j]);
}

/* Turns a row's scores of `count` keys into weights, in place, zero beyond them; returns what the earlier ones are
 * worth now. */
INLINE float weigh(float *scores, int64_t count, const int vectors, float *highest, float *sum) {
    __mmask16 kept[4];
    __m512 part[4], most = _mm512_set1_ps(*highest), total = _mm512_setzero_ps();
    for (int j = 0; j < vectors; j++) {
        int64_t left = count - j * LANES;
        kept[j] = left >= LANES ? 0xffff : left <= 0 ? 0 : (1u << left) - 1;
        part[j] = _mm512_load_ps(scores + j * LANES);
        most = _mm512_mask_max_ps(most, kept[j], most, part[j]);
    }
    float top = _mm512_reduce_max_ps(most);
    for (int j = 0; j < vectors; j++) {
        part[j] = _mm512_maskz_mov_ps(kept[j], exponential(_mm512_sub_ps(part[j], _mm512_set1_ps(top))));
        total = _mm512_add_ps(total, part[j]);
        _mm512_store_ps(scores + j * LANES, part[j]);
    }
    float share = _mm512_cvtss_f32(exponential(_mm512_set1_ps(*highest - top)));
    *sum = *sum * share + _mm512_reduce_add_ps(total);
    *highest = top;
    return share;
}

/* `rows` rows over one block; `seen[i]` of its keys count for row i. */
INLINE void tile(const Room *room, int64_t first, const int64_t *seen, const float *values, int64_t step, int64_t dim,
                 int64_t count, const int rows, const int vectors) {
    float shares[ROWS];
    score(room->queries + first * dim, room->keys, dim, room->scores, rows, vectors);
    for (int i = 0; i < rows; i++)
        shares[i] = weigh(room->scores + i * BLOCK, seen[i], vectors, room->highest + first + i, room->sum + first + i);
    float *out = room->out + first * dim;
    int64_t column = 0;
    for (; column + BLOCK <= dim; column += BLOCK)
        add_values(room->scores, values + column, step, count, shares, out + column, dim, rows, 4);
    for (; column < dim; column += LANES)
        add_values(room->scores, values + column, step, count, shares, out + column, dim, rows, 1);
}

#define BY_VECTORS(R)                                                                          \
    switch (vectors) {                                                                         \
    case 1: tile(room, first, seen, values, step, dim, count, R, 1); break;                    \
    case 2: tile(room, first, seen, values, step, dim, count, R, 2); break;                    \
    case 3: tile(room, first, seen, values, step, dim, count, R, 3); break;                    \
    default: tile(room, first, seen, values, step, dim, count, R, 4);                          \
    }

static void any_tile(const Room *room, int64_t first, int64_t rows, const int64_t *seen, const float *values,
                     int64_t step, int64_t dim, int64_t count) {
    int64_t vectors = (count + LANES - 1) / LANES;
    switch (rows) {
    case 1: BY_VECTORS(1) break;
    case 2: BY_VECTORS(2) break;
    case 3: BY_VECTORS(3) break;
    case 4: BY_VECTORS(4) break;
    case 5: BY_VECTORS(5) break;
    default: BY_VECTORS(6)
    }
}

/* Keys [count] as columns [dim][BLOCK]. */
static void turn_keys(const float *keys, int64_t step, int64_t count, int64_t dim, float *to) {
    for (int64_t key = 0; key < count; key += LANES)
        for (int64_t d = 0; d < dim; d += LANES)
            transpose_tile(keys + key * step + d, step, count - key, to + d * BLOCK + key);
}

static const float *dense_values(const Room *room, const float *values, int64_t step, int64_t count, int64_t dim) {
    if (step == dim) return values;
    for (int64_t key = 0; key < count; key++)
        for (int64_t d = 0; d < dim; d += LANES)
            _mm512_store_ps(room->values + key * dim + d, _mm512_loadu_ps(values + key * step + d));
    return room->values;
}

/* A group's rows of one key head over one range, `first` being the group's first row and `stacked` heads a row. */
static void over_range(const Room *room, const Range *range, int64_t first, int64_t stacked, const float *keys,
                       int64_t key_step, const float *values, int64_t value_step, int64_t dim) {
    int64_t begin = (range->first_row - first) * stacked, end = (range->end_row - first) * stacked;
    int64_t most = range->seen + (range->end_row - range->first_row - 1) * range->growth;
    for (int64_t block = 0; block < most; block += BLOCK) {
        int64_t count = most - block < BLOCK ? most - block : BLOCK;
        turn_keys(keys + (range->start + block) * key_step, key_step, count, dim, room->keys);
        const float *rows_of = dense_values(room, values + (range->start + block) * value_step, value_step, count, dim);
        for (int64_t row = begin; row < end; row += ROWS) {
            int64_t rows = end - row < ROWS ? end - row : ROWS, seen[ROWS];
            for (int64_t i = 0; i < rows; i++) {
                int64_t left = range->seen + (row + i - begin) / stacked * range->growth - block;
                seen[i] = left < 0 ? 0 : left < count ? left : count;
            }
            /* Later rows see more. */
            if (seen[rows - 1]) any_tile(room, row, rows, seen, rows_of, dim, dim, seen[rows - 1]);
        }
    }
}

static void one_head(const Plan *plan, const Group *group, int64_t head, const Matrix *queries, const Matrix *keys,
                     const Matrix *values, const Matrix *out, const Room *room) {
    int64_t dim = plan->head_dim, stacked = plan->num_heads / plan->num_kv_heads;
    int64_t rows = (group->end_row - group->first_row) * stacked;
    const __m512 scale = _mm512_set1_ps(plan->scale);
    for (int64_t row = 0; row < rows; row++) {
        const float *from = queries->at + (group->first_row + row / stacked) * queries->row +
                            (head * stacked + row % stacked) * queries->head;
        for (int64_t d = 0; d < dim; d += LANES) {
            _mm512_store_ps(room->queries + row * dim + d, _mm512_mul_ps(scale, _mm512_loadu_ps(from + d)));
            _mm512_store_ps(room->out + row * dim + d, _mm512_setzero_ps());
        }
        room->highest[row] = -1e30f;
        room->sum[row] = 0.0f;
    }
    for (int64_t place = group->first_range; place < group->end_range; place++)
        over_range(room, plan->ranges + place, group->first_row, stacked, keys->at + head * keys->head, keys->row,
                   values->at + head * values->head, values->row, dim);
    for (int64_t row = 0; row < rows; row++) {
        float *to = out->at + (group->first_row + row / stacked) * out->row + (head * stacked + row % stacked) * out->head;
        const __m512 share = _mm512_set1_ps(1.0f / room->sum[row]);
        for (int64_t d = 0; d < dim; d += LANES)
            _mm512_storeu_ps(to + d, _mm512_mul_ps(share, _mm512_load_ps(room->out + row * dim + d)));
    }
}

/* Values of a room for `rows` rows; all its parts begin at multiples of 16 values. */
static int64_t room_values(int64_t rows, int64_t dim) {
    int64_t padded = (rows + LANES - 1) / LANES * LANES;
    return 2 * padded * dim + 2 * padded + 2 * BLOCK * dim + ROWS * BLOCK;
}

static Room room_at(float *at, int64_t rows, int64_t dim) {
    int64_t padded = (rows + LANES - 1) / LANES * LANES;
    Room room = {.queries = at, .out = at + padded * dim, .highest = at + 2 * padded * dim};
    room.sum = room.highest + padded;
    room.keys = room.sum + padded;
    room.values = room.keys + BLOCK * dim;
    room.scores = room.values + BLOCK * dim;
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
