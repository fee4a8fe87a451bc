/* Linear layers in float32: y = f(x Wᵀ + b), for one row or for thousands, over one layout of the weights.
 *
 * Weights lie in panels of PANEL outputs, [panels][inputs][PANEL], the last one padded with zeros. A tile of up to ROWS
 * rows by one panel is summed in registers over a block of inputs. The tiles of all rows at hand take that block out of
 * the first cache in turn, and each fetches its share of the block that comes next: weights are read from memory beside
 * the multiplying. Rows are cut into tiles of nearly one size, as one of a row or two would wait for its own sums.
 */

#include <omp.h>
#include <stddef.h>
#include <stdint.h>

#include "lanes.h"

enum {
    PANEL = WIDE * LANES,
    /* Values of a line of the caches. */
    LINE = 16,
    /* Rows that are at hand together, and their inputs, which are to stay in the second cache; FEW are whatever these. */
    MOST_ROWS = 64,
    MOST_INPUTS = 1 << 17,
    FEW_ROWS = 24,
    /* Values of a block of a panel. */
    BLOCK = 384 * LINE,
    /* So many tiles are done with a block too soon to have the next one in the first cache beside it. */
    FAST_TILES = 3,
    /* How far ahead a single tile fetches, in values. */
    AHEAD = 48 * LINE,
    /* Units of work for a thread at least, so that one whose core is slower for a while leaves the others more of them;
     * and so many that one more for some does not matter. */
    UNITS = 32,
    MANY_UNITS = 128
};

/* What becomes of a product. Python has the same numbers. */
enum { PLAIN, SILU, GELU_TANH, PLUS, TIMES };

/* x [rows][inputs], y [rows][outputs], and `other` like y for PLUS and TIMES; bias [panels][PANEL]. Inputs are even, and
 * steps are in values. */
typedef struct {
    const float *x, *weights, *bias, *other;
    float *y;
    int64_t x_row, other_row, y_row, rows, inputs, outputs, form, threads;
} Product;

/* Rows of a product that are at hand together. */
typedef struct {
    int64_t first_row, rows;
} Part;

/* A block of a panel: `depth` inputs of rows, and where their sums are. Each input of each tile fetches `share` values of
 * what is next, as far as the second cache or into the first one. */
typedef struct {
    const float *x, *panel, *bias;
    float *sums;
    int64_t x_row, sums_row, depth, share;
} Block;

INLINE void fetch(const float *from, const int is_far) {
    if (is_far)
        __builtin_prefetch(from, 0, 2);
    else
        __builtin_prefetch(from, 0, 3);
}

/* Sums the products of `rows` rows with a block of a panel, added to the bias, or to earlier blocks' if there is none. */
INLINE void sum_block(const Block *block, int64_t row, const float *next, const int rows, const int is_far) {
    const float *x = block->x + row * block->x_row, *end = x + block->depth, *column = block->panel;
    const int64_t x_row = block->x_row, share = block->share, step = block->sums_row;
    Lanes sums[ROWS][WIDE];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < WIDE; j++) sums[i][j] = all_of(0.0f);
    /* By twos, and never none: else the compiler keeps the sums in memory around the loop. */
    do {
        for (int j = 0; j < 2 * PANEL; j += LINE) fetch(next + j * share / PANEL, is_far);
        for (int k = 0; k < 2; k++) {
            Lanes weights[WIDE];
            for (int j = 0; j < WIDE; j++) weights[j] = load(column + k * PANEL + j * LANES);
            for (int i = 0; i < rows; i++) {
                Lanes value = all_of(x[i * x_row + k]);
                for (int j = 0; j < WIDE; j++) sums[i][j] += value * weights[j];
            }
        }
        next += 2 * share, column += 2 * PANEL;
    } while ((x += 2) < end);
    float *to = block->sums + row * step;
    const float *from = block->bias ? block->bias : to;
    const int64_t from_row = block->bias ? 0 : step;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < WIDE; j++)
            store_any(to + i * step + j * LANES, load_any(from + i * from_row + j * LANES) + sums[i][j]);
}

INLINE void tile(const Block *block, int64_t row, int64_t rows, const float *next, const int is_far) {
    switch (rows) {
    case 1: sum_block(block, row, next, 1, is_far); break;
    case 2: sum_block(block, row, next, 2, is_far); break;
    case 3: sum_block(block, row, next, 3, is_far); break;
    case 4: sum_block(block, row, next, 4, is_far); break;
    case 5: sum_block(block, row, next, 5, is_far); break;
    default: sum_block(block, row, next, 6, is_far);
    }
}

/* Two functions, whose registers the compiler gives out better than those of one. */
static __attribute__((noinline)) void near_tile(const Block *block, int64_t row, int64_t rows, const float *next) {
    tile(block, row, rows, next, 0);
}
static __attribute__((noinline)) void far_tile(const Block *block, int64_t row, int64_t rows, const float *next) {
    tile(block, row, rows, next, 1);
}

