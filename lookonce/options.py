"""From a settings class to command line options and back: every field is a flag and an environment variable.

A field's name makes both (`max_entry_bytes`: `--max-entry-bytes`, `LOOKONCE_MAX_ENTRY_BYTES`), its name and type
decide how it is read, and its own comment is the help. A field that is itself a settings class gives its fields, under
its name in the singular (`limits.images`: `--limit-images`).
"""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import typer

from lookonce import kinds
from lookonce.field_docs import field_docs
from lookonce.kinds import Kind
from lookonce.models import MODEL
from lookonce.ray.bounds import BOUNDS

PREFIX = "LOOKONCE_"
BY_NAME: Mapping[str, Kind] = {
    "model": MODEL,
    "listen": kinds.HOST_PORT,
    "metrics_listen": kinds.HOST_PORT,
    "otlp_endpoint": kinds.URL,
    "cache": kinds.URL,
    "port": kinds.PORT,
    "dtype": kinds.DTYPE,
    "engine": kinds.ENGINE,
    "vllm_args": kinds.JSON,
    "log_level": kinds.LOG_LEVEL,
    "entry_compression": kinds.CODEC,
    "offload_folder": kinds.FILE,
    "domains": kinds.DOMAINS,
    "kv_disk_dir": kinds.FILE,
    "tokens_file": kinds.FILE,
    "policies": kinds.FILE,
    "cert": kinds.FILE,
    "key": kinds.FILE,
    "ca": kinds.FILE,
    "turns": kinds.FILE,
    "lora": kinds.LORAS,
    "lora_dirs": kinds.DIRECTORIES,
    "draft_tokens": kinds.AMOUNT,
}
BY_SUFFIX: Mapping[str, Kind] = {
    "_bytes": kinds.SIZES,
    "_s": kinds.SECONDS,
    "_replicas": BOUNDS,
    "_cpus": kinds.NUMBER,
    "_gpus": kinds.NUMBER,
}
BY_TYPE: Mapping[object, Kind] = {int: kinds.COUNT, str: kinds.TEXT, tuple[str, ...]: kinds.HOST_PORTS}

NONE = re.compile(r"\bNone\b")

Settings = TypeVar("Settings")


@dataclass(frozen=True, slots=True)
class Setting:
    """One value that a process is told.

    Attributes:
        path: Names of the fields that lead to it.
        name: Its parameter's name.
        kind: How it is read.
        default: Its value where nothing is said; `dataclasses.MISSING` where something must be.
        help: What it means.
    """

    path: tuple[str, ...]
    name: str
    kind: Kind
    default: Any
    help: str

    @property
    def flag(self) -> str:
        """`--max-entry-bytes`."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """`LOOKONCE_MAX_ENTRY_BYTES`."""
        return PREFIX + self.name.upper()

    def read(self, text: str) -> Any:
        """The value that a text stands for. Raises `typer.BadParameter`, naming the flag and the variable."""
        try:
            return self.kind.read(text)
        except typer.BadParameter as exc:
            raise typer.BadParameter(f"{exc.message} ({self.flag} or {self.variable})") from None

    def parameter(self, panel: str | None = None) -> inspect.Parameter:
        """A parameter from which typer makes the option."""
        option = typer.Option(
            self._shown_default(),
            self.flag,
            envvar=self.variable,
            show_envvar=False,
            help=self.help,
            parser=self.read,
            metavar=self.kind.metavar,
            rich_help_panel=panel,
        )
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=str)

    def _shown_default(self) -> Any:
        if self.default is dataclasses.MISSING:
            return ...
        return None if self.default is None else self.kind.show(self.default)


def settings_of(settings_type: type) -> tuple[Setting, ...]:
    """Every setting of a settings class, in its order."""
    return tuple(_walk(settings_type, (), ""))


def _singular(name: str) -> str:
    return name if name == "tls" else name.removesuffix("s")


def _walk(settings_type: type, path: tuple[str, ...], prefix: str) -> Iterable[Setting]:
    docs, hints = field_docs(settings_type), typing.get_type_hints(settings_type)
    for field in dataclasses.fields(settings_type):
        here = (*path, field.name)
        kind_of_value = _without_none(hints[field.name])
        if dataclasses.is_dataclass(kind_of_value) and isinstance(kind_of_value, type):
            yield from _walk(kind_of_value, here, f"{_singular(field.name)}_")
        else:
            yield Setting(
                here,
                prefix + field.name,
                _kind(field.name, kind_of_value),
                field.default,
                _help(docs.get(field.name, "")),
            )


def _help(words: str) -> str:
    """A field's words, in which None is what a command line calls unset."""
    return NONE.sub("unset", words)


def _without_none(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _kind(name: str, hint: object) -> Kind:
    suffixes = (kind for suffix, kind in BY_SUFFIX.items() if name.endswith(suffix))
    return BY_NAME.get(name) or next(suffixes, None) or BY_TYPE[hint]


def build(settings_type: type[Settings], values: Mapping[str, Any]) -> Settings:
    """The settings that parameters' values make. Raises `typer.BadParameter` where the class refuses them."""
    fields: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for setting in settings_of(settings_type):
        top, *rest = setting.path
        if rest:
            nested.setdefault(top, {})[rest[-1]] = values[setting.name]
        else:
            fields[top] = values[setting.name]
    hints = typing.get_type_hints(settings_type)
    try:
        fields |= {top: hints[top](**inner) for top, inner in nested.items()}
        return settings_type(**fields)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc


def plain_values(settings_type: type, words: Sequence[str], environment: Mapping[str, str]) -> Mapping[str, Any] | None:
    """What a command line says that is nothing but flags, each with its value behind it; None of any other.

    It means what it means to typer. Raises `typer.BadParameter` for a value that cannot be read.
    """
    settings = settings_of(settings_type)
    told = dict(zip(words[::2], words[1::2], strict=False))
    are_plain = not any(value.startswith("-") for value in told.values())
    if len(words) % 2 or not told.keys() <= {setting.flag for setting in settings} or not are_plain:
        return None
    values: dict[str, Any] = {}
    for setting in settings:
        # A variable that is empty says nothing.
        text = told.get(setting.flag, environment.get(setting.variable) or None)
        values[setting.name] = setting.default if text is None else setting.read(text)
    return None if dataclasses.MISSING in values.values() else values


def flags(settings: object, *, without: Container[str] = ()) -> list[str]:
    """The command line that makes these settings; those that are as by default, or named in `without`, are left out."""
    words: list[str] = []
    for setting in settings_of(type(settings)):
        value: Any = settings
        for name in setting.path:
            value = getattr(value, name)
        if setting.name not in without and value is not None and value != setting.default:
            words += [setting.flag, setting.kind.show(value)]
    return words


ALSO_VARIABLES = "Every option is an environment variable too: --max-entry-bytes is LOOKONCE_MAX_ENTRY_BYTES."


def with_parameters(
    command: Callable[..., None], parameters: Iterable[inspect.Parameter], *, name: str, doc: str
) -> Callable[..., None]:
    """The command as typer shall see it: with these parameters, and this help."""

    def described(**values: Any) -> None:
        command(values)

    described.__signature__ = inspect.Signature(list(parameters))  # type: ignore[attr-defined]
    described.__name__ = name
    described.__doc__ = doc
    described.__annotations__ = {}
    return described
