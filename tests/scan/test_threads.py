"""The kernels share PyTorch's OpenMP threads and start none of their own."""

import subprocess
import sys

import pytest

from espnet_mlma.scan import available_backends

pytestmark = pytest.mark.skipif("cpu" not in available_backends(), reason="C extension not built")

COUNT = """
import os, sys, torch
from espnet_mlma.scan import Direction, depthwise_conv, selective_scan

def work(torch_only):
    x = torch.randn(4, 300, 64, requires_grad=True)
    y = (x.flatten(0, 1) @ torch.randn(64, 64)).view(4, 300, 64).exp()
    if not torch_only:
        B = torch.randn(4, 300, 8)
        direction = Direction(x, y, -torch.rand(64, 8), B, B)
        y, _ = selective_scan([direction], delta_softplus=True)
        y = depthwise_conv(y, torch.randn(64, 5))
    y.sum().backward()

def threads():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(int(sys.argv[1]))
for _ in range(3):
    work(torch_only=True)
before = threads()
for _ in range(3):
    work(torch_only=False)
print(threads() - before)
"""

IN_WORKERS = """
import os, torch
from espnet_mlma.scan import Direction, selective_scan

def scan(x):
    selective_scan([Direction(x, x, -torch.rand(64, 4), x[..., :4], x[..., :4])])

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, i):
        before = len(os.listdir("/proc/self/task"))
        scan(torch.rand(2, 200, 64))
        return len(os.listdir("/proc/self/task")) - before

torch.set_num_threads(4)
scan(torch.rand(4, 200, 64))  # the pool exists before the fork
print(*(int(n) for n in torch.utils.data.DataLoader(Data(), num_workers=2)))
"""


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_no_threads_beyond_those_of_torch(threads):
    assert run(COUNT, threads) == ["0"]


def test_one_thread_in_each_data_worker():
    assert run(IN_WORKERS) == ["0", "0"]