/* value / (1 + e⁻ˣ), by a power of e that is never large. */
INLINE Lanes times_sigmoid(Lanes value, Lanes x) {
    Lanes power = exponential((Lanes)((IntLanes)x | INT32_MIN));
    return value * either(all_of(1.0f), power, x > 0.0f) / (power + 1.0f);
}

INLINE Lanes finished(Lanes value, const float *other, int64_t left, int64_t form) {
    switch (form) {
    case SILU: return times_sigmoid(value, value);
    /* x (1 + tanh z) / 2 = x / (1 + e⁻²ᶻ) */
    case GELU_TANH: return times_sigmoid(value, value * (1.5957691216f + 0.0713548162726f * value * value));
    case PLUS: return value + load_first(other, left);
    case TIMES: return value * load_first(other, left);
    default: return value;
    }
}

/* Rows of sums over a panel, `sums_row` apart, become y's from `row` and `column` on. */
static void finish(const Product *product, const float *sums, int64_t sums_row, int64_t row, int64_t rows, int64_t column) {
    for (int64_t end = row + rows; row < end; row++, sums += sums_row)
        for (int64_t j = 0; j < PANEL && column + j < product->outputs; j += LANES) {
            const float *other = product->other + row * product->other_row + column + j;
            int64_t left = product->outputs - column - j;
            Lanes value = finished(load_any(sums + j), other, left, product->form);
            store_first(product->y + row * product->y_row + column + j, value, left);
        }
}

/* Inputs of a block: about as many for each of them, and an even number. However many rows there are, a row's sums are
 * the same to the last bit. */
static int64_t block_depth(int64_t inputs) {
    int64_t blocks = (inputs * PANEL + BLOCK - 1) / BLOCK;
    return ((inputs + blocks - 1) / blocks + 1) / 2 * 2;
}

/* A part's rows over one panel, summed in y, or, where the panel is not whole, beside it. */
static void one_panel(const Product *product, const Part *part, int64_t panel) {
    float edge[MOST_ROWS * PANEL];
    int64_t tiles = (part->rows + ROWS - 1) / ROWS, most = block_depth(product->inputs), column = panel * PANEL;
    int is_whole = column + PANEL <= product->outputs, is_far = tiles > 1 && tiles <= FAST_TILES;
    Block block = {.panel = product->weights + panel * product->inputs * PANEL, .bias = product->bias + column};
    block.sums = is_whole ? product->y + part->first_row * product->y_row + column : edge;
    block.sums_row = is_whole ? product->y_row : PANEL;
    block.x = product->x + part->first_row * product->x_row;
    block.x_row = product->x_row;
    block.share = (PANEL + tiles - 1) / tiles;
    for (int64_t left = product->inputs; left; left -= block.depth) {
        block.depth = left < most ? left : most;
        const float *next = block.panel + (tiles == 1 ? AHEAD : block.depth * PANEL);
        for (int64_t place = 0; place < tiles; place++) {
            int64_t row = part->rows * place / tiles, rows = part->rows * (place + 1) / tiles - row;
            (is_far ? far_tile : near_tile)(&block, row, rows, next + place * block.depth * block.share);
            if (left == block.depth && !(is_whole && product->form == PLAIN))
                finish(product, block.sums + row * block.sums_row, block.sums_row, part->first_row + row, rows, column);
        }
        block.panel += block.depth * PANEL;
        block.x += block.depth;
        block.bias = NULL;
    }
}

static int64_t rows_at_hand(int64_t inputs) {
    int64_t rows = MOST_INPUTS / inputs;
    return rows < FEW_ROWS ? FEW_ROWS : rows > MOST_ROWS ? MOST_ROWS : rows;
}

/* Into how many parts the panels go, so that threads have enough units, and about as many each. */
static int64_t panel_parts(int64_t row_parts, int64_t panels, int64_t threads) {
    int64_t parts = 1;
    while (parts < panels && (row_parts * parts < UNITS * threads ||
                              (row_parts * parts % threads && row_parts * parts < MANY_UNITS * threads)))
        parts++;
    return parts;
}

/* How many outputs a panel has: weights and bias are laid out for it. */
int64_t lookonce_panel(void) { return PANEL; }

/* All of y. */
void lookonce_linear(const Product *product) {
    int64_t panels = (product->outputs + PANEL - 1) / PANEL, most = rows_at_hand(product->inputs);
    int64_t row_parts = (product->rows + most - 1) / most, parts = panel_parts(row_parts, panels, product->threads);
    int64_t next = 0;
#pragma omp parallel num_threads(product->threads)
    {
        int64_t unit;
        while ((unit = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < row_parts * parts) {
            int64_t rows = unit % row_parts, place = unit / row_parts, end = panels * (place + 1) / parts;
            Part part = {.first_row = product->rows * rows / row_parts};
            part.rows = product->rows * (rows + 1) / row_parts - part.first_row;
            for (int64_t panel = panels * place / parts; panel < end; panel++) one_panel(product, &part, panel);
        }
    }
}
