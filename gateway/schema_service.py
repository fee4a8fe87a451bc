"""The replies about images, models and the service itself."""

from typing import Literal

from pydantic import Field

from gateway.schema import Output


class ImageBody(Output):
    """What is known of an uploaded image."""

    id: str
    object: Literal["image"]
    width: int
    height: int
    bytes: int
    image_tokens: int
    cached: bool
    created: int
    expires_at: int | None


class DeletedImage(Output):
    """An image that is forgotten."""

    id: str
    object: Literal["image"]
    deleted: bool


class ModelBody(Output):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Output):
    """The models that are served: one."""

    object: Literal["list"]
    data: list[ModelBody]


class Health(Output):
    """The process is alive."""

    status: Literal["ok"]


class WorkerState(Output):
    """One worker as the gateway sees it."""

    address: str
    reachable: bool
    paired: bool
    problem: str | None


class Readiness(Output):
    """Whether questions can be answered.

    ready: every worker answers and is paired. degraded: questions are answered, though something is missing. unready:
    no language worker that is paired answers.
    """

    status: Literal["ready", "degraded", "unready"]
    missing: list[Literal["vision", "language"]]
    vision: list[WorkerState]
    language: list[WorkerState]
    body_bytes: int = Field(description="The largest request that the gateway takes.")
    now: float = Field(description="The gateway's clock: Unix seconds.")
