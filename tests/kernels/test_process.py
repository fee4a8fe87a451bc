"""What a model's process does with memory and threads."""

import subprocess
import sys

PROBE = """
import os, threading, torch
from kernels import keep_freed_memory, leave_threads_to_the_model
told = keep_freed_memory()
wanted = leave_threads_to_the_model(2)
torch.randn(2000, 2000).exp_().sum()
before = len(os.listdir("/proc/self/task"))
pools = []
def model():
    torch.set_num_threads(wanted)
    torch.randn(2000, 2000).exp_().sum()
    pools.append(len(os.listdir("/proc/self/task")) - before)
thread = threading.Thread(target=model)
thread.start(); thread.join()
print(told, wanted, torch.get_num_threads(), pools[0])
"""


def test_only_the_model_s_thread_has_a_pool() -> None:
    """Work in the main thread starts no other; the model's thread and its one helper are all there are."""
    found = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True).stdout.split()
    assert found[0] in ("True", "False")
    assert found[1:] == ["2", "1", "2"]
