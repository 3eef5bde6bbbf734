/* Depthwise convolution over time, forward and backward, fp32, each sequence up to its own length.
 *
 *     y[t] = act(bias + sum_j w[j] x[t - left + j]),  0 <= t < length,  frames outside [0, length) read as 0
 *
 * left = kernel - 1 is causal, 0 anti-causal, kernel / 2 centred; act is the identity or SiLU.
 * The gradient of the input is the same sum with the kernel reversed. A task is one sequence and one
 * group of channels; it goes through time in tiles of TILE frames and takes LANES channels at a time inside
 * a tile. */
#include <stdlib.h>

#include "simd.h"

#define TILE 64
#define STEPS 8 /* output frames, or kernel taps, kept in registers at once */

typedef struct {
    sequences seq;
    int64_t channel, kernel, left, groups, threads, silu;
    array x;
    const float *weight;    /* (kernel, channel) */
    const float *bias;      /* (channel,) */
    array out;
    array grad_out;         /* from here on: backward */
    array grad_x;
    array pre;              /* gradient before the activation */
    float *grad_weight;     /* (sequence, kernel, channel) */
    float *grad_bias;       /* (sequence, channel) */
} conv_args;

/* One task's share: channels [first, last) of one sequence. */
typedef struct {
    int64_t index, row, length, first, last;
} share;

static share share_of(const conv_args *a, int64_t task) {
    const int64_t index = task / a->groups, group = task % a->groups;
    return (share){index, a->seq.first[index], a->seq.length[index], group_begin(a->channel, group, a->groups),
                   group_begin(a->channel, group + 1, a->groups)};
}

/* Sums of frames [t, t + STEPS) that read only valid frames. */
INLINE void sums_inside(const array *x, int64_t row, int64_t c, int64_t count, const float *weight,
                        int64_t channel, int64_t kernel, int64_t left, int flip, vf start, vf *y) {
    for (int64_t i = 0; i < STEPS; i++) y[i] = start;
    for (int64_t j = 0; j < kernel; j++) {
        const vf w = load(weight + (flip ? kernel - 1 - j : j) * channel + c, count);
        for (int64_t i = 0; i < STEPS; i++) y[i] += w * load(at(x, row + i - left + j) + c, count);
    }
}

/* The sum of frame t, whatever its neighbours. */
INLINE vf sum_at_edge(const array *x, const share *s, int64_t c, int64_t t, int64_t count,
                      const float *weight, int64_t channel, int64_t kernel, int64_t left, int flip, vf y) {
    for (int64_t j = 0; j < kernel; j++) {
        const int64_t from = t - left + j;
        if (from < 0 || from >= s->length) continue;
        y += load(weight + (flip ? kernel - 1 - j : j) * channel + c, count) *
             load(at(x, s->row + from) + c, count);
    }
    return y;
}

/* Up to STEPS sums from frame t on, t + result <= to; returns how many. */
INLINE int64_t sums(const conv_args *a, const array *x, const share *s, int64_t c, int64_t t, int64_t to,
                    int64_t left, int flip, vf start, vf *y) {
    const int64_t count = s->last - c;
    if (t + STEPS <= to && t >= left && t + STEPS - 1 - left + a->kernel <= s->length) {
        sums_inside(x, s->row + t, c, count, a->weight, a->channel, a->kernel, left, flip, start, y);
        return STEPS;
    }
    y[0] = sum_at_edge(x, s, c, t, count, a->weight, a->channel, a->kernel, left, flip, start);
    return 1;
}

MLMA_CLONES void mlma_conv_forward_task(const conv_args *a, int64_t task) {
    const share s = share_of(a, task);
    vf y[STEPS];
    for (int64_t from = 0; from < s.length; from += TILE) {
        const int64_t to = from + TILE < s.length ? from + TILE : s.length;
        for (int64_t c = s.first; c < s.last; c += LANES) {
            const int64_t count = s.last - c;
            const vf bias = load(a->bias + c, count);
            for (int64_t t = from; t < to;) {
                const int64_t done = sums(a, &a->x, &s, c, t, to, a->left, 0, bias, y);
                for (int64_t i = 0; i < done; i++, t++)
                    store(at(&a->out, s.row + t) + c, a->silu ? y[i] * sigmoidv(y[i]) : y[i], count);
            }
        }
    }
    clear_padding(&a->seq, s.index, &a->out, s.first, s.last);
}

