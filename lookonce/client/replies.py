"""The server's JSON to values, and its errors to exceptions. Pure.

Fields that this client does not know are left alone, so that an older client reads a newer server's replies.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lookonce.client.errors import BY_STATUS, BrokenReply, ServerFailed, ServerRefused
from lookonce.client.values import (
    Answer,
    Answers,
    CacheState,
    Choice,
    Delta,
    Done,
    Failure,
    ImageInfo,
    Moderation,
    Usage,
)

Json = Mapping[str, Any]


def answers(body: Json) -> Answers:
    """A reply of /v1/answers. Raises `BrokenReply`."""
    return Answers(
        id=_get(body, "id", str),
        model=_get(body, "model", str),
        images=_texts(body, "images"),
        answers=tuple(answer(each, place) for place, each in enumerate(_objects(body, "answers"))),
        usage=usage(_get(body, "usage", dict)),
        image_cache=_states(_get(body, "lookonce", dict)),
        prefix_tokens_reused=_get(_get(body, "lookonce", dict), "prefix_tokens_reused", int),
        raw=body,
    )


def answer(body: Json, index: int) -> Answer:
    """One answer of a reply. Raises `BrokenReply`."""
    told = body.get("lookonce") or {}
    return Answer(
        index=index,
        id=_get(body, "id", str),
        text=_get(body, "text", str),
        finish_reason=_get(body, "finish_reason", str),
        usage=usage(_get(body, "usage", dict)),
        choices=tuple(_choice(each) for each in body.get("choices") or ()),
        image_cache=_states(told) if told else (),
        time_s=_get(told, "time_s", float) if told else None,
        time_to_first_token_s=_get(told, "time_to_first_token_s", float) if told else None,
        error=_failure(body["error"]) if body.get("error") else None,
    )


def delta(body: Json) -> Delta:
    """A piece of an answer. Raises `BrokenReply`."""
    return Delta(_get(body, "index", int), _get(body, "id", str), _get(body, "delta", str))


def done(body: Json) -> Done:
    """The end of a stream. Raises `BrokenReply`."""
    told = _get(body, "lookonce", dict)
    return Done(
        id=_get(body, "id", str),
        model=_get(body, "model", str),
        images=_texts(body, "images"),
        usage=usage(_get(body, "usage", dict)),
        image_cache=_states(told),
        prefix_tokens_reused=_get(told, "prefix_tokens_reused", int),
    )


def usage(body: Json) -> Usage:
    """Tokens. Raises `BrokenReply`."""
    details = _get(body, "prompt_tokens_details", dict)
    return Usage(
        _get(body, "prompt_tokens", int), _get(body, "completion_tokens", int), _get(details, "cached_tokens", int)
    )


def image(body: Json) -> ImageInfo:
    """A reply of /v1/images. Raises `BrokenReply`."""
    return ImageInfo(
        id=_get(body, "id", str),
        width=_get(body, "width", int),
        height=_get(body, "height", int),
        num_bytes=_get(body, "bytes", int),
        image_tokens=_get(body, "image_tokens", int),
        cached=_get(body, "cached", bool),
        created=_get(body, "created", int),
        expires_at=_get(body, "expires_at", int) if body.get("expires_at") is not None else None,
    )


def moderations(body: Json) -> tuple[Moderation, ...]:
    """A reply of /v1/moderations. Raises `BrokenReply`."""
    return tuple(
        Moderation(
            flagged=_get(each, "flagged", bool),
            categories=_get(each, "categories", dict),
            scores=_get(each, "category_scores", dict),
            raw=each,
        )
        for each in _objects(body, "results")
    )


def models(body: Json) -> tuple[str, ...]:
    """A reply of /v1/models. Raises `BrokenReply`."""
    return tuple(_get(each, "id", str) for each in _objects(body, "data"))


def ready(body: Json) -> dict[str, Any]:
    """A reply of /ready. Raises `BrokenReply`."""
    _get(body, "status", str)
    return dict(body)


def refusal(status: int, reason: str, body: Json, retry_after_s: float | None, request_id: str | None) -> ServerRefused:
    """The exception of an error's reply: OpenAI's error object where there is one, else what HTTP says."""
    found = body.get("error")
    error: Json = found if isinstance(found, dict) else {}
    message = " ".join(str(error.get("message") or reason or "no reason given").split())
    kind = BY_STATUS.get(status, ServerFailed)
    code, param = error.get("code"), error.get("param")
    return kind(status, message, code=code, param=param, retry_after_s=retry_after_s, request_id=request_id)


def failure_code(body: Json) -> tuple[str, str | None]:
    """Message and code of an error object within a stream."""
    error = body["error"] if isinstance(body.get("error"), dict) else {}
    return " ".join(str(error.get("message") or "no reason given").split()), error.get("code")


def _failure(body: Json) -> Failure:
    return Failure(_get(body, "message", str), _get(body, "type", str), body.get("code"), body.get("param"))


def _choice(body: Json) -> Choice:
    return Choice(_get(body, "text", str), _get(body, "logprob", float), _get(body, "probability", float))


def _states(told: Json) -> tuple[CacheState, ...]:
    return tuple("hit" if state == "hit" else "miss" for state in _get(told, "image_cache", list))


def _texts(body: Json, name: str) -> tuple[str, ...]:
    return tuple(str(each) for each in _get(body, name, list))


def _objects(body: Json, name: str) -> Sequence[Json]:
    found: list[Json] = _get(body, name, list)
    if not all(isinstance(each, dict) for each in found):
        raise _broken(name)
    return found


def _get(body: Json, name: str, kind: type) -> Any:
    found = body.get(name) if isinstance(body, Mapping) else None
    if kind is float and isinstance(found, int) and not isinstance(found, bool):
        return float(found)
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        raise _broken(name)
    return found


def _broken(name: str) -> BrokenReply:
    return BrokenReply(f"the reply has no sound field {name!r}: is the server of another version, or something else?")
