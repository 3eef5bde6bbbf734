"""The selective scan on a CPU beside mamba-ssm's PyTorch reference and mambapy's parallel scan.

    python benchmarks/scan_cpu.py [--json FILE] [--threads 2] [--slow]

All peers do the same work: softplus of delta with its bias, scan, skip, gate. `--slow` times
autograd through the reference too, a minute for each run.
"""

from __future__ import annotations

from functools import cache, partial

import torch
import torch.nn.functional as F
from common import milliseconds, peak_bytes, prepare, report, time_together, timed_arguments

from espnet_mlma.scan import Direction, selective_scan

CHANNEL, STATE = 512, 16


def make(batch: int, time: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Input in the range a trained model has: dt about 0.001 to 0.1, A -1 to -16."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return {
        "u": normal(batch, time, CHANNEL),
        "delta": normal(batch, time, CHANNEL),
        "A": -torch.arange(1.0, STATE + 1).repeat(CHANNEL, 1),
        "B": normal(batch, time, STATE),
        "C": normal(batch, time, STATE),
        "D": normal(CHANNEL),
        "z": normal(batch, time, CHANNEL),
        "delta_bias": normal(CHANNEL) - 4,
    }


def ours(x, reverse=False):
    fields = {name: v for name, v in x.items() if name != "z"}
    return selective_scan([Direction(**fields, reverse=reverse)], x["z"], delta_softplus=True)[0]


def reference(x):
    """The computation of mamba_ssm's selective_scan_ref, from its definition: everything of size
    (batch, channel, time, state) at once, then a loop over time. Its layout is channels first."""
    u, z = x["u"].transpose(1, 2), x["z"].transpose(1, 2)
    delta = F.softplus(x["delta"].transpose(1, 2) + x["delta_bias"][:, None])
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, x["A"]))
    drive = torch.einsum("bdl,bln,bdl->bdln", delta, x["B"], u)
    h = u.new_zeros(u.size(0), CHANNEL, STATE)
    outputs = []
    for t in range(u.size(2)):
        h = decay[:, :, t] * h + drive[:, :, t]
        outputs.append(torch.einsum("bdn,bn->bd", h, x["C"][:, t]))
    y = torch.stack(outputs, 2) + u * x["D"][:, None]
    return (y * F.silu(z)).transpose(1, 2)


