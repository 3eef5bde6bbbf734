"""`measured.json`: time and memory of decoding, and how both are measured."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FILE = "measured.json"


@dataclass(frozen=True)
class Measured:
    """Contents of `measured.json`.

    Attributes:
        system: name of the model.
        model: absolute path or hub id.
        run: start of the run; the same for all models of one run.
        sets: names of the test sets.
        training_hours: of audio; None: unknown.
        audio_seconds: decoded.
        seconds: of decoding, wall clock.
        rtf: seconds per second of audio.
        peak_bytes: peak memory; None: unknown on this system.
        machine: processor and threads, or GPU, and PyTorch.
        usd_per_machine_hour: price of the machine; None: unknown.

    Raises:
        ValueError, TypeError: a figure is not above 0, or a name is no text.
    """

    system: str
    model: str
    run: str
    sets: Sequence[str]
    training_hours: float | None
    audio_seconds: float
    seconds: float
    rtf: float
    peak_bytes: int | None
    machine: str
    usd_per_machine_hour: float | None

    def __post_init__(self) -> None:
        names = (self.system, self.model, self.run, self.machine, *self.sets)
        if not all(isinstance(name, str) for name in names):
            raise TypeError("a name is no text")
        optional = (self.training_hours, self.peak_bytes, self.usd_per_machine_hour)
        figures = [self.audio_seconds, self.seconds, self.rtf]
        figures += [figure for figure in optional if figure is not None]
        if not all(figure > 0 for figure in figures):
            raise ValueError("a figure is not above 0")


def reset_peak_memory(device: str) -> None:
    """Start a new measurement for `peak_bytes`."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that loading freed must not count
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return  # no Linux, or no glibc: the peak includes loading


def peak_bytes(device: str) -> int | None:
    """Return the peak memory since `reset_peak_memory`, of the process or of tensors on a GPU.

    Returns:
        Bytes; None without /proc.

    Source: proc(5), clear_refs and VmHWM.
    """
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def machine(device: str) -> str:
    """Describe the processor and its threads, or the GPU, and PyTorch's version."""
    import torch

    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    cpu = next(names, platform.machine())
    return f"{cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}"
