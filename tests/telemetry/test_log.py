"""Log lines: one an event, fields behind the message."""

import logging

import pytest

from telemetry.log import PairsFormatter, configure


def test_fields_follow_the_message() -> None:
    """What is given as extra stands behind the message as key=value."""
    record = logging.makeLogRecord({"msg": "served", "levelname": "INFO", "images": 3, "model": "a b"})
    line = PairsFormatter("vision").format(record)
    assert line.endswith("INFO vision served images=3 model='a b'")


def test_a_traceback_stays_below_its_line() -> None:
    """Fields stand on the first line of a record that has a traceback."""
    with pytest.raises(ValueError, match="broken") as caught:
        int("broken")
    traceback = (caught.type, caught.value, caught.tb)
    record = logging.makeLogRecord({"msg": "failed", "exc_info": traceback, "step": 4})
    first, *rest = PairsFormatter("language").format(record).splitlines()
    assert first.endswith("failed step=4")
    assert rest[-1].startswith("ValueError: ")


def test_an_unknown_level_is_named() -> None:
    """A level that does not exist stops the process with its name."""
    with pytest.raises(ValueError, match="loud"):
        configure("vision", "loud")
