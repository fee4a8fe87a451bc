"""The reference of the command line: every command's help, from typer."""

import html
import re
from collections.abc import Iterator
from typing import Any

import typer

from lookonce.cli import app

HEAD = """# Command line

Every command and its options, written from the program at each build of this site; `lookonce COMMAND --help`
says the same. Options are set by environment variables too: `--max-entry-bytes` is `LOOKONCE_MAX_ENTRY_BYTES`.
Sizes are written as `64MiB` or `1GB`, times in seconds.
"""
OTHERS = "Options"


def markdown() -> str:
    """The page: a table of the commands, then each with its options in the groups that its help has."""
    group: Any = typer.main.get_command(app)
    parts = [HEAD, "| command | |\n|---|---|"]
    parts += [f"| [`{name}`](#{name}) | {_first(command)} |" for name, command in group.commands.items()]
    for name, command in group.commands.items():
        parts += ["", *_command(name, command)]
    return "\n".join(parts) + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=f"lookonce {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"## `lookonce {name}` {{: #{name} }}\n\n{_plain(command.help)}\n"
    yield f"```text\nlookonce {name} {usage}\n```\n"
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    if arguments:
        yield "| argument | |\n|---|---|"
        yield from (f"| {_code(each.metavar or each.name.upper())} | {_cell(each.help or '')} |" for each in arguments)
        yield ""
    for panel, options in _panels(command).items():
        yield "" if panel == OTHERS else f"**{panel}**\n"
        yield "| option | |\n|---|---|"
        yield from (_option(each, context) for each in options)
        yield ""


def _panels(command: Any) -> dict[str, list[Any]]:
    panels: dict[str, list[Any]] = {}
    for each in command.params:
        if each.param_type_name == "option" and not each.hidden and each.name != "help":
            panels.setdefault(each.rich_help_panel or OTHERS, []).append(each)
    return panels


def _option(option: Any, context: Any) -> str:
    record = option.get_help_record(context)
    names, told = record if record is not None else (", ".join(option.opts), option.help or "")
    return f"| {_code(names)} | {_cell(told)} |"


def _first(command: Any) -> str:
    return _cell(str(command.help).split("\n\n")[0])


def _plain(text: str) -> str:
    """Help as a paragraph each; typer's own marks taken out."""
    return "\n\n".join(re.sub(r"\s+", " ", part).strip() for part in text.replace("\b", "").split("\n\n"))


def _code(text: str) -> str:
    """A text as code in a table's cell, where a backquoted `|` could not be."""
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>"


def _cell(text: str) -> str:
    """A text that fits a table's cell; `<…>` and `[…]` are shown as they are."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;").replace("[", "&#91;").strip()
