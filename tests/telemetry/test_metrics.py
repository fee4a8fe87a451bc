"""A process's counters as another process reads them."""

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families

from telemetry.metrics import snapshot


def test_a_snapshot_has_every_sample_by_its_series() -> None:
    """Names and labels are written as Prometheus writes them, awkward values escaped; creation times are left out."""
    registry = CollectorRegistry()
    Counter("lookonce_things_total", "Things.", ["kind"], registry=registry).labels('a"b\\c\nd').inc(3)
    Gauge("lookonce_level", "Level.", registry=registry).set(2.5)
    taken = snapshot(registry)
    assert taken["lookonce_level"] == 2.5
    assert len(taken) == 2
    line = next(series for series in taken if "things" in series)
    (family,) = text_string_to_metric_families(f"{line} 3.0\n")
    assert family.samples[0].labels == {"kind": 'a"b\\c\nd'}
