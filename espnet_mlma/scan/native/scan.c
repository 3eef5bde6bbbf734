/* The selective scan of Mamba-1, forward and backward, fp32.
 *
 * For each sequence and channel c, with state n = 0 .. d_state-1, in scan order s:
 *     dt  = softplus(delta + bias)           x = dt * u
 *     h_n = exp(dt A_n) h_n + x B_n          y = sum_n C_n h_n + D u          out = y silu(z)
 * Scan order is time, or, with `reverse`, time counted back from the last valid frame.
 *
 * A task is one sequence and one group of channels. It walks the sequence in tiles of TILE frames and,
 * inside a tile, takes its channels LANES at a time: a tile of u, delta, z and out stays in cache while
 * the state lives in a scratch buffer between tiles. Nothing of size time x channel x state is stored:
 * the forward pass keeps the state at the start of each tile, the backward pass recomputes a tile from it. */
#include <stdlib.h>

#include "simd.h"

#define TILE 32

typedef struct {
    int64_t batch, time, channel, state;
    int64_t groups; /* channel groups per sequence */
    int64_t threads;
    int32_t softplus, reverse;
    const int64_t *lengths;                  /* (batch,) or NULL: all frames valid */
    array u, delta, z, B, C;                 /* z.data NULL: no gate */
    const float *A;                          /* (channel, state) */
    const float *D, *bias;                   /* (channel,) or NULL */
    const float *initial;                    /* (batch, channel, state) or NULL */
    array out;                               /* forward */
    float *final;                            /* (batch, channel, state), forward */
    float *starts;                           /* (batch, tiles, channel, state): written forward, read backward, or NULL */
    array grad_out;                          /* from here on: backward */
    const float *grad_final;                 /* (batch, channel, state) or NULL */
    array grad_u, grad_delta, grad_z;        /* (batch, time, channel) */
    float *grad_B, *grad_C;                  /* (groups, batch, time, state) */
    float *grad_A;                           /* (batch, channel, state) */
    float *grad_D, *grad_bias;               /* (batch, channel) */
    float *grad_initial;                     /* (batch, channel, state) */
} scan_args;

/* One task's share: channels [first, last) of one sequence, in blocks of LANES. */
typedef struct {
    int64_t batch, group, first, last, blocks, length, tiles;
} share;

static share share_of(const scan_args *a, int64_t task) {
    share s;
    s.batch = task / a->groups;
    s.group = task % a->groups;
    const int64_t all = (a->channel + LANES - 1) / LANES;
    s.first = all * s.group / a->groups * LANES;
    s.last = all * (s.group + 1) / a->groups * LANES;
    if (s.last > a->channel) s.last = a->channel;
    s.blocks = (s.last - s.first + LANES - 1) / LANES;
    s.length = a->lengths ? a->lengths[s.batch] : a->time;
    s.tiles = (a->time + TILE - 1) / TILE;
    return s;
}

INLINE int64_t frame(const scan_args *a, const share *s, int64_t step) {
    return a->reverse ? s->length - 1 - step : step;
}

/* (channel, state) rows of `count` channels to [state][LANES], and back. */
INLINE void gather(vf *to, const float *from, int64_t count, int64_t state, float scale) {
    for (int64_t n = 0; n < state; n++) {
        vf x = {0};
        for (int64_t i = 0; i < count; i++) x[i] = from[i * state + n] * scale;
        to[n] = x;
    }
}

INLINE void scatter(float *to, const vf *from, int64_t count, int64_t state) {
    for (int64_t n = 0; n < state; n++)
        for (int64_t i = 0; i < count; i++) to[i * state + n] = from[n][i];
}

INLINE vf step_size(const scan_args *a, vf delta) { return a->softplus ? softplusv(delta) : delta; }

static void clear_padding(const scan_args *a, const share *s, const array *x) {
    for (int64_t t = s->length; t < a->time; t++)
        memset(at(x, s->batch, t) + s->first, 0, (size_t)(s->last - s->first) * sizeof(float));
}

