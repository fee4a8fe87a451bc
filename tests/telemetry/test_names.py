"""Code, documentation and dashboard name the same metrics."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

import cache.metrics
import lm_server.metrics
import vision_server.metrics
from gateway.metrics import PROMISED, Metrics, worker_text

ROOT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"\blookonce_[a-z0-9_]+\b")
ENDS = re.compile(r"_(bucket|sum|count)$")
COLUMNS = 4  # metric, kind, meaning, vLLM's name
COUNTED = (cache.metrics, lm_server.metrics, vision_server.metrics)


def name_of(family: Metric) -> str:
    """As it is written in a query, without what a histogram's series add."""
    return f"{family.name}_total" if family.type == "counter" else family.name


@pytest.fixture(scope="module")
def in_code() -> set[str]:
    assert all(module.__name__ for module in COUNTED)
    workers = {name_of(family) for family in REGISTRY.collect() if family.name.startswith("lookonce_")}
    own = {name_of(family) for family in text_string_to_metric_families(Metrics().text())}
    return workers | own | {"lookonce_worker_up"}


def test_the_documentation_has_a_line_for_each_metric(in_code: set[str]) -> None:
    """None is missing, and none is invented."""
    text = (ROOT / "docs" / "observability.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| `lookonce_") and line.count("|") == COLUMNS + 1]
    assert {NAME.findall(line)[0] for line in lines} == in_code
    assert len(lines) == len(in_code)


def test_the_dashboard_asks_for_metrics_that_there_are(in_code: set[str]) -> None:
    """Every query of every panel, and each panel has one."""
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "lookonce.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    for panel in panels:
        asked = {ENDS.sub("", name) for target in panel["targets"] for name in NAME.findall(target["expr"])}
        assert asked, panel["title"]
        assert asked <= in_code, panel["title"]


def test_top_reads_metrics_that_there_are(in_code: set[str]) -> None:
    """Its frame names them in the same words."""
    named = set(NAME.findall((ROOT / "lookonce" / "top" / "frame.py").read_text()))
    assert named
    assert {ENDS.sub("", name) for name in named} <= in_code


def test_what_the_gateway_promises_is_counted(in_code: set[str]) -> None:
    """And it shows the workers' metrics under the names that they have there."""
    assert set(PROMISED) <= in_code
    shown = worker_text({"w:1": {"lookonce_encode_seconds_count": 1.0}}, {"w:1": ("vision", True)})
    assert 'lookonce_encode_seconds_count{worker="w:1"} 1.0' in shown


def test_every_metric_says_what_it_is() -> None:
    """A sentence each, units where they are not in the name."""
    registry: CollectorRegistry = REGISTRY
    assert all(family.documentation.endswith(".") for family in registry.collect() if "lookonce" in family.name)
