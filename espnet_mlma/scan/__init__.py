"""The two sequence operators of a Mamba block, length-aware and in both directions, on any device.

`selective_scan` and `depthwise_conv` pick a backend by dtype, device and what is installed:

* `cpu`: the C kernels, built at install where there is a compiler; fp32 arithmetic.
* `cuda`: mamba-ssm's kernel, where that package was built; the scan only.
* `reference`: plain PyTorch, everywhere, in any dtype; slow.

`backend=` or the environment variable ESPNET_MLMA_SCAN names one instead.
"""

from __future__ import annotations

import os
import warnings

import torch
from torch import Tensor

from espnet_mlma.scan import cpu, cuda, reference

__all__ = ["available_backends", "depthwise_conv", "selective_scan"]

_warned = False


def available_backends() -> list[str]:
    """The backends that can run here, fastest first."""
    found = ["cuda"] if cuda.is_available() else []
    return found + (["cpu"] if cpu.is_built() else []) + ["reference"]


def _pick(x: Tensor, backend: str | None, has_cuda_kernel: bool) -> str:
    backend = backend or os.environ.get("ESPNET_MLMA_SCAN")
    if backend is not None:
        if backend not in available_backends():
            raise ValueError(
                f"scan backend {backend!r} is not available here; choose from "
                f"{', '.join(available_backends())}"
            )
        return backend
    if x.dtype == torch.float64:
        return "reference"
    if x.is_cuda and has_cuda_kernel and cuda.is_available():
        return "cuda"
    if x.device.type == "cpu" and cpu.is_built():
        return "cpu"
    _warn_slow(x.device.type)
    return "reference"


def _warn_slow(device: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        cure = (
            "pip install mamba-ssm causal-conv1d"
            if device == "cuda"
            else "install gcc or clang and reinstall espnet-mlma"
        )
        warnings.warn(
            f"the selective scan runs in plain PyTorch on {device}, which is slow; {cure}",
            stacklevel=3,
        )


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    lengths: Tensor | None = None,
    reverse: bool = False,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run the selective state-space recurrence of Mamba over each sequence.

    Frames at or past a sequence's length are neither read nor allowed to matter, and come out as
    zeros. State and sums are fp32 (fp64 for fp64 input) whatever the input dtype.

    Args:
        u: input, (batch, time, channel).
        delta: step size before bias and softplus, (batch, time, channel).
        A: transition, (channel, state); negative for a state that decays.
        B, C: input and output maps, (batch, time, state).
        D: skip weight, (channel,).
        z: gate, (batch, time, channel); the output is multiplied by silu(z).
        delta_bias: added to delta, (channel,).
        delta_softplus: pass delta through softplus.
        lengths: valid frames of each sequence, (batch,) integer; None: all of them.
        reverse: start at the last valid frame and go back in time.
        initial_state: state before the first frame scanned, (batch, channel, state); None: zeros.
        return_final_state: return the state after the last frame scanned as well.
        backend: one of `available_backends()`; None picks.

    Returns:
        The output (batch, time, channel) in u's dtype, and with `return_final_state` the state
        (batch, channel, state).

    Raises:
        ValueError: shapes disagree, a length is out of range, or the backend is not available.

    Source: Gu and Dao, Mamba, arXiv 2312.00752, algorithm 2.
    """
    batch, time, channel = u.shape
    state = A.size(1)
    _expect("delta", delta, (batch, time, channel))
    _expect("A", A, (channel, state))
    _expect("B", B, (batch, time, state))
    _expect("C", C, (batch, time, state))
    _expect("D", D, (channel,))
    _expect("z", z, (batch, time, channel))
    _expect("delta_bias", delta_bias, (channel,))
    _expect("initial_state", initial_state, (batch, channel, state))
    _check_lengths(lengths, batch, time)
    picked = _pick(u, backend, has_cuda_kernel=initial_state is None)
    run = {"reference": reference, "cpu": cpu, "cuda": cuda}[picked].selective_scan
    out, final = run(
        u, delta, A, B, C, D, z, delta_bias, delta_softplus, lengths, reverse, initial_state
    )
    return (out, final) if return_final_state else out


def depthwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    left: int | None = None,
    silu: bool = False,
    lengths: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Convolve each channel over time with its own kernel, within each sequence's length.

    Args:
        x: input, (batch, time, channel); frames at or past the length are not read.
        weight: (channel, kernel).
        bias: (channel,).
        left: frames before the present one under the kernel; None: kernel - 1, causal. 0 looks
            ahead only, kernel // 2 is centred.
        silu: apply SiLU to the result.
        lengths: valid frames of each sequence, (batch,) integer; None: all of them.
        backend: one of `available_backends()`; None picks.

    Returns:
        (batch, time, channel) in x's dtype, zeros past each length.

    Raises:
        ValueError: shapes disagree or a length is out of range.
    """
    batch, time, channel = x.shape
    left = weight.size(1) - 1 if left is None else left
    _expect("weight", weight, (channel, weight.size(1)))
    _expect("bias", bias, (channel,))
    if not 0 <= left < weight.size(1):
        raise ValueError(f"left is {left}; it must lie in the kernel, 0 to {weight.size(1) - 1}")
    _check_lengths(lengths, batch, time)
    # There is no CUDA kernel of ours yet; PyTorch's grouped convolution serves a GPU well.
    on_cpu = _pick(x, backend, has_cuda_kernel=False) == "cpu" if not x.is_cuda else False
    run = cpu.depthwise_conv if on_cpu else reference.depthwise_conv
    return run(x, weight, bias, left, silu, lengths)


def _expect(name: str, x: Tensor | None, shape: tuple[int, ...]) -> None:
    if x is not None and tuple(x.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; expected {shape}")


def _check_lengths(lengths: Tensor | None, batch: int, time: int) -> None:
    if lengths is None:
        return
    _expect("lengths", lengths, (batch,))
    # Looking at the values would make a GPU wait; there they are the caller's word.
    if not lengths.is_cuda and lengths.numel() and not 0 <= lengths.min() <= lengths.max() <= time:
        raise ValueError(f"lengths must lie in 0 to {time}; got {lengths.tolist()}")
