"""What stops a benchmark.

BenchmarkError
├── UnknownName     no workload, system or recipe is called so
├── SystemFailed    a system did not start, ended, or answered with an error
├── NoDevice        the device that was asked for is not there
└── NoVllm          vLLM's environment is not there, or cannot be made
"""


class BenchmarkError(Exception):
    """A benchmark cannot go on; the message says why."""


class UnknownName(BenchmarkError):
    """A name that nothing has."""


class SystemFailed(BenchmarkError):
    """A measured system did not do its work."""


class NoDevice(BenchmarkError):
    """A benchmark of a device needs the device."""


class NoNamespaces(BenchmarkError):
    """Network namespaces need Linux, root and iproute2."""


class NoVllm(BenchmarkError):
    """`make bench-vllm` is needed, or did not work."""
