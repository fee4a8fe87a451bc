"""`lookonce inspect`: the halves of a checkpoint and its faults."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lookonce import fetching
from lookonce.models import DEMO, DEMO_DIR, on_hub


def add_command(app: typer.Typer) -> None:
    """Gives the command line `inspect`."""
    app.command("inspect")(_command)


def _command(
    directory: Annotated[str, typer.Argument(metavar="DIR|ORG/NAME|demo", help="A directory, or a name on a hub.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which tensors and bytes of a checkpoint go to which half, and every fault; exit status 1 if any.

    Of a model on a hub only the configuration and the headers are downloaded.
    """
    on_a_hub = on_hub(directory)
    if on_a_hub is not None:
        model = fetching.headers_of(on_a_hub)
    else:
        model = DEMO_DIR if directory == DEMO else Path(directory).expanduser()
    if not model.is_dir():
        raise typer.BadParameter(f"{directory!r} is not a directory", param_hint="DIR")
    from lookonce.inspecting import inspect_directory

    raise typer.Exit(0 if inspect_directory(model, Console(highlight=False), as_json=as_json) else 1)
