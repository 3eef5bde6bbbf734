"""Training in one process or in several that torchrun started, on CPUs or GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from espnet_mlma.errors import MlmaError

# Lists of layers of which each is gathered by itself: the language model's and the encoders'.
_LAYERS = ("layers", "blocks")


@dataclass(frozen=True)
class Group:
    """The processes of a training.

    Attributes:
        rank: of this one.
        size: how many they are.
        device: of this one.
        is_sharded: parameters, gradients and optimiser are shared out among them (FSDP2);
            otherwise each has all (DDP).
    """

    rank: int
    size: int
    device: torch.device
    is_sharded: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this one writes and prints."""
        return self.rank == 0

    def total(self, value: float) -> float:
        """The sum over all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.item()

    def of_first[T](self, value: T) -> T:
        """The value that the first process gives."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, device=self.device)
        return values[0]

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model as it is to be called; gradients are means over the processes."""
        if self.is_sharded:
            for name, module in list(model.named_modules()):
                *_, parent, last = ("", *name.split("."))
                if parent in _LAYERS and last.isdigit():
                    fully_shard(module)
            return fully_shard(model)
        if self.size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices)

    def gathering(self, model: nn.Module, is_last: bool) -> AbstractContextManager:
        """Around forward and backward of a batch; gradients are gathered in an update's last."""
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(is_last)
        elif isinstance(model, DistributedDataParallel) and not is_last:
            return model.no_sync()
        return nullcontext()


@contextmanager
def joined(device: str | None = None, is_sharded: bool = False) -> Iterator[Group]:
    """Join the processes that torchrun started; without it this one is alone.

    Args:
        device: cpu or cuda; None: a GPU where there is one.
        is_sharded: as of `Group`.

    Raises:
        MlmaError: to be sharded it needs torchrun.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if "RANK" not in os.environ:
        if is_sharded:
            raise MlmaError("--fsdp shares out among processes; start them with torchrun")
        yield Group(0, 1, torch.device(kind))
        return
    here = torch.device(kind)
    if kind == "cuda":
        here = torch.device(kind, int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(here)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), here, is_sharded)
    finally:
        dist.destroy_process_group()


def whole(value: Tensor) -> Tensor:
    """A tensor that may be shared out, as one."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value
