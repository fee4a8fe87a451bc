"""Numbers as people read them."""

import pytest

from lookonce import amounts


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (5_088_768, "5.1 MB"), (128_000, "128 kB"), (3e9, "3.0 GB"), (4e15, "4000.0 TB")],
)
def test_bytes(num_bytes: float, text: str) -> None:
    """Bytes are shown in decimal units."""
    assert amounts.bytes_text(num_bytes) == text


@pytest.mark.parametrize(("count", "text"), [(12, "12"), (854_144, "854 k"), (7_615_616_512, "7.6 B")])
def test_counts(count: float, text: str) -> None:
    """Parameters are counted in thousands, millions and billions."""
    assert amounts.count_text(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.0123, "12 ms"), (3.44, "3.4 s"), (75.2, "75 s")])
def test_seconds(seconds: float, text: str) -> None:
    """Durations have about two digits that matter."""
    assert amounts.seconds_text(seconds) == text


def test_shares_and_nouns() -> None:
    """Nothing of nothing is 0 %; one is not many."""
    assert amounts.percent_text(1, 3) == "33 %"
    assert amounts.percent_text(0, 0) == "0 %"
    assert [amounts.counted(count, "image") for count in (0, 1, 1200)] == ["0 images", "1 image", "1,200 images"]
