"""From what a person writes for a model to the checkpoint's directory, or to the name that a hub knows it by."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from hub.reference import HubModel, parse
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


def model_source(text: str) -> str:
    """As `model_dir`; but what is no directory and has the form `org/name[@revision]` is left for a hub."""
    return text if on_hub(text) is not None else model_dir(text)


def on_hub(text: str) -> HubModel | None:
    """The hub's model that a text names; None where it is a directory, or nothing that a hub would know."""
    return None if Path(text).expanduser().is_dir() else parse(text)


def named(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same settings, with the name that a model is served under unless another was given.

    `demo` for the shipped checkpoint, `org/name` for one of a hub.
    """
    if values["model_name"] or "model" not in values:
        return values
    if values["model"] == str(DEMO_DIR):
        return {**values, "model_name": DEMO}
    model = on_hub(values["model"])
    return values if model is None else {**values, "model_name": model.repo}


MODEL = Kind("DIR|ORG/NAME|demo", model_source)
