"""`Client`: every call over httpx's blocking transport."""

import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

from lookonce.client import calls
from lookonce.client.calls import SERVERS_OWN, Asked, Call, Sampling
from lookonce.client.errors import ClientError
from lookonce.client.events import Event, Events
from lookonce.client.pictures import Picture, load, load_all
from lookonce.client.retries import Retries, retrying
from lookonce.client.transport import (
    ANSWER_S,
    DEFAULT_SERVER,
    PROBE_S,
    READY_S,
    Place,
    check_stream,
    value,
)
from lookonce.client.values import Answers, ImageInfo, Moderation

Value = TypeVar("Value")


class Client:
    """A gateway at a URL. May be used by several threads at once.

    Args:
        server: Its URL, http or https.
        token: Its token, where it wants one.
        timeout_s: For one call, its retries not counted.
        retries: What is tried again.
        ca: PEM file of the authority that signed its certificate; None: those of the system.
        transport: In place of httpx's own.

    Every call raises a `ClientError`; see errors.py for the tree.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        token: str | None = None,
        *,
        timeout_s: float = ANSWER_S,
        retries: Retries | None = None,
        ca: str | Path | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.server = server.rstrip("/")
        self._place = Place(self.server, token, timeout_s, ca)
        self._retries = retries or Retries()
        self._http = httpx.Client(transport=transport, verify=self._place.verify())

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def upload(self, picture: Picture) -> "Image":
        """Has the server look at an image: a file or bytes. What it knows already is only asked for."""
        return Image(self._do(calls.upload(load(picture))), self)

    def image(self, image_id: str) -> "Image":
        """An image that was uploaded before. Raises `Missing`."""
        return Image(self._do(calls.image(image_id)), self)

    def delete(self, image_id: str) -> None:
        """Has the server forget an image. Raises `Missing`."""
        self._do(calls.delete(image_id))

    def ask(
        self, images: Picture | Sequence[Picture], questions: Asked | Sequence[Asked], sampling: Sampling = SERVERS_OWN
    ) -> Answers:
        """Asks many questions about an image, or about several together."""
        return self._do(calls.answers(load_all(calls.several(images)), calls.asked(questions), sampling))

    def stream(
        self, images: Picture | Sequence[Picture], questions: Asked | Sequence[Asked], sampling: Sampling = SERVERS_OWN
    ) -> Generator[Event, None, None]:
        """The same as it comes: pieces of answers (`Delta`), whole answers (`Answer`), and at last `Done`.

        Raises `StreamBroken` where it ends before that. Close it to leave early.
        """
        loaded = load_all(calls.several(images))
        return self._stream(calls.answers(loaded, calls.asked(questions), sampling, stream=True))

    def moderate(
        self, *, images: Sequence[Picture] = (), texts: Sequence[str] = (), model: str | None = None
    ) -> tuple[Moderation, ...]:
        """Holds images and texts against the server's policies; a result each, the images' first."""
        found = [result for picture in images for result in self._do(calls.moderate_image(load(picture), model))]
        return (*found, *(self._do(calls.moderate_texts(texts, model)) if texts else ()))

    def policies(self) -> dict[str, Any]:
        """The server's policies, as /v1/policies lists them."""
        return self._do(calls.policies())

    def models(self) -> tuple[str, ...]:
        """The names of the served models."""
        return self._do(calls.models())

    def ready(self) -> dict[str, Any]:
        """What /ready says, whether ready or not."""
        return self._do(calls.ready(READY_S))

    def metrics(self) -> str:
        """What /metrics says: every process's counters, as Prometheus' text."""
        return self._do(calls.metrics(READY_S))

    def is_there(self) -> bool:
        """Whether a server of ours answers at the URL."""
        try:
            return self._do(calls.health(PROBE_S))
        except ClientError:
            return False

    def _do(self, call: Call[Value]) -> Value:
        if not call.retried:
            return self._once(call)
        tries = itertools.count()
        return retrying(self._retries)(lambda: self._once(call, is_again=next(tries) > 0))

    def _once(self, call: Call[Value], *, is_again: bool = False) -> Value:
        with self._place.translated(call):
            response = self._http.request(**self._place.arguments(call))
        return value(response, call, is_again=is_again)

    def _stream(self, call: Call[Answers]) -> Generator[Event, None, None]:
        response = retrying(self._retries)(self._begin, call)
        try:
            with self._place.translated(call):
                yield from _events(response.iter_bytes())
        finally:
            response.close()

    def _begin(self, call: Call[Answers]) -> httpx.Response:
        with self._place.translated(call):
            response = self._http.send(self._http.build_request(**self._place.arguments(call)), stream=True)
            if not response.is_success:
                response.read()
        check_stream(response)
        return response


def _events(pieces: Iterator[bytes]) -> Iterator[Event]:
    events = Events()
    for piece in pieces:
        yield from events.feed(piece)
    events.check_ended()


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the server knows, to be asked about.

    Attributes:
        info: What is known of it.
    """

    info: ImageInfo
    _client: Client = field(repr=False, compare=False)

    @property
    def id(self) -> str:
        """The server's id of it, valid wherever the server's store is."""
        return self.info.id

    def ask(self, questions: Asked | Sequence[Asked], sampling: Sampling = SERVERS_OWN) -> Answers:
        """Asks many questions about it; what they share is computed once."""
        return self._client.ask(self.id, questions, sampling)

    def stream(self, questions: Asked | Sequence[Asked], sampling: Sampling = SERVERS_OWN) -> Iterator[Event]:
        """The same as it comes; see `Client.stream`."""
        return self._client.stream(self.id, questions, sampling)

    def moderate(self, *, model: str | None = None) -> Moderation:
        """Holds it against the server's policies."""
        return self._client.moderate(images=[self.id], model=model)[0]

    def delete(self) -> None:
        """Has the server forget it."""
        self._client.delete(self.id)
