"""A compose file, with its variables filled in as they are where nothing is set."""

import re
from pathlib import Path
from typing import Any

import yaml

from tests.deploying.commands import ROOT

DOCKER = ROOT / "docker"
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def read(name: str) -> dict[str, Any]:
    """The file `docker/NAME`."""
    made: dict[str, Any] = yaml.safe_load(VARIABLE.sub(_value, (DOCKER / name).read_text()))
    return made


def _value(found: re.Match[str]) -> str:
    return found[3] if found[2] == "-" else f"/{found[1].lower()}"


def cache_variable(folder: Path) -> dict[str, str]:
    """What env_file gives the workers, as the script wrote it."""
    name, _, value = (folder / "cache.env").read_text().strip().partition("=")
    return {name: value}
