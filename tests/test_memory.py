import subprocess
import sys

CODE = """
import resource, torch
from espnet_mlma.memory import keep_freed_memory

def faults_of_a_second_tensor():  # a little smaller, for alignment costs a few bytes
    torch.ones(30_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(29_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
given_back = faults_of_a_second_tensor()
print(int(keep_freed_memory()), given_back, faults_of_a_second_tensor())
"""

FORK = """
import os, torch
from espnet_mlma.memory import keep_freed_memory

def resident():  # kB; without files, which a child maps when it reads them
    return next(line.split()[1] for line in open("/proc/self/status") if "RssAnon" in line)

torch.set_num_threads(1)
keep_freed_memory()
keep_freed_memory()
kept = torch.ones(10_000_000)
torch.ones(50_000_000)
print(resident(), flush=True)
child = os.fork()
if child:
    os.waitpid(child, 0)
    torch.ones(10_000_000)  # is there
else:
    print(resident(), flush=True)
"""


def test_freed_memory_is_used_again():
    out = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    kept, before, after = map(int, out.stdout.split())
    assert kept
    assert after < before / 100


def test_a_child_does_not_hold_what_its_parent_has_freed():
    out = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True)
    parent, child = map(int, out.stdout.split())
    assert parent - child > 180e3  # of the 200 MB that were free
