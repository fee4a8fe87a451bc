"""docker/compose*.yaml, read: no engine runs them here."""

from typing import Any

import pytest

from tests.deploying.commands import ROLES, health_variables, settings
from tests.deploying.compose import DOCKER, read

FILES = ("compose.yaml", "compose.simple.yaml")
CACHE = {"LOOKONCE_CACHE": "rediss://lookonce:x@redis:6379/0"}
LISTENS = {"vision": {"LOOKONCE_LISTEN": "0.0.0.0:7001"}, "language": {"LOOKONCE_LISTEN": "0.0.0.0:7002"}}


def _settings(service: dict[str, Any], role: str) -> Any:
    variables = {**LISTENS.get(role, {}), **service.get("environment", {}), **(CACHE if "env_file" in service else {})}
    return settings(role, service["command"], variables)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("role", ROLES)
def test_every_flag_and_variable_exists(name: str, role: str) -> None:
    """Each process takes what it is given, and asks for the others where they are."""
    services = read(name)["services"]
    made = _settings(services[role], role)
    if role != "vision":
        assert made.vision == ("vision:7001",)
    if role == "gateway":
        assert made.language == ("language:7002",)
    else:
        assert made.model == "/model"


@pytest.mark.parametrize("name", FILES)
def test_what_is_named_is_there(name: str) -> None:
    """Networks, images' targets and the services that others wait for are in the file."""
    file = read(name)
    for role, service in file["services"].items():
        assert set(service["networks"]) <= set(file["networks"])
        assert set(service.get("depends_on", ())) <= set(file["services"])
        if role in ROLES:
            assert service["build"]["target"] == role
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", FILES)
def test_only_the_gateway_is_reachable(name: str) -> None:
    """It alone has a port, on this host's loopback, and a network with a way out."""
    file = read(name)
    closed = {network for network, options in file["networks"].items() if (options or {}).get("internal")}
    for role, service in file["services"].items():
        is_open = not set(service["networks"]) <= closed
        assert is_open is ("ports" in service) is (role == "gateway")
    assert file["services"]["gateway"]["ports"] == ["127.0.0.1:8000:8000"]


@pytest.mark.parametrize("service", ["redis", *ROLES])
def test_every_container_is_bounded(service: str) -> None:
    """Memory, CPUs and processes have limits; nothing is writable but what is meant to be; no capability is left."""
    made = read("compose.yaml")["services"][service]
    assert made["read_only"] is True
    assert made["cap_drop"] == ["ALL"]
    assert made["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "cpus", "pids_limit", "tmpfs"} <= made.keys()
    assert all(volume.endswith(":ro") for volume in made["volumes"])


@pytest.mark.parametrize("role", ROLES)
def test_nobody_is_ended_before_the_grace_is_over(role: str) -> None:
    """The engine waits longer than the process lets running requests go on."""
    service = read("compose.yaml")["services"][role]
    assert float(service["stop_grace_period"].removesuffix("s")) > _settings(service, role).grace_s


@pytest.mark.parametrize("role", ROLES)
def test_links_between_processes_are_encrypted(role: str) -> None:
    """Each has a certificate, asks the others for theirs and for a token; the health check knows the certificates."""
    service = read("compose.yaml")["services"][role]
    peers = _settings(service, role).peers
    assert None not in (peers.cert, peers.key, peers.ca, peers.tokens_file)
    given = {name for name in service["environment"] if not name.endswith("TOKENS_FILE")}
    assert given <= health_variables()
    assert f"./secrets/{role}:/secrets:ro" in service["volumes"]
