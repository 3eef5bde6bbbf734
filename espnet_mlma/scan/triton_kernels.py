"""The Triton kernels of `espnet_mlma.scan.triton`, which explains how the work is divided.

A program's tensors have four axes, (NR, CR, NL, CL): registers over states, registers over
channels, lanes over states, lanes over channels. Triton assigns the lanes of a warp to the last
axes, so the shape decides which sums stay in a thread and which cross lanes.

If Triton knew that neighbouring states are contiguous, it would assign the elements so that a
thread loads four neighbours at once, and exchange them between lanes in every step. So the indices
of whole tensors have a factor `one`, whose value the compiler does not know.
"""

import triton
import triton.language as tl


@triton.jit
def _state_index(NR: tl.constexpr, NL: tl.constexpr):
    register = tl.arange(0, NR)[:, None, None, None].to(tl.int64)
    return register + tl.arange(0, NL)[None, None, :, None] * NR


@triton.jit
def _channel_index(block, CR: tl.constexpr, CL: tl.constexpr):
    register = tl.arange(0, CR)[None, :, None, None].to(tl.int64)
    return register * CL + tl.arange(0, CL)[None, None, None, :] + block * (CR * CL)


@triton.jit
def _sum_states(x):
    return tl.sum(tl.sum(x, 0, keep_dims=True), 2, keep_dims=True)


@triton.jit
def _sum_channels(x):
    return tl.sum(tl.sum(x, 1, keep_dims=True), 3, keep_dims=True)


@triton.jit
def _softplus(x):
    # log1p(e) = 2 atanh(e / (2 + e)), by its series: log(1 + e) would lose the small step sizes.
    e = tl.exp(-tl.abs(x))
    s = e / (2 + e)
    q = s * s
    p = q * (1 / 13) + 1 / 11
    p = p * q + 1 / 9
    p = p * q + 1 / 7
    p = p * q + 1 / 5
    p = p * q + 1 / 3
    return tl.maximum(x, 0) + 2 * s * (p * q + 1)


@triton.jit
def _step_size(delta, bias, valid, SOFTPLUS: tl.constexpr):
    delta += bias
    # Steps past the end have size zero, which leaves the state unchanged.
    return tl.where(valid, _softplus(delta) if SOFTPLUS else delta, 0.0)


@triton.jit
def _begin(direction, strides, first, c, n):
    """Point to a sequence's first row in u, delta, B and C.

    Offsets from there have 32 bits: 64 bits took half the time of a step, and no utterance has 2^31
    values in a tensor.
    """
    u, delta = direction.u + first * strides.u + c, direction.delta + first * strides.delta + c
    return u, delta, direction.B + first * strides.B + n, direction.C + first * strides.C + n


@triton.jit
def _row(direction, length, step):
    return step + direction.reverse * (length - 1 - 2 * step)


@triton.jit
def _load_step(strides, begin, row, at_c, at_n):
    u, delta, B, C = begin
    return (
        tl.load(u + row * strides.u, at_c, 0.0).to(tl.float32),
        tl.load(delta + row * strides.delta, at_c, 0.0).to(tl.float32),
        tl.load(B + row * strides.B, at_n, 0.0).to(tl.float32),
        tl.load(C + row * strides.C, at_n, 0.0).to(tl.float32),
    )


@triton.jit
def _load_constants(direction, c, n, channels, states, one):
    """Load A, scaled for exp2, D and delta_bias."""
    inside = (c < channels) & (n < states)
    A = tl.load(direction.A + c * states + n * one, inside, 0.0) * 1.4426950408889634
    D = tl.load(direction.D + c, c < channels, 0.0)
    return A, D, tl.load(direction.delta_bias + c, c < channels, 0.0)


@triton.jit
def _advance(h, A, u, dt, B):
    """Compute the state after a step, and the decay of the state before it."""
    decay = tl.exp2(dt * A)
    return decay * h + (dt * u) * B, decay


