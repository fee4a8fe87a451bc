"""Each call as data: what is sent, and how its reply is read. Pure; the transports send them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from lookonce.client import replies
from lookonce.client.errors import UnreadableImage
from lookonce.client.pictures import ID_SCHEME, Data, Picture, Reference
from lookonce.client.values import Answers, ImageInfo, Moderation, Question

Value = TypeVar("Value", covariant=True)
Asked = str | Question
ANSWERS = "/v1/answers"


@dataclass(frozen=True, slots=True)
class Call(Generic[Value]):
    """One call.

    Attributes:
        read: Makes the value of a successful reply's JSON; of a reply that is text, of {"text": …}.
        json: The body as JSON; None: none.
        content: The body as bytes, where it is no JSON.
        retried: A failure may be tried again.
        timeout_s: In place of the client's own.
        taken: Statuses that are not errors here, beside the successes.
        is_text: A successful reply is text, and no JSON.
        is_done_if_missing: A second try that finds nothing is a success: the first one's reply was lost.
    """

    method: str
    path: str
    read: Callable[[Mapping[str, Any]], Value]
    json: Mapping[str, Any] | None = None
    content: bytes | None = None
    retried: bool = True
    timeout_s: float | None = None
    taken: frozenset[int] = frozenset()
    is_text: bool = False
    is_done_if_missing: bool = False


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are generated. What is None is left to the server; without a temperature decoding is greedy."""

    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: Sequence[str] | None = None
    model: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """The request's fields."""
        named = {
            "system": self.system,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": None if self.stop is None else list(self.stop),
            "model": self.model,
        }
        return {name: value for name, value in named.items() if value is not None} | dict(self.more)


# Nothing is asked of the server: its defaults.
SERVERS_OWN = Sampling()


def several(pictures: Picture | Sequence[Picture]) -> tuple[Picture, ...]:
    """One picture, or several."""
    return (pictures,) if isinstance(pictures, str | bytes | Path) else tuple(pictures)


def asked(questions: Asked | Sequence[Asked]) -> tuple[Asked, ...]:
    """One question, or several."""
    return (questions,) if isinstance(questions, str | Question) else tuple(questions)


def answers(
    images: Sequence[Data | Reference], questions: Sequence[Asked], sampling: Sampling, *, stream: bool = False
) -> Call[Answers]:
    """Questions about images that are asked about together."""
    body = {
        "images": [image.url for image in images],
        "questions": [_question(question) for question in questions],
        **sampling.fields(),
        **({"stream": True} if stream else {}),
    }
    return Call("POST", ANSWERS, replies.answers, json=body)


def _question(question: Asked) -> dict[str, Any]:
    if isinstance(question, str):
        return {"text": question}
    more = {
        "id": question.id,
        "choices": list(question.choices),
        "max_tokens": question.max_tokens,
        "response_format": question.response_format,
    }
    return {"text": question.text, **{name: value for name, value in more.items() if value}}


def upload(picture: Data | Reference) -> Call[ImageInfo]:
    """An image's bytes, looked at once; one that is known is only asked for. Raises `UnreadableImage` for a URL."""
    if isinstance(picture, Data):
        return Call("POST", "/v1/images", replies.image, content=picture.data)
    if picture.id is None:
        raise UnreadableImage(f"cannot upload {picture.url:.100}: give a file, or ask about the URL itself")
    return image(picture.id)


def image(image_id: str) -> Call[ImageInfo]:
    """What is known of an image."""
    return Call("GET", _image_path(image_id), replies.image)


def delete(image_id: str) -> Call[None]:
    """Has the server forget an image."""
    return Call("DELETE", _image_path(image_id), lambda _: None, is_done_if_missing=True)


def _image_path(image_id: str) -> str:
    return f"/v1/images/{quote(image_id.removeprefix(ID_SCHEME), safe='')}"


def moderate_image(picture: Data | Reference, model: str | None) -> Call[tuple[Moderation, ...]]:
    """One image held against the server's policies."""
    return _moderation([{"type": "image_url", "image_url": {"url": picture.url}}], model)


def moderate_texts(texts: Sequence[str], model: str | None) -> Call[tuple[Moderation, ...]]:
    """Texts held against the server's policies, a result each."""
    return _moderation(list(texts), model)


def _moderation(given: list[Any], model: str | None) -> Call[tuple[Moderation, ...]]:
    body = {"input": given} | ({"model": model} if model else {})
    return Call("POST", "/v1/moderations", replies.moderations, json=body)


def policies() -> Call[dict[str, Any]]:
    """The server's policies, as it lists them."""
    return Call("GET", "/v1/policies", dict)


def models() -> Call[tuple[str, ...]]:
    """The names of the served models."""
    return Call("GET", "/v1/models", replies.models)


def ready(timeout_s: float) -> Call[dict[str, Any]]:
    """/ready, whatever it says."""
    return Call("GET", "/ready", replies.ready, retried=False, timeout_s=timeout_s, taken=frozenset({503}))


def metrics(timeout_s: float) -> Call[str]:
    """Prometheus' text."""
    return Call("GET", "/metrics", lambda body: str(body["text"]), retried=False, timeout_s=timeout_s, is_text=True)


def health(timeout_s: float) -> Call[bool]:
    """Whether it is a server of ours."""
    return Call("GET", "/health", lambda body: body.get("status") == "ok", retried=False, timeout_s=timeout_s)
