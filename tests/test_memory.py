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


def test_freed_memory_is_used_again():
    out = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    kept, before, after = map(int, out.stdout.split())
    assert kept
    assert after < before / 100
