/* The selective scan of Mamba-1 in one direction or two, forward and backward, fp32.
 *
 * For each sequence, direction and channel c, with state n = 0 .. state-1, in scan order s:
 *     dt  = softplus(delta + delta_bias)     x = dt * u
 *     h_n = exp(dt A_n) h_n + x B_n          y = sum_n C_n h_n + D u
 * and out = (sum of y over the directions) silu(z). Scan order is time; of a reverse direction, time
 * counted back from the last valid row.
 *
 * A task is one sequence and one group of channels, all directions one after the other: the second reads
 * the sum so far from `out` (backward: from `grad_z`) while it is in cache, and alone applies the gate.
 * It walks the sequence in tiles of TILE rows and, inside a tile, takes its channels LANES at a time: a
 * tile of u, delta, z and out stays in cache while the state lives in a scratch buffer between tiles.
 * Nothing of size rows x channel x state is stored: the forward pass keeps the state at the start of each
 * tile, the backward pass recomputes a tile from it. */
#include <stdlib.h>

#include "simd.h"

#define TILE 32
#define MAX_DIRECTIONS 2

/* The arguments of one direction, named as in `Direction` of rows.py, and its results. */
typedef struct {
    array u, delta, B, C;
    const float *A;                  /* (channel, state) */
    const float *D, *delta_bias;     /* (channel,) */
    const float *initial_state;      /* (sequence, channel, state) or NULL */
    float *final;                    /* (sequence, channel, state): forward */
    float *starts;                   /* (tile, channel, state): written forward, read backward, or NULL */
    const float *grad_final;         /* backward; (sequence, channel, state) or NULL */
    array grad_u, grad_delta;        /* written by the backward pass, down to grad_initial_state */
    float *grad_B, *grad_C;          /* (group, row, state) */
    float *grad_A;                   /* (sequence, channel, state) */
    float *grad_D, *grad_delta_bias; /* (sequence, channel) */
    float *grad_initial_state;       /* (sequence, channel, state) */
    int64_t reverse;                 /* scan from the last valid row to the first */
} scan_direction;

typedef struct {
    sequences seq;
    int64_t channel, state, groups, threads, delta_softplus, direction_count;
    array z, out, grad_out, grad_z; /* z.data NULL: no gate */
    scan_direction directions[MAX_DIRECTIONS];
} scan_args;

/* One task's share of one direction: channels [first, last) of one sequence. */
typedef struct {
    const scan_direction *direction;
    int64_t index, group, first, last, blocks, row, length, tile;
    int begins, ends; /* whether it is the first direction, and the last */
} share;

static share share_of(const scan_args *a, int64_t task, int64_t direction) {
    share s;
    s.direction = &a->directions[direction];
    s.index = task / a->groups;
    s.group = task % a->groups;
    s.first = group_begin(a->channel, s.group, a->groups);
    s.last = group_begin(a->channel, s.group + 1, a->groups);
    s.blocks = (s.last - s.first + LANES - 1) / LANES;
    s.row = a->seq.first[s.index];
    s.length = a->seq.length[s.index];
    s.tile = s.row / TILE + s.index; /* no two sequences share a tile, however long each is */
    s.begins = direction == 0;
    s.ends = direction == a->direction_count - 1;
    return s;
}

