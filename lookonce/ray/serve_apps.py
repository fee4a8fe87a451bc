"""Both halves as applications of Ray Serve: what is asked of it, and what it answers."""

from collections.abc import Sequence
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, ProxyLocation

from lm_server.settings import LanguageSettings
from lookonce.errors import DeployFailed
from lookonce.processes import MARGIN_S
from lookonce.ray.replica import STRIKE_S, ServeReplica
from lookonce.ray.scaling import by_load
from lookonce.ray.settings import RaySettings, Role
from vision_server.settings import VisionSettings

Settings = VisionSettings | LanguageSettings

CHECK_PERIOD_S = 1.0
CHECK_TIMEOUT_S = 10.0
# A worker that cannot start, for its checkpoint is at fault, is tried again this often.
RETRIES = 2
# How often replicas tell their load, and over how long its mean is taken.
TELL_S = 1.0
MEAN_S = 5.0


def deploy(settings: RaySettings, halves: Sequence[Settings]) -> None:
    """Returns once every worker serves. Raises `DeployFailed`, saying what the workers said."""
    # Requests go straight to the workers: Serve's own HTTP and gRPC ports are not needed.
    serve.start(proxy_location=ProxyLocation.Disabled)
    targets = [
        serve.RunTarget(
            _deployment(role, half, settings).bind(role.half, half, settings.name),
            name=app_name(settings.name, role.half),
            route_prefix=None,
        )
        for role, half in zip(settings.roles, halves, strict=True)
    ]
    try:
        serve.run_many(targets)
    except RuntimeError as exc:
        raise DeployFailed(_reason(settings) or "Ray Serve did not deploy the workers; its log says more") from exc


def remove(settings: RaySettings) -> None:
    """Returns once every worker has drained and ended."""
    for role in settings.roles:
        serve.delete(app_name(settings.name, role.half), _blocking=False)
    for role in settings.roles:
        serve.delete(app_name(settings.name, role.half))


def app_name(deployment: str, half: str) -> str:
    """The name of one half's application."""
    return f"{deployment}-{half}"


def _deployment(role: Role, half: Settings, settings: RaySettings) -> Any:
    resources: dict[str, float] = {"num_cpus": role.cpus, "num_gpus": role.gpus}
    if role.memory_bytes is not None:
        resources["memory"] = role.memory_bytes
    return serve.deployment(
        name=role.half,
        ray_actor_options=resources,
        max_replicas_per_node=settings.replicas_per_node,
        health_check_period_s=CHECK_PERIOD_S,
        health_check_timeout_s=CHECK_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=STRIKE_S + half.grace_s + 2 * MARGIN_S,
        max_constructor_retry_count=RETRIES,
        **_count(role, settings),
    )(ServeReplica)


def _count(role: Role, settings: RaySettings) -> dict[str, Any]:
    if role.replicas.is_fixed:
        return {"num_replicas": role.replicas.least}
    scaling = AutoscalingConfig(
        min_replicas=role.replicas.least,
        max_replicas=role.replicas.most,
        target_ongoing_requests=role.load,
        upscale_delay_s=settings.upscale_s,
        downscale_delay_s=settings.downscale_s,
        metrics_interval_s=TELL_S,
        look_back_period_s=MEAN_S,
        policy=AutoscalingPolicy(policy_function=by_load),
    )
    return {"autoscaling_config": scaling}


def _reason(settings: RaySettings) -> str:
    """What Serve says of the applications that are not well."""
    applications = serve.status().applications
    messages = []
    for role in settings.roles:
        found = applications.get(app_name(settings.name, role.half))
        if found is not None:
            messages += [state.message for state in found.deployments.values() if state.message]
    return "\n".join(messages)
