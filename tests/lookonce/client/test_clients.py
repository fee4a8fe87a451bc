"""What both clients send, and what they make of replies."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from lookonce.client import (
    Answer,
    BadRequest,
    BadUrl,
    BrokenReply,
    Busy,
    ClientError,
    Delta,
    Done,
    Forbidden,
    Missing,
    NothingAnswers,
    Question,
    Retries,
    Sampling,
    ServerFailed,
    ServerRefused,
    StreamBroken,
    TimedOut,
    TooLarge,
    TooOften,
    Unauthorized,
    UnreadableImage,
)
from tests.deployment import free_port
from tests.lookonce.client.either import KINDS, Pieces, use
from tests.lookonce.replies import Json, answer, failed, image, reply, usage

pytestmark = pytest.mark.parametrize("kind", KINDS)


class Server:
    """Answers with each reply once, the last one ever after, and remembers the requests."""

    def __init__(self, *replies: httpx.Response | Exception) -> None:
        self._replies = list(replies)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        found = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(found, Exception):
            raise found
        return found

    def body(self, place: int = 0) -> Json:
        """The JSON of a request."""
        body: Json = json.loads(self.requests[place].content)
        return body


def says(body: Any, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): each for name, each in headers.items()})


def refuses(status: int, **headers: str) -> httpx.Response:
    error = {"message": "no such\nthing", "type": "x", "param": "images[0]", "code": "odd"}
    return says({"error": error}, status, x_request_id="r-1", **headers)


def test_questions_become_one_request(kind: str, tmp_path: Path) -> None:
    """Files go as data URLs, ids as references; only what was said is sent."""
    (tmp_path / "a.jpg").write_bytes(b"\x00\xff")
    server = Server(says(reply(answer("red"), answer("two"))))
    asked = ["a?", Question("b?", id="b", choices=("yes", "no"), max_tokens=3)]
    pictures = [tmp_path / "a.jpg", "img_12", b"raw", "https://x/y.png"]
    use(kind, server, lambda c: c.ask(pictures, asked, Sampling(seed=0, temperature=0.0)))
    assert server.body() == {
        "images": [
            "data:image/jpeg;base64," + base64.b64encode(b"\x00\xff").decode(),
            "image:img_12",
            "data:image/*;base64," + base64.b64encode(b"raw").decode(),
            "https://x/y.png",
        ],
        "questions": [{"text": "a?"}, {"text": "b?", "id": "b", "choices": ["yes", "no"], "max_tokens": 3}],
        "seed": 0,
        "temperature": 0.0,
    }
    use(kind, server, lambda c: c.ask("img_12", "a?"))
    assert server.body(1) == {"images": ["image:img_12"], "questions": [{"text": "a?"}]}


def test_answers_are_typed(kind: str) -> None:
    """Texts, choices, tokens, times and errors each have their place; the reply itself is there as well."""
    choices = [
        {"text": "no", "logprob": -2, "probability": 0.25},
        {"text": "yes", "logprob": -1.0, "probability": 0.75},
    ]
    body = reply(answer("red", cached=41, completion=7), answer("yes", choices=choices), failed("it is long"))
    found = use(kind, Server(says(body)), lambda c: c.ask("img_1", ["a?", "b?", "c?"]))
    red, yes, bad = found
    assert (red.text, red.finish_reason, red.index, red.cached_tokens) == ("red", "stop", 0, 41)
    assert (red.usage.prompt_tokens, red.time_s, red.image_cache, red.error) == (50, 0.25, ("hit",), None)
    assert [(each.text, each.logprob, each.probability) for each in yes.choices] == [
        ("no", -2.0, 0.25),
        ("yes", -1.0, 0.75),
    ]
    assert (bad.error.message, bad.error.code, bad.time_s, bad.index) == ("it is long", "bad", None, 2)
    assert found.failed
    assert found.raw == body
    assert (len(found), found[1], found.images, found.image_cache) == (3, yes, ("img_0",), ("miss",))
    with pytest.raises(AttributeError):
        red.text = "blue"


def test_an_upload_is_the_bytes_themselves(kind: str, tmp_path: Path) -> None:
    """A file is sent raw; an image that is known is only asked for, and a URL cannot be uploaded."""
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    server = Server(says(image("img_7", expires_at=9)))
    found = use(kind, server, lambda c: c.upload(str(tmp_path / "a.png")))
    assert (server.requests[0].method, server.requests[0].url.path) == ("POST", "/v1/images")
    assert server.requests[0].content == b"\x89PNG"
    assert (found.id, found.info.num_bytes, found.info.expires_at) == ("img_7", 9, 9)
    use(kind, server, lambda c: c.upload("img_7"))
    assert (server.requests[1].method, server.requests[1].url.path) == ("GET", "/v1/images/img_7")
    with pytest.raises(UnreadableImage, match="cannot upload https://x"):
        use(kind, server, lambda c: c.upload("https://x/y.png"))


def test_an_id_stays_within_its_path(kind: str) -> None:
    """What is given as an id cannot name another route."""
    server = Server(says(image()))
    use(kind, server, lambda c: c.image("../metrics?x"))
    assert server.requests[0].url.raw_path == b"/v1/images/..%2Fmetrics%3Fx"


def test_moderation_is_openais(kind: str) -> None:
    """Images go one a request, texts together; each has its own result, the images' first."""
    result = {"flagged": True, "categories": {"gore": True}, "category_scores": {"gore": 0.9}}
    calm = {"flagged": False, "categories": {"gore": False}, "category_scores": {"gore": 0}}
    server = Server(says({"results": [result]}), says({"results": [calm, calm]}))
    found = use(kind, server, lambda c: c.moderate(images=["img_1"], texts=["a", "b"]))
    assert [each.flagged for each in found] == [True, False, False]
    assert found[0].scores == {"gore": 0.9}
    assert server.body(0) == {"input": [{"type": "image_url", "image_url": {"url": "image:img_1"}}]}
    assert server.body(1) == {"input": ["a", "b"]}
    assert {request.url.path for request in server.requests} == {"/v1/moderations"}