/* The gradient before the activation, into a->pre, and its sum over time. */
INLINE void undo_activation(const conv_args *a, const share *s, int64_t from, int64_t to) {
    vf y[STEPS];
    for (int64_t c = s->first; c < s->last; c += LANES) {
        const int64_t count = s->last - c;
        const vf bias = load(a->bias + c, count);
        float *total = a->grad_bias + s->index * a->channel + c;
        vf sum = load(total, count);
        for (int64_t t = from; t < to;) {
            int64_t done = 1;
            if (a->silu) done = sums(a, &a->x, s, c, t, to, a->left, 0, bias, y);
            for (int64_t i = 0; i < done; i++, t++) {
                vf g = load(at(&a->grad_out, s->row + t) + c, count);
                if (a->silu) {
                    const vf sigmoid = sigmoidv(y[i]);
                    g *= sigmoid * (splat(1.0f) + y[i] * (splat(1.0f) - sigmoid));
                }
                store(at(&a->pre, s->row + t) + c, g, count);
                sum += g;
            }
        }
        store(total, sum, count);
    }
}

/* Add the share of frames [from, to) to the gradient of the weights, STEPS taps at a time. */
INLINE void add_grad_weight(const conv_args *a, const share *s, int64_t from, int64_t to) {
    for (int64_t c = s->first; c < s->last; c += LANES) {
        const int64_t count = s->last - c;
        for (int64_t first = 0; first < a->kernel; first += STEPS) {
            const int64_t taps = a->kernel - first < STEPS ? a->kernel - first : STEPS;
            vf sum[STEPS] = {{0}};
            for (int64_t t = from; t < to; t++) {
                const vf g = load(at(&a->pre, s->row + t) + c, count);
                const int64_t read = t - a->left + first;
                const float *x = at(&a->x, s->row + read) + c;
                if (taps == STEPS && read >= 0 && read + STEPS <= s->length) {
                    for (int64_t i = 0; i < STEPS; i++) sum[i] += g * load(x + i * a->x.stride, count);
                    continue;
                }
                for (int64_t i = 0; i < taps; i++)
                    if (read + i >= 0 && read + i < s->length) sum[i] += g * load(x + i * a->x.stride, count);
            }
            for (int64_t i = 0; i < taps; i++) {
                float *total = a->grad_weight + (s->index * a->kernel + first + i) * a->channel + c;
                store(total, load(total, count) + sum[i], count);
            }
        }
    }
}

MLMA_CLONES void mlma_conv_backward_task(const conv_args *a, int64_t task) {
    const share s = share_of(a, task);
    vf y[STEPS];
    for (int64_t from = 0; from < s.length; from += TILE) {
        const int64_t to = from + TILE < s.length ? from + TILE : s.length;
        undo_activation(a, &s, from, to);
        add_grad_weight(a, &s, from, to);
    }
    for (int64_t from = 0; from < s.length; from += TILE) {
        const int64_t to = from + TILE < s.length ? from + TILE : s.length;
        for (int64_t c = s.first; c < s.last; c += LANES) {
            for (int64_t t = from; t < to;) {
                const int64_t done = sums(a, &a->pre, &s, c, t, to, a->kernel - 1 - a->left, 1, (vf){0}, y);
                for (int64_t i = 0; i < done; i++, t++)
                    store(at(&a->grad_x, s.row + t) + c, y[i], s.last - c);
            }
        }
    }
    clear_padding(&a->seq, s.index, &a->grad_x, s.first, s.last);
}

int mlma_conv_forward(const conv_args *a) {
    if (!are_in_place(&a->seq)) return OUT_OF_PLACE;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)a->threads)
    for (int64_t i = 0; i < a->seq.count * a->groups; i++) mlma_conv_forward_task(a, i);
    return DONE;
}

/* grad_weight and grad_bias come zeroed. */
int mlma_conv_backward(const conv_args *a) {
    if (!are_in_place(&a->seq)) return OUT_OF_PLACE;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)a->threads)
    for (int64_t i = 0; i < a->seq.count * a->groups; i++) mlma_conv_backward_task(a, i);
    return DONE;
}
