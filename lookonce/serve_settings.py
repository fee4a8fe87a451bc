"""What `lookonce serve` is told: the settings of every process of a deployment, from one command line."""

import dataclasses
import inspect
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import typer

from gateway.settings import GatewaySettings
from lm_server.settings import LanguageSettings
from lookonce import embedded, kinds
from lookonce.errors import PortTaken
from lookonce.options import Setting, build, settings_of
from vision_server.settings import VisionSettings

LOOPBACK = "127.0.0.1"
GIB = 1 << 30
# Where a launcher itself tells who the workers are.
LOOK_S = 0.5
PARTS: Mapping[str, type] = {
    "Vision worker": VisionSettings,
    "Language worker": LanguageSettings,
    "Gateway": GatewaySettings,
}
SEVERAL = "Several processes"
# Addresses that the launcher itself decides.
DECIDED = frozenset({"listen", "metrics_listen", "vision", "language"})
# Shown first, without a panel.
MAIN = frozenset({"model", "cache", "cache_bytes", "host", "port", "log_level"})


def _read_store_size(text: str) -> int:
    size = kinds.read_size(text)
    if size < embedded.MIN_BYTES:
        raise typer.BadParameter(f"{text!r} is too small a store: give at least {kinds.show_size(embedded.MIN_BYTES)}")
    return size


CACHE_BYTES = Setting(
    ("cache_bytes",),
    "cache_bytes",
    dataclasses.replace(kinds.SIZES, read=_read_store_size),
    GIB,
    "Memory of the embedded store, which is used where no --cache is given. The least used images go first.",
)


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """A deployment on this machine.

    Attributes:
        vision: The vision worker's settings. `cache` is "" where the store is embedded.
        language: The language worker's, likewise.
        gateway: The gateway's. Its port is never 0.
        cache_bytes: Memory of the embedded store; None where there is none.
        log_level: From which level the processes' log lines are shown.
    """

    vision: VisionSettings
    language: LanguageSettings
    gateway: GatewaySettings
    cache_bytes: int | None
    log_level: str

    def with_store(self, url: str) -> "ServeSettings":
        """The same with workers that use the store there."""
        return dataclasses.replace(
            self,
            vision=dataclasses.replace(self.vision, cache=url),
            language=dataclasses.replace(self.language, cache=url),
        )

    def gateway_of(self, vision: str, language: str) -> GatewaySettings:
        """The gateway's settings with workers there, which are looked up often."""
        routing = dataclasses.replace(self.gateway.routing, resolve_s=min(self.gateway.routing.resolve_s, LOOK_S))
        return dataclasses.replace(self.gateway, vision=(vision,), language=(language,), routing=routing)

    def with_turns(self, path: str) -> "ServeSettings":
        """The same with workers that take turns through a file there, unless they were told another."""
        return dataclasses.replace(
            self,
            vision=dataclasses.replace(self.vision, turns=self.vision.turns or path),
            language=dataclasses.replace(self.language, turns=self.language.turns or path),
        )


def serve_options() -> tuple[tuple[Setting, str | None], ...]:
    """Every setting of every process, once, with the panel of --help where it is shown."""
    where: dict[str, list[str]] = {}
    first: dict[str, Setting] = {}
    for part, settings_type in PARTS.items():
        for setting in settings_of(settings_type):
            where.setdefault(setting.name, []).append(part)
            first.setdefault(setting.name, setting)
    chosen = [_for_serve(setting) for name, setting in first.items() if name not in DECIDED] + [CACHE_BYTES]
    chosen.sort(key=lambda setting: setting.name not in MAIN)
    return tuple((setting, _panel(setting.name, where.get(setting.name, []))) for setting in chosen)


def _for_serve(setting: Setting) -> Setting:
    if setting.name == "cache":
        return dataclasses.replace(setting, default=None, help="URL of the store. Without it one is embedded.")
    if setting.name == "log_level":
        return dataclasses.replace(setting, default="warning", help="Show the processes' log lines from this level.")
    return setting


def _panel(name: str, parts: list[str]) -> str | None:
    if name in MAIN:
        return None
    return parts[0] if len(parts) == 1 else SEVERAL


def serve_parameters() -> Iterator[inspect.Parameter]:
    """The parameters of the command."""
    return (setting.parameter(panel) for setting, panel in serve_options())


def from_environment(**values: Any) -> dict[str, Any]:
    """Values as `serve` would have them without any flag; `values` go before the environment.

    Raises `typer.BadParameter` for a variable that cannot be read.
    """
    found = {
        setting.name: setting.read(os.environ[setting.variable]) if setting.variable in os.environ else setting.default
        for setting, _ in serve_options()
        if setting.name not in values
    }
    return found | values


def serve_settings(values: Mapping[str, Any]) -> ServeSettings:
    """The settings that parameters' values make, on loopback ports that are free now.

    Raises `typer.BadParameter` for values that a process refuses, `PortTaken`.
    """
    cache_bytes = None if values["cache"] else values["cache_bytes"]
    vision, language, free = free_ports(3)
    port = values["port"] or free
    check_port(values["host"], port)
    known = {**values, "cache": values["cache"] or "", "port": port, "log_level": _child_level(values["log_level"])}
    # The gateway shows the workers' metrics.
    known["metrics_listen"] = None
    if cache_bytes is not None:
        known["max_entry_bytes"] = embedded.max_entry_bytes(cache_bytes, values["max_entry_bytes"])
    eye, mouth = f"{LOOPBACK}:{vision}", f"{LOOPBACK}:{language}"
    return ServeSettings(
        vision=build(VisionSettings, known | {"listen": eye}),
        language=build(LanguageSettings, known | {"listen": mouth, "vision": (eye,)}),
        gateway=build(GatewaySettings, known | {"vision": (eye,), "language": (mouth,)}),
        cache_bytes=cache_bytes,
        log_level=values["log_level"],
    )


def _child_level(shown: str) -> str:
    """Children log more than is shown, so that a death can be explained."""
    return "debug" if shown == "debug" else "info"


def free_ports(count: int) -> tuple[int, ...]:
    """Different loopback ports that are free now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return tuple(int(each.getsockname()[1]) for each in sockets)


def check_port(host: str, port: int) -> None:
    """Raises `PortTaken` where the gateway could not listen there."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as exc:
        raise PortTaken(
            f"cannot listen on {host}, port {port}: {exc.strerror or exc}. "
            "Stop what uses it, or give another --port (0: any free one) or --host"
        ) from exc