INLINE int64_t row_of(const share *s, int64_t step) {
    return s->row + (s->direction->reverse ? s->length - 1 - step : step);
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

INLINE int64_t block_begin(const share *s, int64_t block) { return s->first + block * LANES; }
INLINE int64_t block_count(const share *s, int64_t c) { return s->last - c < LANES ? s->last - c : LANES; }
/* Zeros, or NaN where a transition is NaN: exp2v would turn it into a number. */
INLINE vf poison(const vf *A, int64_t state) {
    vf sum = {0};
    for (int64_t n = 0; n < state; n++) sum += A[n] * splat(0.0f);
    return sum;
}

INLINE vf step_size(const scan_args *a, vf delta) { return a->delta_softplus ? softplusv(delta) : delta; }

/* The rows [from, to) in scan order of one block of channels; `h` goes in and comes out. */
INLINE void forward_block(const scan_args *a, const share *s, int64_t c, int64_t from, int64_t to,
                          const vf *A, vf *h) {
    const scan_direction *d = s->direction;
    const int64_t count = s->last - c, state = a->state;
    const vf bias = load(d->delta_bias + c, count), D = load(d->D + c, count) + poison(A, state);
    for (int64_t step = from; step < to; step++) {
        const int64_t row = row_of(s, step);
        const vf u = load(at(&d->u, row) + c, count);
        const vf dt = step_size(a, load(at(&d->delta, row) + c, count) + bias);
        const vf x = dt * u;
        const float *B = at(&d->B, row), *C = at(&d->C, row);
        vf y = D * u;
        for (int64_t n = 0; n < state; n++) {
            h[n] = exp2v(dt * A[n]) * h[n] + x * splat(B[n]);
            y += h[n] * splat(C[n]);
        }
        if (!s->begins) y += load(at(&a->out, row) + c, count);
        if (s->ends && a->z.data) {
            const vf z = load(at(&a->z, row) + c, count);
            y *= z * sigmoidv(z);
        }
        store(at(&a->out, row) + c, y, count);
    }
}

INLINE void forward_direction(const scan_args *a, const share *s, vf *scratch) {
    const scan_direction *d = s->direction;
    const int64_t state = a->state;
    vf *A = scratch, *h = scratch + s->blocks * state;
    for (int64_t k = 0; k < s->blocks; k++) {
        const int64_t c = block_begin(s, k), count = block_count(s, c);
        gather(A + k * state, d->A + c * state, count, state, LOG2E);
        if (d->initial_state)
            gather(h + k * state, d->initial_state + (s->index * a->channel + c) * state, count, state, 1.0f);
        else
            memset(h + k * state, 0, (size_t)state * sizeof(vf));
    }
    for (int64_t from = 0; from < s->length; from += TILE) {
        const int64_t to = from + TILE < s->length ? from + TILE : s->length;
        for (int64_t k = 0; k < s->blocks; k++) {
            const int64_t c = block_begin(s, k);
            if (d->starts) {
                const int64_t start = (s->tile + from / TILE) * a->channel + c;
                scatter(d->starts + start * state, h + k * state, block_count(s, c), state);
            }
            forward_block(a, s, c, from, to, A + k * state, h + k * state);
        }
    }
    for (int64_t k = 0; k < s->blocks; k++) {
        const int64_t c = block_begin(s, k);
        scatter(d->final + (s->index * a->channel + c) * state, h + k * state, block_count(s, c), state);
    }
}

MLMA_CLONES void mlma_scan_forward_task(const scan_args *a, int64_t task, vf *scratch) {
    for (int64_t i = 0; i < a->direction_count; i++) {
        const share s = share_of(a, task, i);
        forward_direction(a, &s, scratch);
        if (s.ends) clear_padding(&a->seq, s.index, &a->out, s.first, s.last);
    }
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
    vf *grad_B, *grad_C; /* [TILE][state], summed over the task's channels */
    vf *dt, *gate_grad; /* [TILE]: step size; gradient before the gate */
} tile_buffers;

/* Recompute the states of a tile from its start, and the gradient of the gate. */
INLINE void replay_block(const scan_args *a, const share *s, int64_t c, int64_t from, int64_t to,
                         const vf *A, const tile_buffers *b) {
    const scan_direction *d = s->direction;
    const int64_t count = s->last - c, state = a->state;
    const vf bias = load(d->delta_bias + c, count), D = load(d->D + c, count);
    for (int64_t step = from; step < to; step++) {
        const int64_t i = step - from, row = row_of(s, step);
        const vf u = load(at(&d->u, row) + c, count);
        const vf dt = step_size(a, load(at(&d->delta, row) + c, count) + bias);
        const vf x = dt * u;
        const float *B = at(&d->B, row), *C = at(&d->C, row);
        const vf *h = b->h + i * state;
        vf *next = b->h + (i + 1) * state, *decay = b->decay + i * state;
        vf y = D * u;
        for (int64_t n = 0; n < state; n++) {
            decay[n] = exp2v(dt * A[n]);
            next[n] = decay[n] * h[n] + x * splat(B[n]);
            y += next[n] * splat(C[n]);
        }
        vf g = load(at(&a->grad_out, row) + c, count);
        if (a->z.data) {
            const vf z = load(at(&a->z, row) + c, count);
            const vf sigmoid = sigmoidv(z);
            float *grad_z = at(&a->grad_z, row) + c; /* until the last direction, the sum of y */
            if (!s->begins) y += load(grad_z, count);
            if (s->ends) y *= g * sigmoid * (splat(1.0f) + z * (splat(1.0f) - sigmoid));
            store(grad_z, y, count);
            g *= z * sigmoid;
        }
        b->dt[i] = dt;
        b->gate_grad[i] = g;
    }
}

INLINE void backward_block(const scan_args *a, const share *s, int64_t c, int64_t from, int64_t to,
                           const block_state *k, const tile_buffers *b) {
    const scan_direction *d = s->direction;
    const int64_t count = s->last - c, state = a->state;
    const vf bias = load(d->delta_bias + c, count), D = load(d->D + c, count);
    vf grad_D = *k->grad_D, grad_bias = *k->grad_bias;
    for (int64_t step = to - 1; step >= from; step--) {
        const int64_t i = step - from, row = row_of(s, step);
        const vf u = load(at(&d->u, row) + c, count);
        const vf dt = b->dt[i], g = b->gate_grad[i], x = dt * u;
        const float *B = at(&d->B, row), *C = at(&d->C, row);
        const vf *h = b->h + i * state, *after = h + state, *decay = b->decay + i * state;
        vf *grad_B = b->grad_B + i * state, *grad_C = b->grad_C + i * state;
        vf grad_x = {0}, through_A = {0};
        for (int64_t n = 0; n < state; n++) {
            const vf grad_h = k->grad_h[n] + g * splat(C[n]);
            const vf carried = grad_h * decay[n];
            const vf along = carried * h[n];
            grad_C[n] += g * after[n];
            grad_B[n] += grad_h * x;
            grad_x += grad_h * splat(B[n]);
            k->grad_A[n] += along * dt;
            through_A += along * k->A[n];
            k->grad_h[n] = carried;
        }
        vf grad_delta = grad_x * u + through_A * splat(1.0f / LOG2E);
        if (a->delta_softplus) grad_delta *= sigmoidv(load(at(&d->delta, row) + c, count) + bias);
        store(at(&d->grad_delta, row) + c, grad_delta, count);
        store(at(&d->grad_u, row) + c, grad_x * dt + g * D, count);
        grad_D += g * u;
        grad_bias += grad_delta;
    }
    *k->grad_D = grad_D;
    *k->grad_bias = grad_bias;
}

INLINE void reduce_tile(const scan_args *a, const share *s, int64_t from, int64_t to, const tile_buffers *b) {
    for (int64_t step = from; step < to; step++) {
        const int64_t at = (s->group * a->seq.rows + row_of(s, step)) * a->state;
        for (int64_t n = 0; n < a->state; n++) {
            s->direction->grad_B[at + n] = sum_lanes(b->grad_B[(step - from) * a->state + n]);
            s->direction->grad_C[at + n] = sum_lanes(b->grad_C[(step - from) * a->state + n]);
        }
    }
}

INLINE block_state block_at(vf *memory, int64_t k, int64_t state) {
    vf *p = memory + k * (3 * state + 2);
    return (block_state){p, p + state, p + 2 * state, p + 3 * state, p + 3 * state + 1};
}

INLINE void backward_direction(const scan_args *a, const share *s, vf *scratch) {
    const scan_direction *d = s->direction;
    const int64_t state = a->state;
    tile_buffers b;
    b.h = scratch;
    b.decay = b.h + (TILE + 1) * state;
    b.grad_B = b.decay + TILE * state;
    b.grad_C = b.grad_B + TILE * state;
    b.dt = b.grad_C + TILE * state;
    b.gate_grad = b.dt + TILE;
    vf *blocks = b.gate_grad + TILE;
    memset(blocks, 0, (size_t)(s->blocks * (3 * state + 2)) * sizeof(vf));
    for (int64_t k = 0; k < s->blocks; k++) {
        const int64_t c = block_begin(s, k), count = block_count(s, c);
        const block_state block = block_at(blocks, k, state);
        gather(block.A, d->A + c * state, count, state, LOG2E);
        if (d->grad_final)
            gather(block.grad_h, d->grad_final + (s->index * a->channel + c) * state, count, state, 1.0f);
    }
    for (int64_t from = (s->length - 1) / TILE * TILE; s->length > 0 && from >= 0; from -= TILE) {
        const int64_t to = from + TILE < s->length ? from + TILE : s->length;
        memset(b.grad_B, 0, (size_t)(2 * TILE * state) * sizeof(vf));
        for (int64_t k = 0; k < s->blocks; k++) {
            const int64_t c = block_begin(s, k);
            const block_state block = block_at(blocks, k, state);
            const int64_t start = (s->tile + from / TILE) * a->channel + c;
            gather(b.h, d->starts + start * state, block_count(s, c), state, 1.0f);
            replay_block(a, s, c, from, to, block.A, &b);
            backward_block(a, s, c, from, to, &block, &b);
        }
        reduce_tile(a, s, from, to, &b);
    }
    for (int64_t k = 0; k < s->blocks; k++) {
        const int64_t c = block_begin(s, k), count = block_count(s, c);
        const block_state block = block_at(blocks, k, state);
        const int64_t row = s->index * a->channel + c;
        scatter(d->grad_A + row * state, block.grad_A, count, state);
        scatter(d->grad_initial_state + row * state, block.grad_h, count, state);
        store(d->grad_D + row, *block.grad_D, count);
        store(d->grad_delta_bias + row, *block.grad_bias, count);
    }
    clear_padding(&a->seq, s->index, &d->grad_u, s->first, s->last);
    clear_padding(&a->seq, s->index, &d->grad_delta, s->first, s->last);
}

MLMA_CLONES void mlma_scan_backward_task(const scan_args *a, int64_t task, vf *scratch) {
    for (int64_t i = 0; i < a->direction_count; i++) {
        const share s = share_of(a, task, i);
        backward_direction(a, &s, scratch);
        if (s.ends && a->z.data) clear_padding(&a->seq, s.index, &a->grad_z, s.first, s.last);
    }
}

static int run(const scan_args *a, void (*task)(const scan_args *, int64_t, vf *), int64_t vectors) {
    if (!are_in_place(&a->seq)) return OUT_OF_PLACE;
    int failed = 0;
#pragma omp parallel num_threads((int)a->threads) reduction(| : failed)
    {
        vf *scratch = aligned_alloc(sizeof(vf), (size_t)vectors * sizeof(vf));
        failed = scratch == NULL;
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < a->seq.count * a->groups; i++)
            if (scratch) task(a, i, scratch);
        free(scratch);
    }
    return failed ? NO_MEMORY : DONE;
}

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
