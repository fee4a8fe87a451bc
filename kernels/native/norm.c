/* Root mean square norms in float32: y = x / √(mean(x²) + ε) · w, of rows of a step or of its heads. */

#include <math.h>
#include <omp.h>
#include <stdint.h>

#include "lanes.h"

/* So many values are done sooner than another thread is awake. */
enum { FEW_VALUES = 1 << 14 };

/* x and y [rows][width], steps of x in values; weight [width], `width` a multiple of LANES. */
typedef struct {
    const float *x, *weight;
    float *y;
    int64_t x_row, rows, width, threads;
    float epsilon;
} Norm;

static void one_row(const Norm *norm, int64_t row) {
    const float *x = norm->x + row * norm->x_row;
    float *y = norm->y + row * norm->width;
    Lanes sums = all_of(0.0f);
    for (int64_t i = 0; i < norm->width; i += LANES) {
        Lanes value = load_any(x + i);
        sums += value * value;
    }
    float scale = 1.0f / sqrtf(total(sums) / (float)norm->width + norm->epsilon);
    for (int64_t i = 0; i < norm->width; i += LANES)
        store_any(y + i, load_any(x + i) * scale * load_any(norm->weight + i));
}

/* All of y. */
void lookonce_rms_norm(const Norm *norm) {
    int64_t threads = norm->rows * norm->width <= FEW_VALUES ? 1 : norm->threads;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t row = 0; row < norm->rows; row++) one_row(norm, row);
}
