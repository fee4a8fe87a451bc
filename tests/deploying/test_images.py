"""docker/Dockerfile, read and linted: no image is built here."""

import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploying.commands import ROLES, ROOT, settings
from tests.deployment import environment

DOCKER = ROOT / "docker"
# `lookonce bench` says that it has none of them; no image serves for measuring.
NOT_SERVED = {"benchmarks"}
HEAVY = ("torch", "transformers", "safetensors", "accelerate", "tokenizers")
# A process that may import what the list installs, and nothing else that is installed here.
PROGRAM = """
import sys
from importlib import metadata

installed, heavy = set({installed!r}), {heavy!r}
distributions = metadata.packages_distributions()


class Image:
    def find_spec(self, name, path=None, target=None):
        found = distributions.get(name.partition(".")[0], ())
        owners = {{owner.lower().replace("_", "-").replace(".", "-") for owner in found}}
        extra = name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))
        if extra or name.partition(".")[0] in heavy or (owners and not owners & installed):
            raise ModuleNotFoundError(f"{{name}} is not in the image", name=name)


sys.meta_path.insert(0, Image())
from gateway import main
from gateway.app import create_app
from gateway.settings import GatewaySettings
from lookonce.cli import main as lookonce

create_app(GatewaySettings(vision=("eye:1",), language=("mouth:1",)))
for words in (["gateway", "--help"], ["health", "--help"], ["doctor", "--help"]):
    sys.argv = ["lookonce", *words]
    try:
        lookonce()
    except SystemExit as exc:
        assert not exc.code, words
print("loaded", sorted(set(heavy) & set(sys.modules)))
"""


@dataclass
class Stage:
    """One FROM and what follows it."""

    name: str
    source: str
    lines: list[tuple[str, str]] = field(default_factory=list)


def _stages() -> dict[str, Stage]:
    text = re.sub(r"\\\n\s*", "", (DOCKER / "Dockerfile").read_text())
    stages: dict[str, Stage] = {}
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            source, _, name = rest.partition(" AS ")
            stage = stages[name] = Stage(name, source)
        elif word.isupper():
            stage.lines.append((word, rest))
    return stages


def _behind(stages: dict[str, Stage], name: str) -> list[Stage]:
    """A stage and all that it is made of."""
    if name not in stages:
        return []
    stage = stages[name]
    copied = re.findall(r"--from=(\S+)", " ".join(rest for _, rest in stage.lines))
    return [stage, *(each for source in (stage.source, *copied) for each in _behind(stages, source))]


def _requirements() -> list[str]:
    lines = (DOCKER / "gateway.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _installed(requirements: list[str]) -> set[str]:
    """The names of what these bring, those that they need included."""
    found: set[str] = set()
    open_ones = [Requirement(each) for each in requirements]
    while open_ones:
        requirement = open_ones.pop()
        name = canonicalize_name(requirement.name)
        wanted = {"extra": ""} if not requirement.extras else {"extra": next(iter(requirement.extras))}
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        for line in metadata.requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate(wanted):
                needed.marker = None
                open_ones.append(needed)
    return found


@pytest.fixture(scope="module")
def project() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def test_the_linter_finds_nothing() -> None:
    """The Dockerfile gives hadolint nothing to say."""
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_package_is_copied(project: dict[str, dict[str, dict[str, dict[str, list[str]]]]]) -> None:
    """The folders that go into the images are those that pyproject installs and that are there."""
    patterns = project["tool"]["setuptools"]["packages"]["find"]["include"]
    served = {name.rstrip("*") for name in patterns} - NOT_SERVED
    copied = [rest.split() for word, rest in _stages()["source"].lines if word == "COPY"]
    folders = {target.removeprefix("./"): source for source, target in (line for line in copied if len(line) == 2)}
    assert folders == {name: name for name in served if (ROOT / name / "__init__.py").is_file()}


@pytest.mark.parametrize("role", ROLES)
def test_each_role_has_an_image(role: str) -> None:
    """It runs that role, as nobody in particular, ends on SIGTERM, and can be asked whether it is well."""
    stages = _stages()
    own = {word: rest for stage in (stages[stages[role].source], stages[role]) for word, rest in stage.lines}
    assert own["ENTRYPOINT"] == f'["lookonce", "{role}"]'
    assert own["USER"] == "10001"
    assert own["STOPSIGNAL"] == "SIGTERM"
    assert '"lookonce", "health", "' in own["HEALTHCHECK"]
    assert f":{own['EXPOSE']}" in own["HEALTHCHECK"]


@pytest.mark.parametrize("role", ROLES)
def test_what_an_image_sets_is_a_setting(role: str) -> None:
    """Each LOOKONCE_ variable of the image exists, and the process then listens where the image says."""
    stage = _stages()[role]
    said = dict(pair.split("=", 1) for word, rest in stage.lines if word == "ENV" for pair in rest.split())
    port = next(rest for word, rest in stage.lines if word == "EXPOSE")
    given = {
        "vision": ["--model", "m", "--cache", "memory://"],
        "language": ["--model", "m", "--cache", "memory://", "--vision", "a:1"],
        "gateway": ["--vision", "a:1", "--language", "b:1"],
    }
    made = settings(role, given[role], said)
    listens = f"{made.host}:{made.port}" if role == "gateway" else made.listen
    assert listens == f"0.0.0.0:{port}"


def test_nothing_heavy_is_behind_the_gateway() -> None:
    """No stage of the gateway's image installs the project's own dependencies, of which torch is one."""
    stages = _stages()
    behind = {stage.name: stage for stage in _behind(stages, "gateway")}
    runs = [rest for stage in behind.values() for word, rest in stage.lines if word == "RUN"]
    installs = [rest for rest in runs if rest.startswith("pip ")]
    assert len(installs) == 3
    assert all("--no-deps" in rest or "--requirement gateway.txt" in rest for rest in installs)
    assert "worker-build" not in behind
    assert "worker-build" in [stage.name for stage in _behind(stages, "vision")]


def test_the_gateways_list_is_of_pyprojects(project: dict[str, dict[str, list[str]]]) -> None:
    """Each line is one of the project's dependencies, word for word, and none brings torch."""
    requirements = _requirements()
    assert set(requirements) <= set(project["project"]["dependencies"])
    assert not _installed(requirements) & set(HEAVY)


def test_a_gateway_needs_no_more_than_the_list() -> None:
    """With everything else that is installed here out of reach, it is imported, made, and tells its flags."""
    installed = sorted({*_installed(_requirements()), "lookonce", "pip", "setuptools"})
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(installed=installed, heavy=HEAVY)],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--tokens-file" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded []"
