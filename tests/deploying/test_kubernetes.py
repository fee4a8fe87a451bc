"""deploy/kubernetes, put together and held against Kubernetes' own schemas: no cluster runs it here."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from lm_server import metrics as language_metrics
from tests.deploying.commands import ROLES, ROOT, health_variables, rules_in, settings, user_rules
from tests.deploying.keda import SCALED_OBJECT
from vision_server import metrics as vision_metrics

FOLDER = ROOT / "deploy" / "kubernetes"
VERSION = "1.37"
WORKLOADS = ("redis", *ROLES)
CACHE = {"LOOKONCE_CACHE": "redis://lookonce:x@redis:6379/0"}
PORTS = {"redis": 6379, "vision": 7001, "language": 7002, "gateway": 8000}

Manifest = dict[str, Any]


def _documents(text: str) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(text) if document]


def _plain() -> list[Manifest]:
    """What the base and KEDA's component have, without kubectl: neither patches anything."""
    paths = sorted(path for part in ("base", "keda") for path in (FOLDER / part).glob("*.yaml"))
    named = [path for path in paths if path.name != "kustomization.yaml"]
    return [document for path in named for document in _documents(path.read_text())]


def _encrypted(folder: Path) -> list[Manifest]:
    """What `kubectl kustomize` makes with the component `encrypted`; it asks no cluster."""
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl to put the manifests together with")
    copy = folder / "kubernetes"
    shutil.copytree(FOLDER, copy)
    top = copy / "kustomization.yaml"
    top.write_text(top.read_text().replace("# - encrypted", "- encrypted"))
    done = subprocess.run(["kubectl", "kustomize", copy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return _documents(done.stdout)


@pytest.fixture(scope="module", params=["plain", "encrypted"])
def manifests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    return _plain() if request.param == "plain" else _encrypted(tmp_path_factory.mktemp("rendered"))


def _of(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}


def _pod(manifests: list[Manifest], name: str) -> Manifest:
    spec: Manifest = _of(manifests, "Deployment")[name]["spec"]["template"]["spec"]
    return spec


def _container(manifests: list[Manifest], name: str) -> Manifest:
    (container,) = _pod(manifests, name)["containers"]
    return dict(container)


def _variables(container: Manifest) -> dict[str, str]:
    """A container's environment, a Secret's values made up."""
    return {each["name"]: each.get("value", "secret") for each in container.get("env", ())}


def _settings(manifests: list[Manifest], role: str) -> Any:
    container = _container(manifests, role)
    variables = {name: value for name, value in _variables(container).items() if name != "LOOKONCE_TOKEN"}
    return settings(role, container["args"], variables | (CACHE if "envFrom" in container else {}))


def test_every_manifest_is_valid(manifests: list[Manifest]) -> None:
    """By Kubernetes' own schemas, strictly, and KEDA's objects by the part of its schema that is used here."""
    examples = _documents((FOLDER / "secrets.example.yaml").read_text())
    assert len(manifests) > 20
    for manifest in (*manifests, *examples):
        if manifest["kind"] == "ScaledObject":
            jsonschema.validate(manifest, SCALED_OBJECT)
        else:
            kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_the_files_that_are_named_are_there() -> None:
    """Every kustomization names each file beside it and no other."""
    for path in FOLDER.rglob("kustomization.yaml"):
        made = yaml.safe_load(path.read_text())
        named = {*made.get("resources", ()), *made.get("components", ())}
        named |= {patch["path"] for patch in made.get("patches", ())}
        assert all((path.parent / name).exists() for name in named)
        if path.parent != FOLDER:
            assert named == {other.name for other in path.parent.glob("*.yaml")} - {path.name}


@pytest.mark.parametrize("role", ROLES)
def test_every_flag_and_variable_exists(manifests: list[Manifest], role: str) -> None:
    """Each process takes what it is given, and listens on the port that its Service, probes and policies name."""
    made = _settings(manifests, role)
    assert f":{PORTS[role]}" in (f":{made.port}" if role == "gateway" else made.listen)
    container = _container(manifests, role)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert PORTS[role] in ports.values()
    if role != "gateway":
        assert made.metrics_listen == f"0.0.0.0:{ports['metrics']}"
        annotations = _of(manifests, "Deployment")[role]["spec"]["template"]["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == str(ports["metrics"])


def test_workers_are_found_by_headless_services(manifests: list[Manifest]) -> None:
    """`dns:` names a Service without an address of its own, on the port that it has."""
    services = _of(manifests, "Service")
    words = [word for role in ROLES for word in _container(manifests, role)["args"] if word.startswith("dns:")]
    assert words == ["dns:vision:7001", "dns:vision:7001", "dns:language:7002"]
    for _, name, port in (word.split(":") for word in words):
        assert services[name]["spec"]["clusterIP"] == "None"
        assert services[name]["spec"]["ports"][0]["port"] == int(port)


@pytest.mark.parametrize("name", WORKLOADS)
def test_selectors_find_their_pods(manifests: list[Manifest], name: str) -> None:
    """The Service, the Deployment and what bounds its disruption mean the same pods; ports are named as they are."""
    deployment, service = _of(manifests, "Deployment")[name], _of(manifests, "Service")[name]
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= labels
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    ports = {port["name"] for port in _container(manifests, name)["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    if name != "redis":
        budget = _of(manifests, "PodDisruptionBudget")[name]["spec"]
        assert budget["selector"]["matchLabels"].items() <= labels
        assert deployment["spec"]["replicas"] > budget["minAvailable"]
        spread = _pod(manifests, name)["topologySpreadConstraints"]
        assert all(each["labelSelector"]["matchLabels"].items() <= labels for each in spread)


@pytest.mark.parametrize("role", ROLES)
def test_nobody_is_ended_before_the_grace_is_over(manifests: list[Manifest], role: str) -> None:
    """The pause before SIGTERM and the grace together are over before SIGKILL."""
    pause = int(_container(manifests, role)["lifecycle"]["preStop"]["exec"]["command"][1])
    assert _pod(manifests, role)["terminationGracePeriodSeconds"] > pause + _settings(manifests, role).grace_s


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_pod_has_more_than_it_needs(manifests: list[Manifest], name: str) -> None:
    """Not root, nothing writable but what is meant to be, no capability, no token of the cluster's, bounded memory."""
    pod, container = _pod(manifests, name), _container(manifests, name)
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_mounts_have_their_volumes(manifests: list[Manifest], name: str) -> None:
    """Every mount names a volume, and every file that a process is told lies below a mount."""
    volumes = {volume["name"] for volume in _pod(manifests, name)["volumes"]}
    container = _container(manifests, name)
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) == volumes
    told = [word for word in (*container["args"], *_variables(container).values()) if word.startswith("/")]
    assert all(any(f"{path}/".startswith(f"{mount}/") for mount in mounts) for path in told)


def test_plain_probes_are_the_protocols_own() -> None:
    """Of gRPC's health service for workers; /health and /ready over HTTP for the gateway."""
    plain = _plain()
    for role in ("vision", "language"):
        container = _container(plain, role)
        probes = [container[name]["grpc"]["port"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
        assert probes == [PORTS[role]] * 3
    gateway = _container(plain, "gateway")
    paths = [gateway[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert paths == ["/health", "/ready", "/health"]
    assert gateway["readinessProbe"]["timeoutSeconds"] > _settings(plain, "gateway").scrape_timeout_s


def test_encrypted_links_are_so_at_both_ends(tmp_path: Path) -> None:
    """Every process has certificates and tokens, the gateway HTTPS, and no probe asks what speaks TLS in plain text."""
    manifests = _encrypted(tmp_path)
    for role in ROLES:
        peers = _settings(manifests, role).peers
        assert None not in (peers.cert, peers.key, peers.ca, peers.tokens_file)
        container = _container(manifests, role)
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container[name]
            assert "grpc" not in probe
            assert ("exec" in probe) is not ("httpGet" in probe)
            assert probe.get("httpGet", {"scheme": "HTTPS"})["scheme"] == "HTTPS"
            if "exec" in probe:
                assert "lookonce health" in shlex.join(probe["exec"]["command"])
                files = {name for name in _variables(container) if re.search("PEER_(CERT|KEY|CA)$|_TOKEN$", name)}
                assert files <= health_variables()
    gateway = _settings(manifests, "gateway")
    assert None not in (gateway.tls.cert, gateway.tls.key, gateway.tokens_file)
    config = _of(manifests, "ConfigMap")["redis"]["data"]["redis.conf"].splitlines()
    assert {"port 0", "tls-port 6379", "tls-auth-clients yes"} <= set(config)


def _redis_users() -> str:
    secrets = {each["metadata"]["name"]: each for each in _documents((FOLDER / "secrets.example.yaml").read_text())}
    return str(secrets["lookonce-redis"]["stringData"]["users.acl"])


def test_the_example_secrets_are_those_that_pods_name() -> None:
    """The plain deployment needs no other; the store's user may do what docs/security.md says."""
    examples = {each["metadata"]["name"] for each in _documents((FOLDER / "secrets.example.yaml").read_text())}
    assert set(_secret_names(_plain())) == examples
    assert rules_in(_redis_users()) == user_rules()
    assert "secrets.example.yaml" not in (FOLDER / "kustomization.yaml").read_text()


def _secret_names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "secretName":
                yield inner
            elif key in ("secretRef", "secretKeyRef"):
                yield inner["name"]
            else:
                yield from _secret_names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _secret_names(inner)


def test_what_scales_workers_exists(manifests: list[Manifest]) -> None:
    """Each ScaledObject names a Deployment and a gauge that its workers have, and adds no gateway's copy of it."""
    gauges = {"vision": vision_metrics.WAITING, "language": language_metrics.WAITING}
    scaled = _of(manifests, "ScaledObject")
    assert scaled.keys() == gauges.keys()
    for name, gauge in gauges.items():
        spec = scaled[name]["spec"]
        assert spec["scaleTargetRef"]["name"] in _of(manifests, "Deployment")
        query = spec["triggers"][0]["metadata"]["query"]
        assert query == f'sum({gauge._name}{{namespace="lookonce",worker=""}})'


def test_policies_open_what_is_asked_for_and_no_more(manifests: list[Manifest]) -> None:
    """All is closed first; a part is reached on its port by those whose flags name it, and each may go there."""
    policies = _of(manifests, "NetworkPolicy")
    assert policies["closed"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    askers = {"redis": {"vision", "language"}, "vision": {"language", "gateway"}, "language": {"gateway"}}
    for part, expected in askers.items():
        assert {who for who, port in _let_in(policies[part]) if port == PORTS[part]} == expected
        for asker in expected:
            assert (part, PORTS[part]) in _let_out(policies[asker])
    assert _let_in(policies["gateway"]) == set()
    assert _let_out(policies["redis"]) == set()


def _pods(peer: Manifest) -> set[str]:
    """The names of the pods of this namespace that a rule means."""
    selector = peer.get("podSelector", {})
    names = {selector["matchLabels"]["app.kubernetes.io/name"]} if "matchLabels" in selector else set()
    return names.union(*(each["values"] for each in selector.get("matchExpressions", ())))


def _let_in(policy: Manifest) -> set[tuple[str, int]]:
    return _links(policy["spec"].get("ingress", ()), "from")


def _let_out(policy: Manifest) -> set[tuple[str, int]]:
    return _links(policy["spec"].get("egress", ()), "to")


def _links(rules: Any, side: str) -> set[tuple[str, int]]:
    return {
        (name, port["port"]) for rule in rules for peer in rule[side] for name in _pods(peer) for port in rule["ports"]
    }
