"""Said before any test module loads torch, and which of them are loaded at all."""

from pathlib import Path

import pytest

from lookonce.barriers import spin_briefly

# Whatever else runs on the machine: a test shall not take ten times as long for it.
spin_briefly()

ALONE = "alone"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only those that have to be alone are asked for, files that have none are not imported: it takes long."""
    if config.option.markexpr != ALONE or not collection_path.name.startswith("test_"):
        return None
    return True if f"mark.{ALONE}" not in collection_path.read_text() else None