def test_the_token_goes_with_every_call(kind: str) -> None:
    """A token is sent as a bearer token, to the path below the server's URL."""
    server = Server(says({"data": [{"id": "demo"}]}))
    assert use(kind, server, lambda c: c.models(), "http://test/deep/", token="secret") == ("demo",)
    assert str(server.requests[0].url) == "http://test/deep/v1/models"
    assert server.requests[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (403, Forbidden),
        (404, Missing),
        (413, TooLarge),
        (429, TooOften),
        (500, ServerFailed),
        (503, Busy),
        (504, ServerFailed),
    ],
)
def test_a_refusal_is_typed(kind: str, status: int, error: type[ServerRefused]) -> None:
    """Each status has its class, with what OpenAI's error object says, in one line."""
    with pytest.raises(error, match=rf"^the server refused \({status}\): no such thing$") as caught:
        use(kind, Server(refuses(status)), lambda c: c.models(), retries=Retries(times=0))
    found = caught.value
    assert type(found) is error
    assert isinstance(found, ServerRefused)
    assert (found.status, found.code, found.param, found.request_id) == (status, "odd", "images[0]", "r-1")


def test_an_error_that_is_not_ours_is_told_by_its_status(kind: str) -> None:
    """A proxy's page is not printed."""
    with pytest.raises(ServerFailed, match=r"\(502\): Bad Gateway"):
        use(kind, Server(httpx.Response(502, text="<html>")), lambda c: c.models())


@pytest.mark.parametrize("body", [[], {}, {"data": [3]}, {"data": [{"id": 3}]}, "text"])
def test_a_reply_that_is_none_of_ours_is_broken(kind: str, body: Any) -> None:
    """Something else at the URL is no KeyError."""
    with pytest.raises(BrokenReply):
        use(kind, Server(says(body)), lambda c: c.models())


def test_a_busy_server_is_asked_again(kind: str) -> None:
    """After 429, 503, 502 or a lost connection the call is sent again, and its answer counts."""
    lost = httpx.ReadError("lost")
    server = Server(refuses(503, retry_after="0"), refuses(429, retry_after="0"), lost, says({"data": []}))
    assert use(kind, server, lambda c: c.models()) == ()
    assert len(server.requests) == 4
    assert use(kind, Server(refuses(502), says({"data": []})), lambda c: c.models()) == ()


