/* Depthwise convolution over time, forward and backward, fp32, each sequence up to its own length.
 *
 *     y[t] = act(bias + sum_j w[j] x[t - left + j]),  0 <= t < length,  frames outside [0, length) read as 0
 *
 * left = kernel - 1 is causal, 0 anti-causal, kernel / 2 centred; act is the identity or SiLU.
 * The gradient of the input is the same sum with the kernel turned round. A task is one sequence; it goes
 * through time in tiles of TILE frames and takes LANES channels at a time inside a tile. */
#include <stdlib.h>

#include "simd.h"

#define TILE 64
#define STEPS 8 /* output frames, or kernel taps, kept in registers at once */

typedef struct {
    int64_t batch, time, channel, kernel, left;
    int64_t threads;
    int32_t silu;
    const int64_t *lengths; /* (batch,) or NULL: all frames valid */
    array x;
    const float *weight;    /* (kernel, channel) */
    const float *bias;      /* (channel,) or NULL */
    array out;
    array grad_out;         /* from here on: backward */
    array grad_x;
    float *pre;             /* (batch, time, channel): gradient before the activation */
    float *grad_weight;     /* (batch, kernel, channel) */
    float *grad_bias;       /* (batch, channel) */
} conv_args;

INLINE int64_t length_of(const conv_args *a, int64_t b) { return a->lengths ? a->lengths[b] : a->time; }

/* Sums of frames [t, t + STEPS) that read only valid frames. */
INLINE void sums_inside(const array *x, int64_t b, int64_t c, int64_t t, int64_t count, const float *weight,
                        int64_t channel, int64_t kernel, int64_t left, int turned, vf start, vf *y) {
    for (int64_t i = 0; i < STEPS; i++) y[i] = start;
    for (int64_t j = 0; j < kernel; j++) {
        const vf w = load(weight + (turned ? kernel - 1 - j : j) * channel + c, count);
        for (int64_t i = 0; i < STEPS; i++) y[i] += w * load(at(x, b, t + i - left + j) + c, count);
    }
}

/* The sum of frame t, whatever its neighbours. */
INLINE vf sum_at_edge(const array *x, int64_t b, int64_t c, int64_t t, int64_t count, int64_t length,
                      const float *weight, int64_t channel, int64_t kernel, int64_t left, int turned, vf y) {
    for (int64_t j = 0; j < kernel; j++) {
        const int64_t from = t - left + j;
        if (from < 0 || from >= length) continue;
        y += load(weight + (turned ? kernel - 1 - j : j) * channel + c, count) * load(at(x, b, from) + c, count);
    }
    return y;
}

/* Up to STEPS sums from frame t on, t + result <= to; returns how many. */
INLINE int64_t sums(const conv_args *a, const array *x, int64_t b, int64_t c, int64_t t, int64_t to, int64_t count,
                    int64_t left, int turned, vf start, vf *y) {
    const int64_t length = length_of(a, b);
    if (t + STEPS <= to && t >= left && t + STEPS - 1 - left + a->kernel <= length) {
        sums_inside(x, b, c, t, count, a->weight, a->channel, a->kernel, left, turned, start, y);
        return STEPS;
    }
    y[0] = sum_at_edge(x, b, c, t, count, length, a->weight, a->channel, a->kernel, left, turned, start);
    return 1;
}

MLMA_CLONES void mlma_conv_forward_task(const conv_args *a, int64_t b) {
    const int64_t length = length_of(a, b);
    vf y[STEPS];
    for (int64_t from = 0; from < length; from += TILE) {
        const int64_t to = from + TILE < length ? from + TILE : length;
        for (int64_t c = 0; c < a->channel; c += LANES) {
            const int64_t count = a->channel - c;
            const vf bias = a->bias ? load(a->bias + c, count) : (vf){0};
            for (int64_t t = from; t < to;) {
                const int64_t done = sums(a, &a->x, b, c, t, to, count, a->left, 0, bias, y);
                for (int64_t i = 0; i < done; i++, t++)
                    store(at(&a->out, b, t) + c, a->silu ? y[i] * sigmoidv(y[i]) : y[i], count);
            }
        }
    }
    for (int64_t t = length; t < a->time; t++)
        memset(at(&a->out, b, t), 0, (size_t)a->channel * sizeof(float));
}

