"""What a model's process does with memory and threads."""

import platform
import resource
import subprocess
import sys

import pytest

PROBE = """
import os, threading, torch
from kernels import leave_threads_to_the_model
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
print(wanted, torch.get_num_threads(), pools[0])
"""


def test_only_the_model_s_thread_has_a_pool() -> None:
    """Work in the main thread starts no other; the model's thread and its one helper are all there are."""
    found = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True).stdout.split()
    assert found == ["2", "1", "2"]


MEMORY = """
import resource, torch
from kernels import keep_freed_memory, return_freed_memory
torch.set_num_threads(1)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(4 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(return_freed_memory(), faults(), keep_freed_memory(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_freed_memory_is_given_back_while_loading_and_kept_afterwards() -> None:
    """Twenty tensors of 16 MiB in turn: all their pages are new ones at first, and then those of a few."""
    found = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout.split()
    pages = (16 << 20) // resource.getpagesize()
    assert found[0] == found[2] == "True"
    assert int(found[1]) > 15 * pages
    assert int(found[3]) < 8 * pages