@cache
def mambapy_block():
    try:
        from mambapy.mamba import MambaBlock, MambaConfig
    except ModuleNotFoundError:
        raise SystemExit("error: mambapy is not installed; pip install -e '.[bench]'") from None
    return MambaBlock(MambaConfig(d_model=CHANNEL // 2, n_layers=1, d_state=STATE, pscan=True))


def mambapy(x):
    delta = F.softplus(x["delta"] + x["delta_bias"])
    y = mambapy_block().selective_scan(x["u"], delta, x["A"], x["B"], x["C"], x["D"])
    return y * F.silu(x["z"])


def forward_backward(run, leaves, weights) -> None:
    run(*leaves).backward(weights)


def with_gradients(run, x, weights):
    leaves = {name: v.detach().requires_grad_() for name, v in x.items()}
    return partial(forward_backward, run, [leaves], weights)


def check(x) -> None:
    """All of them compute the same thing."""
    exact = reference({name: v.double() for name, v in x.items()})
    for run in (ours, reference, mambapy):
        error = (run(x).double() - exact).abs().max().item() / exact.abs().max().item()
        assert error < 1e-5, f"{run.__name__} is off by {error}"


def compare(args) -> None:
    check(make(1, 40))
    x, weights = make(8, 500), torch.randn(8, 500, CHANNEL)
    with torch.no_grad():
        forward = time_together({f.__name__: lambda f=f: f(x) for f in (reference, mambapy)}, 3)
        forward |= time_together({"ours": lambda: ours(x)}, 30, warm_up=5)
    both = time_together({"mambapy": with_gradients(mambapy, x, weights)}, 3)
    both |= time_together({"ours": with_gradients(ours, x, weights)}, 15, warm_up=3)
    if args.slow:
        both |= time_together({"reference": with_gradients(reference, x, weights)}, 1, warm_up=0)
    rows = []
    for name in ("reference", "mambapy", "ours"):
        times = [figures.get(name) for figures in (forward, both)]
        shown = ["-" if t is None else milliseconds(t) for t in times]
        ratios = [
            "-" if t is None else f"{t / figures['ours']:.0f}x"
            for t, figures in zip(times, (forward, both), strict=True)
        ]
        rows.append([name, shown[0], ratios[0], shown[1], ratios[1]])
    header = ["batch 8, time 500", "forward (ms)", "ours is", "with backward (ms)", "ours is"]
    report("Selective scan, 512 channels of 16 states", header, rows, args)


def scaling(args) -> None:
    rows, per_frame = [], {}
    for batch, time in ((8, 500), (8, 3000), (8, 15000), (1, 500), (1, 90000)):
        x = make(batch, time)
        step = with_gradients(ours, x, torch.randn(batch, time, CHANNEL))
        repeats = 30 if time < 1000 else 5
        with torch.no_grad():
            forward = time_together({"": lambda x=x: ours(x)}, repeats, 2)[""]
            extra = peak_bytes(lambda x=x: ours(x))
        both = time_together({"": step}, repeats, 2)[""]
        extra_both = peak_bytes(step)
        inputs = sum(v.nbytes for v in x.values())
        frames = batch * time
        per_frame[batch, time] = forward / frames
        rows.append(
            [
                f"{batch} x {time}",
                milliseconds(forward),
                f"{1e9 * forward / frames:.0f}",
                f"{extra / inputs:.2f}",
                milliseconds(both),
                f"{1e9 * both / frames:.0f}",
                f"{extra_both / inputs:.2f}",
            ]
        )
    header = [
        "batch x time", "forward (ms)", "a frame (ns)", "extra memory / input",
        "with backward (ms)", "a frame (ns)", "extra memory / input",
    ]  # fmt: skip
    report("Selective scan, length", header, rows, args)


def one_call(forward, reverse, z):
    both = [Direction(**forward), Direction(**reverse, reverse=True)]
    return selective_scan(both, z, delta_softplus=True)[0]


def two_calls(forward, reverse, z):
    return ours(forward | {"z": z}) + ours(reverse | {"z": z}, reverse=True)


def directions(args) -> None:
    """Time one call for both directions beside two calls and their sum."""
    rows = []
    for batch, time in ((8, 500), (1, 375)):
        pair = make(batch, time), make(batch, time, seed=1)
        z, _ = (fields.pop("z") for fields in pair)
        inputs = (*pair, z)
        leaves = [
            *({name: v.clone().requires_grad_() for name, v in fields.items()} for fields in pair),
            z.clone().requires_grad_(),
        ]
        weights = torch.randn(batch, time, CHANNEL)
        runs = {"one": one_call, "two": two_calls}
        with torch.no_grad():
            forward = time_together({n: partial(run, *inputs) for n, run in runs.items()}, 30, 3)
        both = time_together(
            {n: partial(forward_backward, run, leaves, weights) for n, run in runs.items()}, 15, 3
        )
        for figures, what in ((forward, "forward"), (both, "with backward")):
            rows.append(
                [
                    f"{batch} x {time}, {what}",
                    milliseconds(figures["two"]),
                    milliseconds(figures["one"]),
                    f"{figures['two'] / figures['one']:.2f}x",
                ]
            )
    header = ["batch x time", "two calls (ms)", "one call (ms)", "faster"]
    report("Both directions", header, rows, args)


def main() -> None:
    parser = timed_arguments(__doc__.splitlines()[0])
    parser.add_argument("--slow", action="store_true", help="autograd through the reference too")
    args = parser.parse_args()
    prepare(args)
    compare(args)
    scaling(args)
    directions(args)


if __name__ == "__main__":
    main()
