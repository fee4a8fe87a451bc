"""`lookonce deploy ray`: a deployment on a Ray cluster, until Ctrl-C."""

import inspect
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import typer
from rich.console import Console

from lookonce.errors import NoRay
from lookonce.models import named
from lookonce.options import ALSO_VARIABLES, build, settings_of, with_parameters
from lookonce.ray.settings import RaySettings
from lookonce.serve_settings import ServeSettings, serve_parameters, serve_settings
from lookonce.serving import serve
from lookonce.terminal import Terminal

DOC = f"""Serve a model on a Ray cluster: workers placed, restarted and scaled by Ray Serve, the gateway here.

The model's directory and this program have to be on every node. Ctrl-C drains and removes all of it.

{ALSO_VARIABLES}
"""
PANEL = "Ray"


def add_command(app: typer.Typer) -> None:
    """Gives the command line `deploy ray`."""
    deploy = typer.Typer(no_args_is_help=True, help="Serve a model on a cluster.")
    deploy.command("ray")(with_parameters(_command, _parameters(), name="ray", doc=DOC))
    app.add_typer(deploy, name="deploy")


def _parameters() -> Iterator[inspect.Parameter]:
    yield from serve_parameters()
    yield from (setting.parameter(PANEL) for setting in settings_of(RaySettings))


def _command(values: Mapping[str, Any]) -> None:
    on_ray = build(RaySettings, values)
    settings = serve_settings(named(values))
    check_devices(on_ray, settings)
    terminal = Terminal(Console(highlight=False), Console(stderr=True, highlight=False), settings.log_level)
    raise typer.Exit(deploy(settings, terminal, on_ray))


def check_devices(on_ray: RaySettings, settings: ServeSettings) -> None:
    """Raises `typer.BadParameter` where a worker would not see, or not use, the accelerators that Ray gives it."""
    for role, device in zip(on_ray.roles, (settings.vision.device, settings.language.device), strict=True):
        if (role.gpus > 0) != (device != "cpu"):
            raise typer.BadParameter(
                f"--{role.half}-gpus {role.gpus:g} and --device {device} do not fit: an accelerator wants both, "
                "the CPU neither"
            )


def deploy(settings: ServeSettings, terminal: Terminal, on_ray: RaySettings) -> int:
    """Serves on the cluster until a signal; the exit status, as of `serve`. Raises `NoRay`, `DeployFailed`."""
    try:
        from lookonce.ray.deployment import RayDeployment
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "ray":
            raise
        raise NoRay("Ray is not installed: pip install 'lookonce[ray]'") from exc
    return serve(settings, terminal, partial(RayDeployment, on_ray=on_ray))