/* The frames [from, to) in scan order of one block of channels; `h` goes in and comes out. */
INLINE void forward_block(const scan_args *a, const share *s, int64_t c, int64_t from, int64_t to,
                          const vf *A, vf *h) {
    const int64_t count = s->last - c, state = a->state;
    const vf bias = a->bias ? load(a->bias + c, count) : (vf){0};
    const vf D = a->D ? load(a->D + c, count) : (vf){0};
    for (int64_t step = from; step < to; step++) {
        const int64_t t = frame(a, s, step);
        const vf u = load(at(&a->u, s->batch, t) + c, count);
        const vf dt = step_size(a, load(at(&a->delta, s->batch, t) + c, count) + bias);
        const vf x = dt * u;
        const float *B = at(&a->B, s->batch, t), *C = at(&a->C, s->batch, t);
        vf y = D * u;
        for (int64_t n = 0; n < state; n++) {
            h[n] = exp2v(dt * A[n]) * h[n] + x * splat(B[n]);
            y += h[n] * splat(C[n]);
        }
        if (a->z.data) {
            const vf z = load(at(&a->z, s->batch, t) + c, count);
            y *= z * sigmoidv(z);
        }
        store(at(&a->out, s->batch, t) + c, y, count);
    }
}

MLMA_CLONES void mlma_scan_forward_task(const scan_args *a, int64_t task, vf *scratch) {
    const share s = share_of(a, task);
    const int64_t state = a->state;
    vf *A = scratch, *h = scratch + s.blocks * state;
    for (int64_t k = 0; k < s.blocks; k++) {
        const int64_t c = s.first + k * LANES, count = s.last - c < LANES ? s.last - c : LANES;
        gather(A + k * state, a->A + c * state, count, state, LOG2E);
        if (a->initial)
            gather(h + k * state, a->initial + (s.batch * a->channel + c) * state, count, state, 1.0f);
        else
            memset(h + k * state, 0, (size_t)state * sizeof(vf));
    }
    for (int64_t from = 0; from < s.length; from += TILE) {
        const int64_t to = from + TILE < s.length ? from + TILE : s.length;
        for (int64_t k = 0; k < s.blocks; k++) {
            const int64_t c = s.first + k * LANES, count = s.last - c < LANES ? s.last - c : LANES;
            if (a->starts) {
                const int64_t row = (s.batch * s.tiles + from / TILE) * a->channel + c;
                scatter(a->starts + row * state, h + k * state, count, state);
            }
            forward_block(a, &s, c, from, to, A + k * state, h + k * state);
        }
    }
    for (int64_t k = 0; k < s.blocks; k++) {
        const int64_t c = s.first + k * LANES, count = s.last - c < LANES ? s.last - c : LANES;
        scatter(a->final + (s.batch * a->channel + c) * state, h + k * state, count, state);
    }
    clear_padding(a, &s, &a->out);
}

/* What the backward pass of one block keeps between tiles, each [state] vectors, and per tile. */
typedef struct {
    vf *A;      /* times log2(e) */
    vf *grad_h; /* with respect to the state after the tile */
    vf *grad_A;
    vf *grad_D, *grad_bias; /* one vector each */
} block_state;

typedef struct {
    vf *h;              /* [TILE + 1][state]: the state before each step, and after the last */
    vf *decay;          /* [TILE][state] */
    vf *dt, *gate_grad; /* [TILE]: step size; gradient with respect to y */
    vf *grad_B, *grad_C; /* [TILE][state], summed over the blocks of the share */
} tile_buffers;

