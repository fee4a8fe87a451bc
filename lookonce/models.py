"""From what a person writes for a model to the checkpoint's directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from lookonce.kinds import Kind

DEMO = "demo"
DEMO_DIR = Path(__file__).resolve().parent.parent / "demo" / "checkpoint"


def model_dir(text: str) -> str:
    """The directory of a checkpoint; `demo` is the one that is shipped. Raises `typer.BadParameter`."""
    directory = DEMO_DIR if text == DEMO else Path(text).expanduser()
    if not (directory / "config.json").is_file():
        problem = "holds no config.json" if directory.is_dir() else "is not a directory"
        shown = "the demo's checkpoint" if text == DEMO else repr(text)
        raise typer.BadParameter(f"{shown} {problem}; give a checkpoint's directory, or 'demo' for the shipped one")
    return str(directory)


def named(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same settings, in which the shipped checkpoint is served as `demo` unless another name was given."""
    if values.get("model") == str(DEMO_DIR) and not values["model_name"]:
        return {**values, "model_name": DEMO}
    return values


MODEL = Kind("DIR|demo", model_dir)
