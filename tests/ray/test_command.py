"""`lookonce deploy ray`: what its command line takes and refuses, without a cluster."""

import sys

import pytest
import typer
from rich.console import Console

from lookonce.errors import NoRay
from lookonce.models import DEMO_DIR
from lookonce.options import build, settings_of
from lookonce.ray.bounds import Bounds, read_bounds, show_bounds
from lookonce.ray.command import check_devices, deploy
from lookonce.ray.settings import RaySettings
from lookonce.serve_settings import from_environment, serve_options, serve_settings
from lookonce.terminal import Terminal


@pytest.mark.parametrize(("text", "bounds"), [("1:3", Bounds(1, 3)), ("2", Bounds(2, 2)), ("2:2", Bounds(2, 2))])
def test_bounds_are_written_as_two_numbers_or_one(text: str, bounds: Bounds) -> None:
    """MIN:MAX, or a number that never changes; what is shown can be read."""
    assert read_bounds(text) == bounds == read_bounds(show_bounds(bounds))


@pytest.mark.parametrize("text", ["", "0", "0:1", "3:1", "1:", ":2", "a:b", "1:2:3", "-1:2"])
def test_bad_bounds_say_what_would_be_right(text: str) -> None:
    """A text that gives no bounds is refused with an example."""
    with pytest.raises(typer.BadParameter, match="1:3"):
        read_bounds(text)


def test_every_setting_has_a_name_of_its_own() -> None:
    """The cluster's settings are none of the processes', so that one command line takes both."""
    processes = {setting.name for setting, _ in serve_options()}
    assert not processes & {setting.name for setting in settings_of(RaySettings)}


def test_settings_reach_their_half() -> None:
    """What is said of one half is its role's."""
    values = {setting.name: setting.default for setting in settings_of(RaySettings)}
    values |= {"language_replicas": Bounds(1, 3), "language_gpus": 0.5, "vision_memory_bytes": 1 << 30}
    vision, language = build(RaySettings, values).roles
    assert (vision.replicas.is_fixed, vision.gpus, vision.memory_bytes) == (True, 0.0, 1 << 30)
    assert (language.replicas, language.gpus, language.memory_bytes) == (Bounds(1, 3), 0.5, None)


@pytest.mark.parametrize(("name", "value"), [("vision_cpus", 0.0), ("language_gpus", -1.0)])
def test_impossible_resources_are_refused_by_name(name: str, value: float) -> None:
    """A worker needs a core, and no negative accelerator."""
    with pytest.raises(ValueError, match=name):
        RaySettings(**{name: value})


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 0.0), ("cpu", 1.0)])
def test_a_device_without_its_accelerator_is_refused(device: str, gpus: float) -> None:
    """Ray hides accelerators from a worker that asked for none; one that asked for some should use them."""
    settings = serve_settings(from_environment(model=str(DEMO_DIR), port=0, device=device))
    with pytest.raises(typer.BadParameter, match="--vision-gpus"):
        check_devices(RaySettings(vision_gpus=gpus, language_gpus=gpus), settings)
    check_devices(RaySettings(vision_gpus=1.0 - gpus, language_gpus=1.0 - gpus), settings)


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is an extra; the error names it."""
    for module in ("lookonce.ray.deployment", "lookonce.ray.serve_apps", "lookonce.ray.replica"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    settings = serve_settings(from_environment(model=str(DEMO_DIR), port=0))
    with pytest.raises(NoRay, match=r"lookonce\[ray\]"):
        deploy(settings, Terminal(Console(), Console(), "error"), RaySettings())
