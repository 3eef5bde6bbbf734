"""Train in one process, or in several that torchrun started, on CPUs or GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from espnet_mlma.errors import MlmaError

# Module lists of encoders and language model; FSDP shards each of their layers separately.
_LAYERS = ("layers", "blocks")


@dataclass(frozen=True)
class ProcessGroup:
    """Describe the processes of a training, and run collectives on them.

    Attributes:
        rank: rank of this process, from 0.
        size: number of processes.
        device: device of this process.
        is_sharded: shard parameters, gradients and optimiser (FSDP2); False: replicate (DDP).
    """

    rank: int
    size: int
    device: torch.device
    is_sharded: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def total(self, value: float) -> float:
        """Return the sum of a value over all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.item()

    def from_first[T](self, value: T) -> T:
        """Return the first process's value in every process."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, device=self.device)
        return values[0]

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        if self.size > 1:
            dist.barrier()

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wrap the model so that gradients are averaged over the processes."""
        if self.is_sharded:
            for name, module in list(model.named_modules()):
                *_, parent, last = ("", *name.split("."))
                if parent in _LAYERS and last.isdigit():
                    fully_shard(module)
            sharded: Any = fully_shard(model)
            return sharded
        if self.size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices)

    def gradient_sync(self, model: nn.Module, is_last: bool) -> AbstractContextManager:
        """Return a context for forward and backward that synchronises gradients only if `is_last`.

        Args:
            model: wrapped by `wrap`.
            is_last: whether this is the update's last batch.
        """
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(is_last)
        elif isinstance(model, DistributedDataParallel) and not is_last:
            return model.no_sync()
        return nullcontext()


@contextmanager
def process_group(device: str | None = None, is_sharded: bool = False) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started; without torchrun, use this process alone.

    Args:
        device: cpu or cuda; None: cuda if available.
        is_sharded: see `ProcessGroup`.

    Raises:
        MlmaError: `is_sharded` without torchrun.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if "RANK" not in os.environ:
        if is_sharded:
            raise MlmaError("--fsdp needs several processes; start the command with torchrun")
        yield ProcessGroup(0, 1, torch.device(kind))
        return
    here = torch.device(kind)
    if kind == "cuda":
        here = torch.device(kind, int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(here)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), here, is_sharded)
    finally:
        dist.destroy_process_group()


def full_tensor(value: Tensor) -> Tensor:
    """Return a tensor unsharded."""
    return value.full_tensor() if isinstance(value, DTensor) else value
