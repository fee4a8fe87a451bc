"""Settings classes as command line options and environment variables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gateway.settings import GatewaySettings, Limits
from lm_server.settings import LanguageSettings
from lookonce.models import DEMO_DIR
from lookonce.options import build, flags, plain_values, settings_of, with_parameters
from vision_server.settings import VisionSettings

WIDE = {"COLUMNS": "400", "TERM": "dumb"}


@dataclass(frozen=True, slots=True)
class Inner:
    """Settings inside settings."""

    # Items of one thing.
    items: int = 3


@dataclass(frozen=True, slots=True)
class Outer:
    """Settings of a test."""

    # Where others are.
    peers: tuple[str, ...]
    # Memory; None is none.
    kept_bytes: int | None = None
    wait_s: float = 2.5
    log_level: str = "info"
    limits: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.wait_s > 100:
            raise ValueError("wait_s must be at most 100")


def run(*arguments: str, **environment: str) -> tuple[int, str, Outer | None]:
    """Exit status, output, and the settings that a command of `Outer` was called with."""
    seen: list[Outer] = []

    def command(values: Mapping[str, Any]) -> None:
        seen.append(build(Outer, values))

    app = typer.Typer()
    parameters = [setting.parameter() for setting in settings_of(Outer)]
    app.command()(with_parameters(command, parameters, name="outer", doc="A test."))
    result = CliRunner().invoke(app, list(arguments), env=WIDE | environment)
    return result.exit_code, result.output, seen[0] if seen else None


def test_flags_and_variables_fill_the_same_fields() -> None:
    """A value may come from either; the flag goes first; what nobody says stays as declared."""
    assert run("--peers", "a:1,b:2")[2] == Outer(("a:1", "b:2"))
    code, _, seen = run("--kept-bytes", "1KiB", LOOKONCE_PEERS="c:3", LOOKONCE_KEPT_BYTES="2KiB", LOOKONCE_WAIT_S="7")
    assert (code, seen) == (0, Outer(("c:3",), kept_bytes=1024, wait_s=7.0))


def test_settings_inside_settings_are_flags_with_their_name() -> None:
    """`limits.items` is --limit-items."""
    assert run("--peers", "a:1", "--limit-items", "9")[2] == Outer(("a:1",), limits=Inner(9))


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"LOOKONCE_KEPT_BYTES": "lots"}, "LOOKONCE_KEPT_BYTES"),
        ({"LOOKONCE_WAIT_S": "nan"}, "LOOKONCE_WAIT_S"),
        ({"LOOKONCE_LIMIT_ITEMS": "0"}, "LOOKONCE_LIMIT_ITEMS"),
        ({"LOOKONCE_LOG_LEVEL": "loud"}, "LOOKONCE_LOG_LEVEL"),
        ({"LOOKONCE_PEERS": "here"}, "--peers"),
        ({"LOOKONCE_WAIT_S": "101"}, "wait_s must be at most 100"),
    ],
)
def test_a_variable_that_cannot_be_read_stops_and_is_named(environment: dict[str, str], named: str) -> None:
    """A bad value ends the command with status 2, saying which setting it is."""
    code, output, seen = run(*([] if "LOOKONCE_PEERS" in environment else ["--peers", "a:1"]), **environment)
    assert (code, seen) == (2, None)
    assert named in output


def test_drafting_can_be_said_to_be_off() -> None:
    """--draft-tokens takes 0, which it is by default, and nothing below."""
    [setting] = [setting for setting in settings_of(LanguageSettings) if setting.name == "draft_tokens"]
    assert (setting.default, setting.read("0"), setting.read("8")) == (0, 0, 8)
    with pytest.raises(typer.BadParameter, match="LOOKONCE_DRAFT_TOKENS"):
        setting.read("-1")


def test_help_tells_each_field_in_its_own_words() -> None:
    """--help shows the comment of a field and its default in a readable form; None is called unset."""
    output = run("--help")[1]
    assert "Where others are." in output
    assert "Memory; unset is none." in output
    assert "2.5" in output


VISION = VisionSettings(
    model=str(DEMO_DIR),
    listen="127.0.0.1:1",
    cache="redis://x",
    max_image_tokens=64,
    grace_s=0.5,
    entry_compression="zstd",
)
LANGUAGE = LanguageSettings(
    model=str(DEMO_DIR),
    listen="127.0.0.1:2",
    cache="memory://",
    vision=("a:1", "b:2"),
    device_map="auto",
    kv_bytes=1 << 29,
    kv_host_bytes=3 << 28,
    kv_disk_dir="somewhere",
    draft_tokens=4,
    lora=("a=/x", "b=/y"),
    lora_dirs=("/x", "/y"),
)
GATEWAY = GatewaySettings(vision=("a:1",), language=("b:2",), port=0, limits=Limits(images=2, body_bytes=1000))


@pytest.mark.parametrize("settings", [VISION, LANGUAGE, GATEWAY])
def test_the_command_line_of_settings_makes_them_again(settings: object) -> None:
    """Every process's settings survive the way over a command line."""
    settings_type, seen = type(settings), []
    app = typer.Typer()
    parameters = [setting.parameter() for setting in settings_of(settings_type)]
    app.command()(
        with_parameters(lambda values: seen.append(build(settings_type, values)), parameters, name="x", doc="A test.")
    )
    result = CliRunner().invoke(app, flags(settings), env=WIDE)
    assert result.exit_code == 0, result.output
    assert seen == [settings]


def test_what_is_left_out_is_not_on_the_command_line() -> None:
    """A setting that others must not read is kept from the command line."""
    assert "redis://x" not in flags(VISION, without=("cache",))
    assert "--dtype" not in flags(VISION)


@pytest.mark.parametrize("settings_type", [VisionSettings, LanguageSettings])
def test_a_plain_command_line_is_read_as_typer_reads_it(settings_type: type) -> None:
    """Flags before variables, the last of two flags, variables that are empty, defaults: the same values both ways."""
    model = str(DEMO_DIR)
    words = ["--model", model, "--listen", "h:1", "--listen", "h:2", "--cache", "memory://", "--threads", "3"]
    words += ["--vision", "a:1,b:2"] if settings_type is LanguageSettings else []
    environment = {"LOOKONCE_CACHE": "redis://h", "LOOKONCE_MAX_ENTRY_BYTES": "1MiB", "LOOKONCE_THREADS": "2"}
    environment["LOOKONCE_LOG_LEVEL"] = ""
    found: list[Mapping[str, Any]] = []
    app = typer.Typer()
    parameters = [setting.parameter() for setting in settings_of(settings_type)]
    app.command()(with_parameters(found.append, parameters, name="run", doc="Runs."))
    result = CliRunner().invoke(app, words, env=environment)
    assert result.exit_code == 0, result.output
    assert plain_values(settings_type, words, environment) == found[0]


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--nothing", "1"], ["--model=demo"], ["--model", "--listen"], ["model", "demo"], ["--model", "demo"]],
)
def test_any_other_command_line_is_not_plain(words: list[str]) -> None:
    """Help, unknown flags, other forms and what is missing are left to typer."""
    assert plain_values(VisionSettings, words, {}) is None