def test_retries_end(kind: str) -> None:
    """After the tries that it is given the last failure is told."""
    server = Server(refuses(503, retry_after="0"))
    with pytest.raises(Busy):
        use(kind, server, lambda c: c.models(), retries=Retries(times=2, first_s=0))
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 500, 504])
def test_what_the_server_understood_is_not_sent_again(kind: str, status: int) -> None:
    """A refusal that would be the same again is told at once."""
    server = Server(refuses(status, retry_after="0"), says({"data": []}))
    with pytest.raises(ServerRefused):
        use(kind, server, lambda c: c.models())
    assert len(server.requests) == 1


def test_a_delete_whose_reply_was_lost_is_done(kind: str) -> None:
    """A second try that finds nothing found what the first one did; a first try that finds nothing says so."""
    server = Server(httpx.ReadError("broke off"), refuses(404))
    assert use(kind, server, lambda c: c.delete("img_1")) is None
    assert len(server.requests) == 2
    with pytest.raises(Missing):
        use(kind, Server(refuses(404)), lambda c: c.delete("img_1"))


def test_a_wait_that_is_too_long_is_not_waited(kind: str) -> None:
    """Where the server names a longer pause than the caller has patience for, the call fails with that pause."""
    server = Server(refuses(429, retry_after="3600"), says({"data": []}))
    with pytest.raises(TooOften) as caught:
        use(kind, server, lambda c: c.models())
    assert caught.value.retry_after_s == 3600
    assert len(server.requests) == 1


def test_time_that_ran_out_is_not_spent_twice(kind: str) -> None:
    """A call that took too long is told so, not sent again."""
    server = Server(httpx.ReadTimeout("slow"))
    with pytest.raises(TimedOut, match="did not answer in 7 s"):
        use(kind, server, lambda c: c.models(), timeout_s=7)
    assert len(server.requests) == 1


def test_no_server_says_what_to_do(kind: str) -> None:
    """An URL where nothing listens is told with a way to start something; it is no server."""
    server = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(NothingAnswers, match="lookonce serve --model demo"):
        use(kind, None, lambda c: c.models(), server)
    assert use(kind, None, lambda c: c.is_there(), server) is False


@pytest.mark.parametrize("server", ["nonsense", "ftp://x", "http://[", "http://a:99999", "http://"])
def test_a_url_that_is_none_says_so(kind: str, server: str) -> None:
    """A server's URL that cannot be one is no traceback, and is not tried again and again."""
    with pytest.raises(BadUrl, match="check the URL"):
        use(kind, None, lambda c: c.models(), server, retries=Retries(times=1, first_s=0))


def test_an_authority_that_is_none_is_told(kind: str, tmp_path: Path) -> None:
    """A file that is no certificate is named when the client is made."""
    (tmp_path / "ca.pem").write_text("no")
    for name in ("ca.pem", "gone.pem"):
        with pytest.raises(ClientError, match=f"{name} is not a PEM file"):
            use(kind, None, lambda c: c.models(), ca=tmp_path / name)


def test_a_server_is_recognised_by_its_health(kind: str) -> None:
    """Something else on the port is not taken for ours."""
    assert use(kind, Server(says({"status": "ok"})), lambda c: c.is_there()) is True
    assert use(kind, Server(httpx.Response(200, text="hello")), lambda c: c.is_there()) is False


def test_an_unready_server_still_tells_its_state(kind: str) -> None:
    """/ready answers 503 with a body, which is what the doctor wants; it is asked once."""
    server = Server(says({"status": "unready"}, 503))
    assert use(kind, server, lambda c: c.ready()) == {"status": "unready"}
    assert len(server.requests) == 1
    with pytest.raises(Unauthorized):
        use(kind, Server(refuses(401)), lambda c: c.ready())
    with pytest.raises(BrokenReply):
        use(kind, Server(says({})), lambda c: c.ready())


def test_metrics_are_text(kind: str) -> None:
    """What /metrics says comes as it is; a refusal is told as of every call."""
    assert use(kind, Server(httpx.Response(200, text="# TYPE a counter\na 1\n")), lambda c: c.metrics()).endswith(
        "a 1\n"
    )
    with pytest.raises(Unauthorized):
        use(kind, Server(refuses(401)), lambda c: c.metrics())


DELTA = {"object": "answers.delta", "index": 1, "id": "b", "delta": "tw"}
WHOLE = {"object": "answers.answer", "index": 1, **answer("two")}
LAST = {
    "object": "answers.done",
    "id": "ans_1",
    "model": "demo",
    "images": ["img_1"],
    "usage": usage(),
    "lookonce": {"image_cache": ["miss"], "prefix_tokens_reused": 3},
}


