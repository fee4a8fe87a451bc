"""How one setting's text is read, and how its value is shown. Pure."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from rpc.member_file import PREFIX, is_file
from rpc.names import PREFIX as DNS
from rpc.names import is_name

UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", start=1):
    UNITS |= {_letter: 1000**_power, f"{_letter}B": 1000**_power, f"{_letter}IB": 1024**_power}
SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[A-Za-z]*)")
ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s\[\]:,/]+):\d{1,5}")
# The last part has letters, which tells a name from an address.
DOMAIN = re.compile(r"(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z](?:[a-z0-9-]*[a-z0-9])?(?::\d{1,5})?")
LOG_LEVELS = ("debug", "info", "warning", "error")
ENGINES = ("builtin", "vllm")
DTYPES = ("auto", "float32", "bfloat16", "float16")
CODECS = ("none", "zstd")
MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of setting.

    Attributes:
        metavar: What stands for the value in --help.
        read: Text → value. Raises `typer.BadParameter`, whose message says what would be right.
        show: Value → text that `read` takes.
    """

    metavar: str
    read: Callable[[str], Any]
    show: Callable[[Any], str] = str


def read_size(text: str) -> int:
    """Bytes: a plain number, or one with a unit: 512MiB, 1.5GiB, 1GB, 64K."""
    match = SIZE.fullmatch(text.strip())
    scale = UNITS.get(match["unit"].upper()) if match else None
    if match is None or scale is None:
        raise typer.BadParameter(f"{text!r} is not a size: write bytes, or a number with a unit, like 512MiB or 1GB")
    return round(float(match["number"]) * scale) if "." in match["number"] else int(match["number"]) * scale


def show_size(num_bytes: int) -> str:
    """The shortest exact form: 20MiB, 1GiB, 1000."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        count, rest = divmod(num_bytes, UNITS[unit.upper()])
        if count and not rest:
            return f"{count}{unit}"
    return str(num_bytes)


def read_seconds(text: str) -> float:
    """A finite number of seconds, not negative."""
    return _read_finite(text, text.strip().removesuffix("s"), "a number of seconds")


def _read_finite(text: str, digits: str, what: str) -> float:
    try:
        number = float(digits)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise typer.BadParameter(f"{text!r} is not {what}")
    return number


def show_seconds(seconds: float) -> str:
    """Without a decimal point where none is needed."""
    return f"{seconds:.15g}"


def read_number(text: str) -> float:
    """A finite number, not negative; parts of one are fine."""
    return _read_finite(text, text, "a number from 0")


def read_count(text: str) -> int:
    """A whole number from 1."""
    return _read_whole(text, 1, None)


def read_amount(text: str) -> int:
    """A whole number from 0."""
    return _read_whole(text, 0, None)


def read_port(text: str) -> int:
    """A TCP port; 0 stands for any free one."""
    return _read_whole(text, 0, MAX_PORT)


def _read_whole(text: str, least: int, most: int | None) -> int:
    number = int(text) if text.isascii() and text.isdigit() else -1
    if number < least or (most is not None and number > most):
        bounds = f"from {least} to {most}" if most is not None else f"from {least}"
        raise typer.BadParameter(f"{text!r} is not a whole number {bounds}")
    return number


def read_address(text: str) -> str:
    """`host:port`; an IPv6 address in brackets."""
    text = text.strip()
    if not ADDRESS.fullmatch(text) or int(text.rpartition(":")[2]) > MAX_PORT:
        raise typer.BadParameter(f"{text!r} is not an address: write HOST:PORT")
    return text


def read_worker(text: str) -> str:
    """`host:port`, `dns:host:port` for every address that a name has, `file:path` for those that a file lists."""
    text = text.strip()
    if is_file(text) and text != PREFIX:
        return text
    if not is_name(text):
        return read_address(text)
    address = text.removeprefix(DNS)
    if not ADDRESS.fullmatch(address) or address.startswith("[") or int(address.rpartition(":")[2]) > MAX_PORT:
        raise typer.BadParameter(f"{text!r} is not the address of a name: write dns:HOST:PORT")
    return text


def read_addresses(text: str) -> tuple[str, ...]:
    """Addresses of workers with commas between them, each once."""
    addresses = tuple(read_worker(part) for part in text.split(","))
    if len(set(addresses)) != len(addresses):
        raise typer.BadParameter(f"{text!r} has an address twice")
    return addresses


def show_addresses(addresses: Sequence[str]) -> str:
    """The same with commas."""
    return ",".join(addresses)


def read_domains(text: str) -> tuple[str, ...]:
    """Names of domains with commas between them, or `*.` and a name; a port may follow."""
    domains = tuple(part.strip().lower().rstrip(".") for part in text.split(",")) if text.strip() else ()
    for domain in domains:
        if not DOMAIN.fullmatch(domain):
            raise typer.BadParameter(
                f"{domain!r} is not a domain: write example.org, *.example.org or example.org:8443"
            )
    return domains


def read_loras(text: str) -> tuple[str, ...]:
    """`NAME=PATH` with commas between them, each name once."""
    loras = tuple(part.strip() for part in text.split(",")) if text.strip() else ()
    names = [lora.partition("=")[0] for lora in loras]
    if not all(name and path for name, _, path in (lora.partition("=") for lora in loras)):
        raise typer.BadParameter(f"{text!r} is not NAME=PATH[,…]")
    if len(set(names)) != len(names):
        raise typer.BadParameter(f"{text!r} has a name twice")
    return loras


def read_directories(text: str) -> tuple[str, ...]:
    """Absolute paths with commas between them."""
    paths = tuple(part.strip() for part in text.split(",")) if text.strip() else ()
    if not all(path.startswith("/") for path in paths):
        raise typer.BadParameter(f"{text!r} is not a list of absolute paths")
    return paths


def read_text(text: str) -> str:
    """Any text but none."""
    if not text:
        raise typer.BadParameter("it is empty")
    return text


def one_of(words: Sequence[str]) -> Callable[[str], str]:
    """A reader that takes these words alone."""

    def read(text: str) -> str:
        if text.lower() not in words:
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(words)}")
        return text.lower()

    return read


SIZES = Kind("SIZE", read_size, show_size)
SECONDS = Kind("SECONDS", read_seconds, show_seconds)
COUNT = Kind("N", read_count)
NUMBER = Kind("X", read_number, show_seconds)
AMOUNT = Kind("N", read_amount)
PORT = Kind("PORT", read_port)
HOST_PORT = Kind("HOST:PORT", read_address)
DOMAINS = Kind("DOMAIN[,…]", read_domains, show_addresses)
HOST_PORTS = Kind("HOST:PORT[,…]", read_addresses, show_addresses)
LORAS = Kind("NAME=PATH[,…]", read_loras, show_addresses)
DIRECTORIES = Kind("DIR[,…]", read_directories, show_addresses)
TEXT = Kind("TEXT", read_text)
URL = Kind("URL", read_text)
FILE = Kind("PATH", read_text)
LOG_LEVEL = Kind("LEVEL", one_of(LOG_LEVELS))
DTYPE = Kind("DTYPE", one_of(DTYPES))
CODEC = Kind("CODEC", one_of(CODECS))
ENGINE = Kind("ENGINE", one_of(ENGINES))
JSON = Kind("JSON", read_text)
