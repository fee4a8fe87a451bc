"""A bar on a terminal, lines elsewhere."""

import io
import logging

import pytest
from rich.console import Console

from hub.progress import Lines, meter_for


def test_a_terminal_has_a_bar() -> None:
    """With how much of how much."""
    text = io.StringIO()
    with meter_for(Console(file=text, force_terminal=True, width=120))("org/name", 4 << 20) as meter:
        meter.advance(4 << 20)
    assert "org/name" in text.getvalue()
    assert "4.0/4.0 MiB" in text.getvalue()


def test_a_file_has_lines(caplog: pytest.LogCaptureFixture) -> None:
    """One at the beginning, one at the end."""
    with caplog.at_level(logging.INFO), meter_for(Console(file=io.StringIO()))("org/name", 10) as meter:
        meter.advance(10)
    assert [record.bytes for record in caplog.records] == [0, 10]  # type: ignore[attr-defined]


def test_lines_are_seconds_apart(caplog: pytest.LogCaptureFixture) -> None:
    """However many pieces come."""
    now = [0.0]
    lines = Lines("org/name", 1000, clock=lambda: now[0])
    with caplog.at_level(logging.INFO):
        for _ in range(120):
            now[0] += 0.1
            lines.advance(1)
    assert len(caplog.records) == 2
    assert caplog.records[0].bytes_per_s == 10  # type: ignore[attr-defined]
