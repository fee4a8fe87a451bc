"""Lines that child processes write."""

from lookonce.log_lines import LogLine, read_line


def test_a_structured_line_loses_what_the_launcher_shows_itself() -> None:
    """Time, level and process are taken off."""
    line = "2026-01-02T03:04:05 WARNING vision vision worker lost reason='UNAVAILABLE'"
    assert read_line(line, "info") == LogLine("warning", "vision worker lost reason='UNAVAILABLE'")


def test_other_lines_belong_to_the_level_that_is_given() -> None:
    """A traceback's lines are kept whole."""
    assert read_line("  File 'x', line 1", "error") == LogLine("error", "  File 'x', line 1")


def test_levels_are_ordered() -> None:
    """A line is shown from its level downwards."""
    line = LogLine("warning", "")
    assert [line.is_at_least(level) for level in ("debug", "info", "warning", "error")] == [True, True, True, False]
