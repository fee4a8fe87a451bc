"""The Python client: an image looked at once, many questions, typed answers. Imports neither torch nor transformers.

    from lookonce import Client

    with Client("http://127.0.0.1:8000") as client:
        image = client.upload("receipt.jpg")
        for answer in image.ask(["What is the total?", "Which currency?"]):
            print(answer.text)

values.py      what comes back, and questions: frozen dataclasses
pictures.py    what may be given as an image → bytes or a reference
calls.py       each call as data: what is sent, and how its reply is read. Pure
replies.py     JSON → values; errors → exceptions. Pure
events.py      a stream's lines → values. Pure
retries.py     what is tried again, and when
transport.py   how calls go onto the wire, and httpx's failures in our words
sync.py        `Client`: the calls over httpx's blocking transport
concurrent.py  `AsyncClient`: the same over its async one
"""

from lookonce.client.calls import Sampling
from lookonce.client.concurrent import AsyncClient, AsyncImage
from lookonce.client.errors import (
    BadRequest,
    BadUrl,
    BrokenReply,
    Busy,
    ClientError,
    Forbidden,
    Missing,
    NothingAnswers,
    ServerFailed,
    ServerRefused,
    StreamBroken,
    TimedOut,
    TooLarge,
    TooOften,
    Unauthorized,
    UnreadableImage,
    Untrusted,
)
from lookonce.client.retries import Retries
from lookonce.client.sync import Client, Image
from lookonce.client.transport import DEFAULT_SERVER
from lookonce.client.values import (
    Answer,
    Answers,
    Choice,
    Delta,
    Done,
    Failure,
    ImageInfo,
    Moderation,
    Question,
    Usage,
)

__all__ = [
    "DEFAULT_SERVER",
    "Answer",
    "Answers",
    "AsyncClient",
    "AsyncImage",
    "BadRequest",
    "BadUrl",
    "BrokenReply",
    "Busy",
    "Choice",
    "Client",
    "ClientError",
    "Delta",
    "Done",
    "Failure",
    "Forbidden",
    "Image",
    "ImageInfo",
    "Missing",
    "Moderation",
    "NothingAnswers",
    "Question",
    "Retries",
    "Sampling",
    "ServerFailed",
    "ServerRefused",
    "StreamBroken",
    "TimedOut",
    "TooLarge",
    "TooOften",
    "Unauthorized",
    "UnreadableImage",
    "Untrusted",
    "Usage",
]
