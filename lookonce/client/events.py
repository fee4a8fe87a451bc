"""A stream of /v1/answers, as its bytes come, to values. Pure.

Server-sent events as the gateway writes them: `data: ` and a JSON object, an empty line, and `data: [DONE]` at the end.
"""

import json
from collections.abc import Iterator
from typing import Any

from lookonce.client import replies
from lookonce.client.errors import BrokenReply, StreamBroken
from lookonce.client.values import Answer, Delta, Done

PREFIX = "data:"
END = "[DONE]"

Event = Delta | Answer | Done


class Events:
    """The events of one stream.

    Attributes:
        ended: The last line has come.
    """

    def __init__(self) -> None:
        self.ended = False
        self._begun = b""

    def feed(self, data: bytes) -> Iterator[Event]:
        """What the next bytes complete. Raises like `take`.

        Lines end as the gateway ends them: a text may hold what ends one elsewhere, such as U+2028.
        """
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            if (event := self.take(line.decode(errors="replace"))) is not None:
                yield event

    def take(self, line: str) -> Event | None:
        """What a line says; None where it says nothing for anybody.

        Raises:
            StreamBroken: the server tells that it failed.
            BrokenReply: a line that is none of ours.
        """
        if self.ended or not line.startswith(PREFIX):
            return None
        data = line.removeprefix(PREFIX).strip()
        if data == END:
            self.ended = True
            return None
        return _event(_parsed(data))

    def check_ended(self) -> None:
        """Raises `StreamBroken` where the stream ended without saying so."""
        if not self.ended:
            raise StreamBroken("the connection ended before every question had its answer")


def _parsed(data: str) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise BrokenReply("the stream has a line that is not one of ours")
    return body


def _event(body: dict[str, Any]) -> Event | None:
    match body.get("object"):
        case "answers.delta":
            return replies.delta(body)
        case "answers.answer":
            index = body.get("index")
            if not isinstance(index, int):
                raise BrokenReply("the stream has an answer without its question's place")
            return replies.answer(body, index)
        case "answers.done":
            return replies.done(body)
    if "error" in body and "object" not in body:
        raise StreamBroken(*replies.failure_code(body))
    return None  # an event of a newer server
