/* Vectors of float32 in one processor register, for whatever the compiler was told to use: AVX-512 or AVX2 with FMA.
 *
 * Arithmetic is the compiler's own on vectors (`a * b + c` becomes one instruction); here is what it has no sign for.
 */

#ifndef LOOKONCE_LANES_H
#define LOOKONCE_LANES_H

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

/* Values of a vector; vectors of a row, and rows, whose products are kept in registers (ROWS · WIDE of 32, or of 16). */
#if defined(__AVX512F__)
enum { LANES = 16, WIDE = 4, ROWS = 6 };
typedef __m512 Lanes;
#else
enum { LANES = 8, WIDE = 2, ROWS = 6 };
typedef __m256 Lanes;
#endif
typedef int32_t IntLanes __attribute__((vector_size(4 * LANES)));

INLINE Lanes load(const float *from) { return *(const Lanes *)from; }
INLINE void store(float *to, Lanes value) { *(Lanes *)to = value; }

#if defined(__AVX512F__)
INLINE Lanes load_any(const float *from) { return _mm512_loadu_ps(from); }
INLINE void store_any(float *to, Lanes value) { _mm512_storeu_ps(to, value); }
INLINE Lanes all_of(float value) { return _mm512_set1_ps(value); }
INLINE Lanes larger(Lanes a, Lanes b) { return _mm512_max_ps(a, b); }
INLINE float largest(Lanes a) { return _mm512_reduce_max_ps(a); }
INLINE float total(Lanes a) { return _mm512_reduce_add_ps(a); }
INLINE IntLanes numbers(void) { return (IntLanes){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }
#else
INLINE Lanes load_any(const float *from) { return _mm256_loadu_ps(from); }
INLINE void store_any(float *to, Lanes value) { _mm256_storeu_ps(to, value); }
INLINE Lanes all_of(float value) { return _mm256_set1_ps(value); }
INLINE Lanes larger(Lanes a, Lanes b) { return _mm256_max_ps(a, b); }
INLINE float largest(Lanes a) {
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
INLINE float total(Lanes a) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
INLINE IntLanes numbers(void) { return (IntLanes){0, 1, 2, 3, 4, 5, 6, 7}; }
#endif

/* All bits of the first `count` values, none of the others. */
INLINE IntLanes first_of(int64_t count) { return numbers() < (int32_t)count; }

/* The first `count` values, where there are fewer than LANES; the others are zero, or stay. */
#if defined(__AVX512F__)
INLINE Lanes load_first(const float *from, int64_t count) {
    return count < LANES ? _mm512_maskz_loadu_ps((__mmask16)((1 << count) - 1), from) : load_any(from);
}
INLINE void store_first(float *to, Lanes value, int64_t count) {
    _mm512_mask_storeu_ps(to, (__mmask16)(count < LANES ? (1 << count) - 1 : -1), value);
}
#else
INLINE Lanes load_first(const float *from, int64_t count) {
    return count < LANES ? _mm256_maskload_ps(from, (__m256i)first_of(count)) : load_any(from);
}
INLINE void store_first(float *to, Lanes value, int64_t count) {
    if (count < LANES)
        _mm256_maskstore_ps(to, (__m256i)first_of(count), value);
    else
        store_any(to, value);
}
#endif

INLINE Lanes only(Lanes value, IntLanes kept) { return (Lanes)((IntLanes)value & kept); }
INLINE Lanes either(Lanes value, Lanes other, IntLanes kept) {
    return (Lanes)(((IntLanes)value & kept) | ((IntLanes)other & ~kept));
}

/* 2ˣ for x ≤ 0, to the last bit or two: 2ⁿ · 2ʳ with |r| ≤ ½, 2ʳ by the polynomial that is nowhere far from it. */
INLINE Lanes two_to(Lanes x) {
    x = larger(x, all_of(-126.0f));
    /* Beyond 2²³ a float has no fraction: what is added takes it away, and leaves n in the last bits. */
    const Lanes whole = all_of(12582912.0f);
    Lanes n = x + whole, r = x - (n - whole);
    Lanes p = r * 1.53458119e-4f + 1.339993139e-3f;
    p = p * r + 9.618488959e-3f;
    p = p * r + 5.550328777e-2f;
    p = p * r + 0.2402264689f;
    p = p * r + 0.6931472057f;
    p = p * r + 1.0f;
    return (Lanes)((IntLanes)p + ((IntLanes)n << 23));
}

INLINE Lanes exponential(Lanes x) { return two_to(x * 1.44269504f); }

/* LANES rows of LANES values, `step` apart, of which `rows` are there, as LANES columns in `to`, `apart` apart. */
#if defined(__AVX512F__)
INLINE void transpose_tile(const float *from, int64_t step, int64_t rows, float *to, const int64_t apart) {
    Lanes a[LANES], b[LANES];
    for (int i = 0; i < LANES; i++) a[i] = i < rows ? load_any(from + i * step) : all_of(0.0f);
    for (int i = 0; i < LANES; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4)
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = (Lanes)_mm512_unpacklo_pd((__m512d)b[i + j], (__m512d)b[i + j + 2]);
            a[i + 2 * j + 1] = (Lanes)_mm512_unpackhi_pd((__m512d)b[i + j], (__m512d)b[i + j + 2]);
        }
    /* a[4·g + c] holds, in its quarter q, column 4·q + c of rows 4·g to 4·g + 3. */
    for (int c = 0; c < 4; c++) {
        Lanes low = _mm512_shuffle_f32x4(a[c], a[4 + c], 0x44), high = _mm512_shuffle_f32x4(a[c], a[4 + c], 0xee);
        Lanes low2 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x44);
        Lanes high2 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xee);
        store(to + c * apart, _mm512_shuffle_f32x4(low, low2, 0x88));
        store(to + (4 + c) * apart, _mm512_shuffle_f32x4(low, low2, 0xdd));
        store(to + (8 + c) * apart, _mm512_shuffle_f32x4(high, high2, 0x88));
        store(to + (12 + c) * apart, _mm512_shuffle_f32x4(high, high2, 0xdd));
    }
}
#else
INLINE void transpose_tile(const float *from, int64_t step, int64_t rows, float *to, const int64_t apart) {
    Lanes a[LANES], b[LANES];
    for (int i = 0; i < LANES; i++) a[i] = i < rows ? load_any(from + i * step) : all_of(0.0f);
    for (int i = 0; i < LANES; i += 2) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4)
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = (Lanes)_mm256_unpacklo_pd((__m256d)b[i + j], (__m256d)b[i + j + 2]);
            a[i + 2 * j + 1] = (Lanes)_mm256_unpackhi_pd((__m256d)b[i + j], (__m256d)b[i + j + 2]);
        }
    /* a[4·g + c] holds, in its half h, column 4·h + c of rows 4·g to 4·g + 3. */
    for (int c = 0; c < 4; c++) {
        store(to + c * apart, _mm256_permute2f128_ps(a[c], a[4 + c], 0x20));
        store(to + (4 + c) * apart, _mm256_permute2f128_ps(a[c], a[4 + c], 0x31));
    }
}
#endif

#endif
