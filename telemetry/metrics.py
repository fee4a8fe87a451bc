"""Reading a process's own counters, so that another process can show them."""

from prometheus_client import REGISTRY, CollectorRegistry

# Python's own collectors describe the process, not the service.
FOREIGN = ("python_", "process_")


def snapshot(registry: CollectorRegistry = REGISTRY) -> dict[str, float]:
    """Every sample of this project's metrics by its Prometheus name and labels, `name{label="value"}`.

    `_created` samples are left out: they are times, not counts.
    """
    return {
        _series(sample.name, sample.labels): sample.value
        for family in registry.collect()
        if not family.name.startswith(FOREIGN)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def _series(name: str, labels: dict[str, str]) -> str:
    pairs = ",".join(f'{key}="{_escape(value)}"' for key, value in sorted(labels.items()))
    return f"{name}{{{pairs}}}" if pairs else name


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
