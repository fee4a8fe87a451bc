"""What a deployment's files start, held against what our processes really take."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from lookonce.alone import process_of
from lookonce.cli import app
from lookonce.options import build, settings_of

ROOT = Path(__file__).parents[2]
ROLES = ("vision", "language", "gateway")
SECURITY = ROOT / "docs" / "security.md"


def settings(role: str, words: Sequence[str], variables: Mapping[str, str]) -> Any:
    """The settings that a command line and an environment make; fails for a flag, variable or value that is none."""
    settings_type = process_of(role)[0]
    known = settings_of(settings_type)
    by_flag, by_variable = {each.flag: each for each in known}, {each.variable: each for each in known}
    values = {each.name: each.default for each in known}
    told = [(by_variable[name], text) for name, text in variables.items()]
    told += [(by_flag[flag], text) for flag, text in zip(words[::2], words[1::2], strict=True)]
    for setting, text in told:
        assert isinstance(text, str), f"{setting.flag} is given {text!r}, which is no text"
        # A model is looked for where it is read, and there is none here.
        is_model = setting.name == "model"
        values[setting.name] = text if is_model else setting.read(text)
    missing = [name for name, value in values.items() if value is dataclasses.MISSING]
    assert missing == [], f"{role} is not told {missing}"
    return build(settings_type, values)


def health_variables() -> set[str]:
    """The environment variables of `lookonce health`."""
    command = typer.main.get_command(app).commands["health"]  # type: ignore[attr-defined]
    return {str(parameter.envvar) for parameter in command.params if parameter.envvar}


def user_rules() -> list[str]:
    """What Redis's user of the workers may do, as docs/security.md has it."""
    found = re.search(r"ACL SETUSER lookonce on >PASSWORD (.*)", SECURITY.read_text())
    assert found is not None
    return found[1].split()


def rules_in(users: str) -> list[str]:
    """The same of the user `lookonce` in the text of an ACL file."""
    found = re.search(r"^user lookonce on >\S+ (.*)$", users, re.MULTILINE)
    assert found is not None
    return found[1].split()