/* The gradient before the activation, into a->pre, and its sum over time. */
INLINE void undo_activation(const conv_args *a, int64_t b, int64_t from, int64_t to, const array *pre) {
    vf y[STEPS];
    for (int64_t c = 0; c < a->channel; c += LANES) {
        const int64_t count = a->channel - c;
        const vf bias = a->bias ? load(a->bias + c, count) : (vf){0};
        float *total = a->grad_bias + b * a->channel + c;
        vf sum = load(total, count);
        for (int64_t t = from; t < to;) {
            int64_t done = 1;
            if (a->silu) done = sums(a, &a->x, b, c, t, to, count, a->left, 0, bias, y);
            for (int64_t i = 0; i < done; i++, t++) {
                vf g = load(at(&a->grad_out, b, t) + c, count);
                if (a->silu) {
                    const vf s = sigmoidv(y[i]);
                    g *= s * (splat(1.0f) + y[i] * (splat(1.0f) - s));
                }
                store(at(pre, b, t) + c, g, count);
                sum += g;
            }
        }
        store(total, sum, count);
    }
}

/* Add the share of frames [from, to) to the gradient of the weights, STEPS taps at a time. */
INLINE void add_grad_weight(const conv_args *a, int64_t b, int64_t from, int64_t to, const array *pre) {
    const int64_t length = length_of(a, b);
    for (int64_t c = 0; c < a->channel; c += LANES) {
        const int64_t count = a->channel - c;
        for (int64_t first = 0; first < a->kernel; first += STEPS) {
            const int64_t taps = a->kernel - first < STEPS ? a->kernel - first : STEPS;
            vf sum[STEPS] = {{0}};
            for (int64_t t = from; t < to; t++) {
                const vf g = load(at(pre, b, t) + c, count);
                const int64_t read = t - a->left + first;
                if (taps == STEPS && read >= 0 && read + STEPS <= length) {
                    for (int64_t i = 0; i < STEPS; i++) sum[i] += g * load(at(&a->x, b, read + i) + c, count);
                    continue;
                }
                for (int64_t i = 0; i < taps; i++)
                    if (read + i >= 0 && read + i < length) sum[i] += g * load(at(&a->x, b, read + i) + c, count);
            }
            for (int64_t i = 0; i < taps; i++) {
                float *total = a->grad_weight + (b * a->kernel + first + i) * a->channel + c;
                store(total, load(total, count) + sum[i], count);
            }
        }
    }
}

MLMA_CLONES void mlma_conv_backward_task(const conv_args *a, int64_t b) {
    const int64_t length = length_of(a, b);
    const array pre = {a->pre, a->time * a->channel, a->channel};
    vf y[STEPS];
    for (int64_t from = 0; from < length; from += TILE) {
        const int64_t to = from + TILE < length ? from + TILE : length;
        undo_activation(a, b, from, to, &pre);
        add_grad_weight(a, b, from, to, &pre);
    }
    for (int64_t from = 0; from < length; from += TILE) {
        const int64_t to = from + TILE < length ? from + TILE : length;
        for (int64_t c = 0; c < a->channel; c += LANES) {
            const int64_t count = a->channel - c;
            for (int64_t t = from; t < to;) {
                const int64_t done = sums(a, &pre, b, c, t, to, count, a->kernel - 1 - a->left, 1, (vf){0}, y);
                for (int64_t i = 0; i < done; i++, t++) store(at(&a->grad_x, b, t) + c, y[i], count);
            }
        }
    }
    for (int64_t t = length; t < a->time; t++)
        memset(at(&a->grad_x, b, t), 0, (size_t)a->channel * sizeof(float));
}

void mlma_conv_forward(const conv_args *a) {
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)a->threads)
    for (int64_t b = 0; b < a->batch; b++) mlma_conv_forward_task(a, b);
}

/* grad_weight and grad_bias come zeroed. */
void mlma_conv_backward(const conv_args *a) {
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)a->threads)
    for (int64_t b = 0; b < a->batch; b++) mlma_conv_backward_task(a, b);
}
