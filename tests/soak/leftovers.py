"""What a process has in use, and whether it is back to what it was."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psutil

from tests.deployment import Deployment

MIB = 1 << 20
# The allocator keeps what was used at the worst moment, which takes a minute of load to come.
SPARE_BYTES = 96 * MIB
SPARE_COLD_BYTES = 384 * MIB
# Connections that are kept open, and threads that Python's pools start as they are needed.
SPARE_DESCRIPTORS = 24
SPARE_THREADS = 12


@dataclass(frozen=True, slots=True)
class InUse:
    """What one idle process has in use. `kv_bytes` is 0 for all but language workers."""

    resident_bytes: int
    descriptors: int
    threads: int
    kv_bytes: int = 0


def in_use(deployment: Deployment) -> dict[str, InUse]:
    """Each process by its name. All of them must run."""
    kv = {
        process.name: deployment.language_info(place).kv_bytes_used for place, process in enumerate(deployment.language)
    }
    return {process.name: _of(process.running.pid, kv.get(process.name, 0)) for process in deployment.processes}


def _of(pid: int, kv_bytes: int) -> InUse:
    process = psutil.Process(pid)
    with process.oneshot():
        return InUse(process.memory_info().rss, process.num_fds(), process.num_threads(), kv_bytes)


def breaches(before: Mapping[str, InUse], after: Mapping[str, InUse], spare_bytes: int) -> Iterator[str]:
    """What has not come back, in words; so much more resident memory is no sign of anything."""
    for name, now in after.items():
        then = before[name]
        for what, was, has, spare in (
            ("bytes of memory", then.resident_bytes, now.resident_bytes, spare_bytes),
            ("descriptors", then.descriptors, now.descriptors, SPARE_DESCRIPTORS),
            ("threads", then.threads, now.threads, SPARE_THREADS),
            ("bytes of keys and values", then.kv_bytes, now.kv_bytes, 0),
        ):
            if has > was + spare:
                yield f"{name} has {has} {what} in use, {was} before"
