/* Sixteen fp32 lanes in the vector extension of gcc and clang, and the few functions the kernels need.
 *
 * The same source serves every machine: the compiler splits the sixteen lanes into what the target has,
 * and MLMA_CLONES compiles a kernel once per x86-64 level and picks one when the library is loaded. */
#ifndef MLMA_SIMD_H
#define MLMA_SIMD_H

#include <stdint.h>
#include <string.h>

#define LANES 16

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef float vf_unaligned __attribute__((vector_size(4 * LANES), aligned(4)));

#define INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__) && defined(__gnu_linux__)
#define MLMA_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MLMA_CLONES
#endif

/* Rows of floats, each contiguous; stride in floats. */
typedef struct {
    float *data;
    int64_t stride;
} array;

INLINE float *at(const array *x, int64_t row) { return x->data + row * x->stride; }

/* The sequences one after the other in the rows: `length[i]` valid rows from row `first[i]` on. What lies
 * between the end of a sequence and the first row of the next is padding, never read, written as zeros. */
typedef struct {
    int64_t rows, count;
    const int64_t *first, *length;
} sequences;

/* Whether the sequences follow each other inside the rows; if not, a kernel would write out of bounds. */
INLINE int are_in_place(const sequences *s) {
    int64_t end = 0;
    for (int64_t i = 0; i < s->count; i++) {
        if (s->first[i] < end || s->length[i] < 0 || s->first[i] + s->length[i] > s->rows) return 0;
        end = s->first[i] + s->length[i];
    }
    return s->count == 0 || s->first[0] == 0;
}

enum { DONE, NO_MEMORY, OUT_OF_PLACE };

INLINE void clear_padding(const sequences *s, int64_t i, const array *x, int64_t from, int64_t to) {
    const int64_t next = i + 1 < s->count ? s->first[i + 1] : s->rows;
    for (int64_t row = s->first[i] + s->length[i]; row < next; row++)
        memset(at(x, row) + from, 0, (size_t)(to - from) * sizeof(float));
}

/* The share of channels of a task, whole vectors but for the last: group of `groups`. */
INLINE int64_t group_begin(int64_t channel, int64_t group, int64_t groups) {
    const int64_t begin = (channel + LANES - 1) / LANES * group / groups * LANES;
    return begin < channel ? begin : channel;
}

/* gcc 12 turns simpler code for this into sixteen masked broadcasts. */
INLINE vf splat(float x) {
    float lanes[LANES];
    vf y;
    for (int i = 0; i < LANES; i++) lanes[i] = x;
    memcpy(&y, lanes, sizeof y);
    return y;
}

/* The first `count` lanes from memory, zeros in the rest. */
INLINE vf load(const float *p, int64_t count) {
    if (count >= LANES) return *(const vf_unaligned *)p;
    vf x = {0};
    memcpy(&x, p, (size_t)count * sizeof(float));
    return x;
}

INLINE void store(float *p, vf x, int64_t count) {
    if (count >= LANES)
        *(vf_unaligned *)p = x;
    else
        memcpy(p, &x, (size_t)count * sizeof(float));
}

INLINE vf choose(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
INLINE vf vmax(vf a, vf b) { return choose(a > b, a, b); }
INLINE vf vmin(vf a, vf b) { return choose(a < b, a, b); }

/* Lane by lane, in the form that gcc turns into one instruction. */
INLINE vi clampi(vi x, int32_t low, int32_t high) {
    int32_t lanes[LANES];
    memcpy(lanes, &x, sizeof x);
    for (int i = 0; i < LANES; i++) {
        lanes[i] = lanes[i] > low ? lanes[i] : low;
        lanes[i] = lanes[i] < high ? lanes[i] : high;
    }
    memcpy(&x, lanes, sizeof x);
    return x;
}

INLINE float sum_lanes(vf x) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
}

/* 2^x for |x| < 2^51, its exponent clamped to the normal range. x is split into an integer, which goes to the exponent
 * field, and a rest in [-1/2, 1/2], whose power is a minimax polynomial (relative error 9.2e-8).
 * Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the sum. */
INLINE vf exp2v(vf x) {
    const vf magic = splat(12582912.0f);
    const vf shifted = x + magic;
    const vf f = x - (shifted - magic);
    const int32_t zero = 0x4b400000; /* the bits of the magic number */
    vf p = splat(1.326472725e-03f);
    p = p * f + splat(9.671512786e-03f);
    p = p * f + splat(5.550733744e-02f);
    p = p * f + splat(2.402224208e-01f);
    p = p * f + splat(6.931469776e-01f);
    p = p * f + splat(1.0f);
    return (vf)((vi)p + (clampi((vi)shifted, zero - 126, zero + 127) << 23));
}

#define LOG2E 1.44269504088896341f

INLINE vf expv(vf x) { return exp2v(vmin(vmax(x * splat(LOG2E), splat(-1000.0f)), splat(1000.0f))); }
INLINE vf sigmoidv(vf x) { return splat(1.0f) / (splat(1.0f) + expv(-x)); }

/* log(1 + exp(x)) = max(x, 0) + log1p(y), y = exp(-|x|) in (0, 1]. With w = y / (2 + y) <= 1/3,
 * log1p(y) = 2 atanh(w), whose series to w^13 is exact to fp32. */
INLINE vf softplusv(vf x) {
    const vf y = expv(-vmax(x, -x));
    const vf w = y / (splat(2.0f) + y);
    const vf q = w * w;
    vf p = splat(1.0f / 13);
    p = p * q + splat(1.0f / 11);
    p = p * q + splat(1.0f / 9);
    p = p * q + splat(1.0f / 7);
    p = p * q + splat(1.0f / 5);
    p = p * q + splat(1.0f / 3);
    p = p * q + splat(1.0f);
    return choose(x == x, vmax(x, splat(0.0f)) + splat(2.0f) * w * p, x); /* NaN stays NaN */
}

#endif