@triton.jit
def _forward_direction(
    direction, strides, final, starts, y, firsts, lengths, channels, states, one,
    SOFTPLUS: tl.constexpr, KEEP: tl.constexpr, TILE: tl.constexpr, GROUP: tl.constexpr,
    NR: tl.constexpr, CR: tl.constexpr, NL: tl.constexpr, CL: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0).to(tl.int64)
    n, c = _state_index(NR, NL), _channel_index(tl.program_id(1), CR, CL)
    at_c, at_n = c < channels, n < states
    inside = at_c & at_n
    first, length = tl.load(firsts + sequence), tl.load(lengths + sequence).to(tl.int32)
    A, D, bias = _load_constants(direction, c, n, channels, states, one)
    cells = c * states + n * one
    whole = sequence * channels * states + cells
    h = tl.zeros((NR, CR, NL, CL), tl.float32)
    if direction.initial_state is not None:
        h += tl.load(direction.initial_state + whole, inside, 0.0)
    sources = _begin(direction, strides, first, c, n)
    y += first * channels + c
    starts += (first // TILE + sequence) * channels * states + cells
    for tile in range(0, length, TILE):
        if KEEP:
            tl.store(starts, h, inside)
            starts += channels * states
        for begin in range(tile, tl.minimum(tile + TILE, length), GROUP):
            loaded = ()
            for i in tl.static_range(GROUP):
                valid = begin + i < length
                row = _row(direction, length, begin + i)
                loaded += (_load_step(strides, sources, row, valid & at_c, valid & at_n),)
            for i in tl.static_range(GROUP):
                u, delta, B, C = loaded[i]
                valid = begin + i < length
                h, _ = _advance(h, A, u, _step_size(delta, bias, valid, SOFTPLUS), B)
                row = _row(direction, length, begin + i)
                tl.store(y + row * channels, _sum_states(h * C) + D * u, valid & at_c)
    tl.store(final + whole, h, inside)


@triton.jit(do_not_specialize=["one"])
def forward_kernel(
    directions, strides, finals, starts, ys, firsts, lengths, channels, states, one,
    SOFTPLUS: tl.constexpr, KEEP: tl.constexpr, TILE: tl.constexpr, GROUP: tl.constexpr,
    NR: tl.constexpr, CR: tl.constexpr, NL: tl.constexpr, CL: tl.constexpr,
):  # fmt: skip
    """Scan a sequence, a block of channels and a direction in each program; y is not gated."""
    for d in tl.static_range(len(directions)):
        if tl.program_id(2) == d:
            _forward_direction(
                directions[d], strides[d], finals[d], starts[d], ys[d], firsts, lengths, channels,
                states, one, SOFTPLUS, KEEP, TILE, GROUP, NR, CR, NL, CL,
            )  # fmt: skip


@triton.jit
def _backward_direction(
    direction, strides, grad, starts, y, scratch, z, z_row, grad_out, grad_out_row, firsts,
    lengths, rows, channels, states, one, SOFTPLUS: tl.constexpr, TILE: tl.constexpr,
    GROUP: tl.constexpr,
    NR: tl.constexpr, CR: tl.constexpr, NL: tl.constexpr, CL: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0).to(tl.int64)
    n, c = _state_index(NR, NL), _channel_index(tl.program_id(1), CR, CL)
    at_c, at_n = c < channels, n < states
    inside = at_c & at_n
    first, length = tl.load(firsts + sequence), tl.load(lengths + sequence).to(tl.int32)
    A, D, bias = _load_constants(direction, c, n, channels, states, one)
    cells = c * states + n * one
    whole = sequence * channels * states + cells
    grad_h = tl.zeros((NR, CR, NL, CL), tl.float32)
    if grad.final is not None:
        grad_h += tl.load(grad.final + whole, inside, 0.0)
    grad_A = tl.zeros((NR, CR, NL, CL), tl.float32)
    grad_D, grad_bias = tl.zeros((1, CR, 1, CL), tl.float32), tl.zeros((1, CR, 1, CL), tl.float32)
    # A slot holds the program's tensor in the order of the lanes, so that it moves in whole lines.
    SLOT: tl.constexpr = NR * CR * NL * CL
    program = (sequence * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(2)
    slots = scratch + (program + tl.program_id(2)) * (TILE // GROUP * SLOT)
    cell = tl.arange(0, NR)[:, None, None, None] * CR + tl.arange(0, CR)[None, :, None, None]
    cell = cell * NL + tl.arange(0, NL)[None, None, :, None]
    slots += (cell * CL + tl.arange(0, CL)[None, None, None, :]) * one
    sources = _begin(direction, strides, first, c, n)
    grad_out += first * grad_out_row + c
    if z is not None:
        z += first * z_row + c
        y += first * channels + c
    to_u, to_delta = grad.u + first * channels + c, grad.delta + first * channels + c
    part = tl.program_id(1).to(tl.int64) * rows + first  # this block's share of grad_B and grad_C
    to_B, to_C = grad.B + part * states + n, grad.C + part * states + n
    tiles = tl.cdiv(length, TILE)
    starts += (first // TILE + sequence + tiles) * channels * states + cells
    for behind in range(0, tiles):
        begin = (tiles - 1 - behind) * TILE
        groups = tl.cdiv(tl.minimum(length - begin, TILE), GROUP)
        starts -= channels * states
        h = tl.load(starts, inside, 0.0)
        for group in range(0, groups):
            tl.store(slots + group * SLOT, h)
            loaded = ()
            for i in tl.static_range(GROUP):
                step = begin + group * GROUP + i
                valid = step < length
                row = _row(direction, length, step)
                loaded += (_load_step(strides, sources, row, valid & at_c, valid & at_n),)
            for i in tl.static_range(GROUP):
                u, delta, B, C = loaded[i]
                step = begin + group * GROUP + i
                valid = step < length
                h, _ = _advance(h, A, u, _step_size(delta, bias, valid, SOFTPLUS), B)
                if z is not None:
                    row = _row(direction, length, step)
                    tl.store(y + row * channels, _sum_states(h * C) + D * u, valid & at_c)
        # The compiler may load a slot by other threads than stored it.
        tl.debug_barrier()
        for back in range(0, groups):
            group = groups - 1 - back
            h = tl.load(slots + group * SLOT)
            loaded, gradients = (), ()
            for i in tl.static_range(GROUP):
                step = begin + group * GROUP + i
                valid = step < length
                row = _row(direction, length, step)
                loaded += (_load_step(strides, sources, row, valid & at_c, valid & at_n),)
                g = tl.load(grad_out + row * grad_out_row, valid & at_c, 0.0).to(tl.float32)
                if z is not None:
                    gate = tl.load(z + row * z_row, valid & at_c, 0.0).to(tl.float32)
                    g *= gate * tl.sigmoid(gate)
                gradients += (g,)
            replayed = ()
            for i in tl.static_range(GROUP):
                u, delta, B, C = loaded[i]
                valid = begin + group * GROUP + i < length
                dt = _step_size(delta, bias, valid, SOFTPLUS)
                after, decay = _advance(h, A, u, dt, B)
                replayed += ((dt, decay, h, after),)
                h = after
            for i in tl.static_range(GROUP - 1, -1, -1):
                u, delta, B, C = loaded[i]
                dt, decay, before, after = replayed[i]
                g = gradients[i]
                step = begin + group * GROUP + i
                valid = step < length
                row = _row(direction, length, step)
                grad_h += g * C
                grad_x = _sum_states(grad_h * B)
                of_B, of_C = _sum_channels(grad_h * (dt * u)), _sum_channels(g * after)
                grad_h *= decay
                along = grad_h * before
                grad_A += along * dt
                grad_delta = grad_x * u + _sum_states(along * A) * 0.6931471805599453
                if SOFTPLUS:
                    grad_delta *= tl.sigmoid(delta + bias)
                # Past the end the step size is zero for any delta.
                grad_delta = tl.where(valid, grad_delta, 0.0)
                grad_D += g * u
                grad_bias += grad_delta
                tl.store(to_u + row * channels, grad_x * dt + g * D, valid & at_c)
                tl.store(to_delta + row * channels, grad_delta, valid & at_c)
                tl.store(to_B + row * states, of_B, valid & at_n)
                tl.store(to_C + row * states, of_C, valid & at_n)
        tl.debug_barrier()
    tl.store(grad.A + whole, grad_A, inside)
    tl.store(grad.D + sequence * channels + c, grad_D, at_c)
    tl.store(grad.delta_bias + sequence * channels + c, grad_bias, at_c)
    if grad.initial_state is not None:
        tl.store(grad.initial_state + whole, grad_h, inside)


@triton.jit(do_not_specialize=["one", "rows"])
def backward_kernel(
    directions, strides, grads, starts, ys, scratch, z, z_row, grad_out, grad_out_row, firsts,
    lengths, rows, channels, states, one, SOFTPLUS: tl.constexpr, TILE: tl.constexpr,
    GROUP: tl.constexpr,
    NR: tl.constexpr, CR: tl.constexpr, NL: tl.constexpr, CL: tl.constexpr,
):  # fmt: skip
    """Compute gradients in the programs of `forward_kernel`; a gate needs y for its gradient."""
    for d in tl.static_range(len(directions)):
        if tl.program_id(2) == d:
            _backward_direction(
                directions[d], strides[d], grads[d], starts[d], ys[d], scratch, z, z_row, grad_out,
                grad_out_row, firsts, lengths, rows, channels, states, one, SOFTPLUS, TILE, GROUP,
                NR, CR, NL, CL,
            )  # fmt: skip


@triton.jit
def _sequence_of(row, firsts, lengths, sequences, halvings):
    """Find by bisection the last sequence that begins at or before each row: first row, and end."""
    low = tl.zeros(row.shape, tl.int32)
    high = low + sequences
    for _ in range(0, halvings):
        middle = (low + high) // 2
        begins = tl.load(firsts + middle, middle < high, 0)
        before = (middle < high) & (begins <= row)
        low, high = tl.where(before, middle + 1, low), tl.where(before, high, middle)
    found = low > 0
    first = tl.load(firsts + low - 1, found, 0)
    return first, first + tl.load(lengths + low - 1, found, 0)


@triton.jit(do_not_specialize=["sequences", "halvings", "rows"])
def gate_kernel(
    ys, z, z_row, grad_out, grad_out_row, out, firsts, lengths, sequences, halvings, rows,
    channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sum y over the directions and gate it; with grad_out, the gradient of the gate instead.

    Rows of padding become zeros.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    _, end = _sequence_of(row, firsts, lengths, sequences, halvings)
    row, end = row[:, None], end[:, None]
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    valid = (row < end) & (c < channels)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for d in tl.static_range(len(ys)):
        total += tl.load(ys[d] + row * channels + c, valid, 0.0)
    if z is not None:
        gate = tl.load(z + row * z_row + c, valid, 0.0).to(tl.float32)
        sigmoid = tl.sigmoid(gate)
        if grad_out is None:
            total *= gate * sigmoid
        else:
            total *= sigmoid * (1 + gate * (1 - sigmoid))
            total *= tl.load(grad_out + row * grad_out_row + c, valid, 0.0).to(tl.float32)
    tl.store(out + row * channels + c, total, (row < rows) & (c < channels))


@triton.jit(do_not_specialize=["sequences", "halvings", "rows"])
def conv_kernel(
    x, x_row, weight, bias, grad_out, grad_out_row, out, firsts, lengths, sequences, halvings,
    rows, channels, left, KERNEL: tl.constexpr, SILU: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Convolve and activate; with grad_out, the gradient before the activation instead.

    Rows of padding become zeros; weight is (KERNEL, channel).
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    first, end = _sequence_of(row, firsts, lengths, sequences, halvings)
    row, first, end = row[:, None], first[:, None], end[:, None]
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    valid = (row < end) & (c < channels)
    y = tl.zeros((ROWS, COLUMNS), tl.float32)
    if bias is not None:
        y += tl.load(bias + c, c < channels, 0.0)
    for j in range(KERNEL):
        source = row - left + j
        inside = valid & (source >= first) & (source < end)
        y += tl.load(weight + j * channels + c, c < channels, 0.0) * tl.load(
            x + source * x_row + c, inside, 0.0
        ).to(tl.float32)
    sigmoid = tl.sigmoid(y)
    if grad_out is not None:
        slope = sigmoid * (1 + y * (1 - sigmoid)) if SILU else 1.0
        y = slope * tl.load(grad_out + row * grad_out_row + c, valid, 0.0).to(tl.float32)
    elif SILU:
        y *= sigmoid
    tl.store(out + row * channels + c, tl.where(valid, y, 0.0), (row < rows) & (c < channels))


@triton.jit(do_not_specialize=["sequences", "halvings", "rows"])
def conv_weight_kernel(
    x, x_row, pre, partial, firsts, lengths, sequences, halvings, rows, channels, left,
    KERNEL: tl.constexpr, STEPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sum the gradient of one tap over STEPS * ROWS rows: (block, KERNEL, channel)."""
    block, tap = tl.program_id(0), tl.program_id(2)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    total = tl.zeros((1, COLUMNS), tl.float32)
    for step in range(STEPS):
        row = (block.to(tl.int64) * STEPS + step) * ROWS + tl.arange(0, ROWS)
        first, end = _sequence_of(row, firsts, lengths, sequences, halvings)
        row, first, end = row[:, None], first[:, None], end[:, None]
        source = row - left + tap
        inside = (row < end) & (source >= first) & (source < end) & (c < channels)
        total += tl.sum(
            tl.load(pre + row * channels + c, inside, 0.0)
            * tl.load(x + source * x_row + c, inside, 0.0).to(tl.float32),
            0,
            keep_dims=True,
        )
    tl.store(partial + (block * KERNEL + tap) * channels + c, total, c < channels)