def stream(*events: Any, end: str = "data: [DONE]\n\n") -> httpx.Response:
    text = "".join(f"data: {each if isinstance(each, str) else json.dumps(each)}\n\n" for each in events)
    return httpx.Response(200, text=text + end, headers={"content-type": "text/event-stream"})


def test_a_stream_is_pieces_answers_and_an_end(kind: str) -> None:
    """Each event has its type; what a newer server says besides, and comments, are passed over."""
    server = Server(
        stream(DELTA, {"object": "answers.new", "error": None}, WHOLE, LAST, end=": hm\n\ndata: [DONE]\n\n")
    )
    piece, whole, last = use(kind, server, lambda c: c.stream("img_1", ["a?", "b?"]))
    assert piece == Delta(1, "b", "tw")
    assert isinstance(whole, Answer)
    assert (whole.index, whole.text) == (1, "two")
    assert isinstance(last, Done)
    assert (last.images, last.prefix_tokens_reused, last.image_cache) == (("img_1",), 3, ("miss",))
    assert server.body()["stream"] is True


def test_what_ends_a_line_elsewhere_ends_none_in_a_stream(kind: str) -> None:
    """Separators that JSON does not escape stay within the text that they are part of."""
    text = "a\u2028b\u2029c\x85d"
    found = use(
        kind, Server(stream(json.dumps(DELTA | {"delta": text}, ensure_ascii=False))), lambda c: c.stream("img_1", "a?")
    )
    assert found == [Delta(1, "b", text)]


def test_a_stream_that_is_sent_elsewhere_is_refused(kind: str) -> None:
    """A redirect is no stream: it is told by its status, and its connection is free again."""
    moved = httpx.Response(301, headers={"location": "https://test/"}, stream=Pieces())
    with pytest.raises(ServerRefused) as caught:
        use(kind, Server(moved), lambda c: c.stream("img_1", "a?"))
    assert caught.value.status == 301
    assert moved.is_closed


def test_a_stream_may_be_refused_or_retried_before_it_begins(kind: str) -> None:
    """What comes in place of a stream is an error like any other."""
    server = Server(refuses(503, retry_after="0"), stream(WHOLE, LAST))
    assert len(use(kind, server, lambda c: c.stream("img_1", "a?"))) == 2
    with pytest.raises(Missing, match="no such thing"):
        use(kind, Server(refuses(404)), lambda c: c.stream("img_1", "a?"))


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([DELTA], "connection ended before"),
        ([DELTA, {"error": {"message": "a worker is gone", "code": "worker_down"}}], "a worker is gone"),
    ],
)
def test_a_stream_that_breaks_says_so(kind: str, events: list[Json], told: str) -> None:
    """Half an answer is never taken for a whole one."""
    with pytest.raises(StreamBroken, match=told) as caught:
        use(kind, Server(stream(*events, end="")), lambda c: c.stream("img_1", "a?"))
    assert caught.value.code == ("worker_down" if "worker" in told else None)


@pytest.mark.parametrize("line", ["{", "[]", '{"object": "answers.answer"}', '{"object": "answers.delta", "index": 0}'])
def test_a_stream_with_a_foreign_line_is_broken(kind: str, line: str) -> None:
    """A damaged event is no KeyError."""
    with pytest.raises(BrokenReply):
        use(kind, Server(stream(line)), lambda c: c.stream("img_1", "a?"))


@pytest.mark.parametrize("name", ["gone.png", "folder", "nu\0l.png"])
def test_a_file_that_cannot_be_read_is_named(kind: str, tmp_path: Path, name: str) -> None:
    """A missing picture is one clear line, and nothing is sent."""
    (tmp_path / "folder").mkdir()
    server = Server(says(reply()))
    with pytest.raises(UnreadableImage, match="cannot read the image"):
        use(kind, server, lambda c: c.ask(str(tmp_path / name), "a?"))
    assert server.requests == []


def test_a_file_named_like_an_id_is_a_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there goes before what the server may know; the scheme says that it is an id."""
    monkeypatch.chdir(tmp_path)
    Path("img_1").write_bytes(b"x")
    server = Server(says(reply(answer("a"))))
    use(kind, server, lambda c: c.ask(["img_1", "image:img_1"], "a?"))
    assert [url[:6] for url in server.body()["images"]] == ["data:i", "image:"]