/* Recompute the states of a tile; turn the gradient of the output into that of y and of z. */
INLINE void replay_block(const scan_args *a, const share *s, int64_t c, int64_t from, int64_t to,
                         const vf *A, const tile_buffers *w) {
    const int64_t count = s->last - c, state = a->state;
    const vf bias = a->bias ? load(a->bias + c, count) : (vf){0};
    const vf D = a->D ? load(a->D + c, count) : (vf){0};
    for (int64_t step = from; step < to; step++) {
        const int64_t i = step - from, t = frame(a, s, step);
        const vf u = load(at(&a->u, s->batch, t) + c, count);
        const vf dt = step_size(a, load(at(&a->delta, s->batch, t) + c, count) + bias);
        const vf x = dt * u;
        const float *B = at(&a->B, s->batch, t), *C = at(&a->C, s->batch, t);
        const vf *h = w->h + i * state;
        vf *next = w->h + (i + 1) * state, *decay = w->decay + i * state;
        vf y = D * u;
        for (int64_t n = 0; n < state; n++) {
            decay[n] = exp2v(dt * A[n]);
            next[n] = decay[n] * h[n] + x * splat(B[n]);
            y += next[n] * splat(C[n]);
        }
        vf g = load(at(&a->grad_out, s->batch, t) + c, count);
        if (a->z.data) {
            const vf z = load(at(&a->z, s->batch, t) + c, count);
            const vf sigmoid = sigmoidv(z);
            store(at(&a->grad_z, s->batch, t) + c,
                  g * y * sigmoid * (splat(1.0f) + z * (splat(1.0f) - sigmoid)), count);
            g *= z * sigmoid;
        }
        w->dt[i] = dt;
        w->gate_grad[i] = g;
    }
}

INLINE void backward_block(const scan_args *a, const share *s, int64_t c, int64_t from, int64_t to,
                           const block_state *b, const tile_buffers *w) {
    const int64_t count = s->last - c, state = a->state;
    const vf bias = a->bias ? load(a->bias + c, count) : (vf){0};
    const vf D = a->D ? load(a->D + c, count) : (vf){0};
    vf grad_D = *b->grad_D, grad_bias = *b->grad_bias;
    for (int64_t step = to - 1; step >= from; step--) {
        const int64_t i = step - from, t = frame(a, s, step);
        const vf u = load(at(&a->u, s->batch, t) + c, count);
        const vf dt = w->dt[i], g = w->gate_grad[i], x = dt * u;
        const float *B = at(&a->B, s->batch, t), *C = at(&a->C, s->batch, t);
        const vf *h = w->h + i * state, *after = h + state, *decay = w->decay + i * state;
        vf *grad_B = w->grad_B + i * state, *grad_C = w->grad_C + i * state;
        vf grad_x = {0}, through_A = {0};
        for (int64_t n = 0; n < state; n++) {
            const vf grad_h = b->grad_h[n] + g * splat(C[n]);
            const vf carried = grad_h * decay[n];
            const vf along = carried * h[n];
            grad_C[n] += g * after[n];
            grad_B[n] += grad_h * x;
            grad_x += grad_h * splat(B[n]);
            b->grad_A[n] += along * dt;
            through_A += along * b->A[n];
            b->grad_h[n] = carried;
        }
        vf grad_delta = grad_x * u + through_A * splat(1.0f / LOG2E);
        if (a->softplus)
            grad_delta *= sigmoidv(load(at(&a->delta, s->batch, t) + c, count) + bias);
        store(at(&a->grad_delta, s->batch, t) + c, grad_delta, count);
        store(at(&a->grad_u, s->batch, t) + c, grad_x * dt + g * D, count);
        grad_D += g * u;
        grad_bias += grad_delta;
    }
    *b->grad_D = grad_D;
    *b->grad_bias = grad_bias;
}

INLINE void reduce_tile(const scan_args *a, const share *s, int64_t from, int64_t to,
                        const tile_buffers *w) {
    for (int64_t step = from; step < to; step++) {
        const int64_t row = (s->group * a->batch + s->batch) * a->time + frame(a, s, step);
        for (int64_t n = 0; n < a->state; n++) {
            a->grad_B[row * a->state + n] = sum_lanes(w->grad_B[(step - from) * a->state + n]);
            a->grad_C[row * a->state + n] = sum_lanes(w->grad_C[(step - from) * a->state + n]);
        }
    }
}

