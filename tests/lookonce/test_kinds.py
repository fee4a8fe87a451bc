"""How settings are read from text and shown."""

import pytest
import typer

from lookonce import kinds


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("0", 0),
        ("1000", 1000),
        ("512MiB", 512 << 20),
        ("1GB", 10**9),
        ("1.5 GiB", 3 << 29),
        ("64k", 64_000),
        ("2TiB", 2 << 40),
        ("7B", 7),
    ],
)
def test_sizes_take_decimal_and_binary_units(text: str, num_bytes: int) -> None:
    """A size is bytes, or a number with a decimal or a binary unit."""
    assert kinds.read_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "-1", "12x", "MiB", "1e9", "1 G B", "nan"])
def test_a_bad_size_says_what_would_be_right(text: str) -> None:
    """A text that is no size is refused with an example of one."""
    with pytest.raises(typer.BadParameter, match="512MiB"):
        kinds.read_size(text)


@pytest.mark.parametrize("num_bytes", [0, 1, 1000, 1024, 20 << 20, 1 << 30, 3 << 29, 10**9, 5 << 40])
def test_a_size_that_is_shown_can_be_read(num_bytes: int) -> None:
    """The shown form of a size is exact."""
    assert kinds.read_size(kinds.show_size(num_bytes)) == num_bytes


def test_sizes_are_shown_in_the_largest_exact_unit() -> None:
    """Round sizes are short."""
    assert [kinds.show_size(size) for size in (20 << 20, 1 << 30, 1000)] == ["20MiB", "1GiB", "1000"]


@pytest.mark.parametrize(("text", "seconds"), [("5", 5.0), ("0.25", 0.25), ("20s", 20.0), ("0", 0.0)])
def test_seconds_are_read(text: str, seconds: float) -> None:
    """Seconds may carry their unit."""
    assert kinds.read_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "soon", "1m"])
def test_seconds_that_are_no_time_are_refused(text: str) -> None:
    """NaN, infinity and negative numbers are no durations."""
    with pytest.raises(typer.BadParameter, match="not a number of seconds"):
        kinds.read_seconds(text)


@pytest.mark.parametrize("text", ["0", "-3", "1.5", "x", "", "²"])
def test_a_count_is_a_whole_number_from_one(text: str) -> None:
    """Zero, fractions and other signs are refused."""
    with pytest.raises(typer.BadParameter, match="whole number from 1"):
        kinds.read_count(text)


@pytest.mark.parametrize("text", ["65536", "-1", "http"])
def test_a_port_is_a_port(text: str) -> None:
    """Numbers that TCP does not have are refused."""
    with pytest.raises(typer.BadParameter, match="65535"):
        kinds.read_port(text)


def test_addresses_are_separated_by_commas() -> None:
    """Several addresses make a tuple, spaces around them left out."""
    assert kinds.read_addresses("a:1, 10.0.0.1:65535,[::1]:3") == ("a:1", "10.0.0.1:65535", "[::1]:3")
    assert kinds.show_addresses(("a:1", "b:2")) == "a:1,b:2"


def test_names_stand_among_addresses() -> None:
    """`dns:HOST:PORT` is taken where workers are named, and not where one listens."""
    assert kinds.read_addresses("dns:v.internal:7, a:1") == ("dns:v.internal:7", "a:1")
    with pytest.raises(typer.BadParameter, match="HOST:PORT"):
        kinds.read_address("dns:v.internal:7")


@pytest.mark.parametrize("text", ["dns:", "dns:host", "dns::7", "dns:host:99999", "dns:[::1]:7", "dns://host:7"])
def test_a_bad_name_is_refused(text: str) -> None:
    """What is not dns:HOST:PORT is told so."""
    with pytest.raises(typer.BadParameter, match="dns:HOST:PORT"):
        kinds.read_addresses(text)


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "a:1,", "a:99999", "http://a:1", "a b:1", "::1:5"])
def test_a_bad_address_is_refused(text: str) -> None:
    """What is not HOST:PORT is told so."""
    with pytest.raises(typer.BadParameter, match="HOST:PORT"):
        kinds.read_addresses(text)


def test_an_address_twice_is_a_mistake() -> None:
    """The same worker twice would get twice its share."""
    with pytest.raises(typer.BadParameter, match="twice"):
        kinds.read_addresses("a:1,b:2,a:1")


def test_words_are_taken_in_any_case() -> None:
    """A log level may be written in capitals; an unknown word is refused with the known ones."""
    assert kinds.LOG_LEVEL.read("WARNING") == "warning"
    with pytest.raises(typer.BadParameter, match="debug, info, warning, error"):
        kinds.LOG_LEVEL.read("loud")
