"""How a process that runs a model holds memory and threads."""

import ctypes
import os

import torch

# glibc's mallopt parameters (malloc.h).
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_THRESHOLD = -3
_ARENA_MAX = -8
_MIB = 1 << 20


def return_freed_memory() -> bool:
    """Has glibc give every large block back as soon as it is freed; whether it could be told.

    For loading: a weight and its packed form differ a little in size, so that in a heap neither would ever fit where
    the other was, and both would stay. Call it before any thread is started.
    """
    return _tell({_ARENA_MAX: 1, _MMAP_THRESHOLD: _MIB // 8})


def keep_freed_memory() -> bool:
    """Lets glibc keep what is freed for the next layer, which wants the same sizes again; whether it could be told.

    By default every large tensor is mapped anew and its pages are zeroed by the kernel at first touch, which in a
    forward pass costs up to as much as the arithmetic on them.
    """
    # 32 MiB is the largest threshold that glibc takes; blocks beyond it are mapped one by one.
    return _tell({_MMAP_THRESHOLD: 32 * _MIB, _TRIM_THRESHOLD: 1024 * _MIB, _TOP_PAD: 16 * _MIB})


def _tell(wanted: dict[int, int]) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        # Another C library, which has ways of its own.
        return False
    told = [mallopt(parameter, value) == 1 for parameter, value in wanted.items()]
    return all(told)


def leave_threads_to_the_model(threads: int | None) -> int:
    """Makes torch single-threaded in this thread; returns the threads that the model's own thread shall set.

    Each thread that enters a parallel region has a pool of its own, and as soon as the pools together have more
    threads than the machine has cores, libgomp lets idle ones sleep at once instead of waiting a moment: every operator
    of a decoding step then begins with a wake-up, which made such steps half again as long.

    Args:
        threads: What the settings say; None for as many as torch would take.
    """
    wanted = threads or torch.get_num_threads() or os.cpu_count() or 1
    torch.set_num_threads(1)
    return wanted