INLINE block_state block_at(vf *memory, int64_t k, int64_t state) {
    vf *p = memory + k * (3 * state + 2);
    return (block_state){p, p + state, p + 2 * state, p + 3 * state, p + 3 * state + 1};
}

MLMA_CLONES void mlma_scan_backward_task(const scan_args *a, int64_t task, vf *scratch) {
    const share s = share_of(a, task);
    const int64_t state = a->state;
    tile_buffers w;
    w.h = scratch;
    w.decay = w.h + (TILE + 1) * state;
    w.grad_B = w.decay + TILE * state;
    w.grad_C = w.grad_B + TILE * state;
    w.dt = w.grad_C + TILE * state;
    w.gate_grad = w.dt + TILE;
    vf *blocks = w.gate_grad + TILE;
    memset(blocks, 0, (size_t)(s.blocks * (3 * state + 2)) * sizeof(vf));
    for (int64_t k = 0; k < s.blocks; k++) {
        const int64_t c = s.first + k * LANES, count = s.last - c < LANES ? s.last - c : LANES;
        const block_state b = block_at(blocks, k, state);
        gather(b.A, a->A + c * state, count, state, LOG2E);
        if (a->grad_final)
            gather(b.grad_h, a->grad_final + (s.batch * a->channel + c) * state, count, state, 1.0f);
    }
    for (int64_t from = (s.length - 1) / TILE * TILE; s.length > 0 && from >= 0; from -= TILE) {
        const int64_t to = from + TILE < s.length ? from + TILE : s.length;
        memset(w.grad_B, 0, (size_t)(2 * TILE * state) * sizeof(vf));
        for (int64_t k = 0; k < s.blocks; k++) {
            const int64_t c = s.first + k * LANES, count = s.last - c < LANES ? s.last - c : LANES;
            const block_state b = block_at(blocks, k, state);
            const int64_t row = (s.batch * s.tiles + from / TILE) * a->channel + c;
            gather(w.h, a->starts + row * state, count, state, 1.0f);
            replay_block(a, &s, c, from, to, b.A, &w);
            backward_block(a, &s, c, from, to, &b, &w);
        }
        reduce_tile(a, &s, from, to, &w);
    }
    for (int64_t k = 0; k < s.blocks; k++) {
        const int64_t c = s.first + k * LANES, count = s.last - c < LANES ? s.last - c : LANES;
        const block_state b = block_at(blocks, k, state);
        const int64_t row = s.batch * a->channel + c;
        scatter(a->grad_A + row * state, b.grad_A, count, state);
        scatter(a->grad_initial + row * state, b.grad_h, count, state);
        store(a->grad_D + row, *b.grad_D, count);
        store(a->grad_bias + row, *b.grad_bias, count);
    }
    clear_padding(a, &s, &a->grad_u);
    clear_padding(a, &s, &a->grad_delta);
    if (a->z.data) clear_padding(a, &s, &a->grad_z);
}

static int run(const scan_args *a, void (*task)(const scan_args *, int64_t, vf *), int64_t vectors) {
    int failed = 0;
#pragma omp parallel num_threads((int)a->threads) reduction(| : failed)
    {
        vf *scratch = aligned_alloc(sizeof(vf), (size_t)vectors * sizeof(vf));
        failed = scratch == NULL;
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < a->batch * a->groups; i++)
            if (scratch) task(a, i, scratch);
        free(scratch);
    }
    return failed;
}

/* 0, or 1 when memory ran out. */
int mlma_scan_forward(const scan_args *a) {
    const int64_t blocks = (a->channel + LANES - 1) / LANES;
    return run(a, mlma_scan_forward_task, 2 * blocks * a->state);
}

int mlma_scan_backward(const scan_args *a) {
    const int64_t blocks = (a->channel + LANES - 1) / LANES;
    const int64_t tile = (4 * TILE + 1) * a->state + 2 * TILE;
    return run(a, mlma_scan_backward_task, tile + blocks * (3 * a->state + 2));
}

int64_t mlma_scan_tile(void) { return TILE; }
