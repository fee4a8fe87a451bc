"""Images from the network: what may be fetched, from where, and what stops it. The host is a real one on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from gateway.errors import ApiError, BadRequest, BodyTooLarge
from gateway.fetching import Fetcher, is_public
from gateway.settings import FetchSettings
from tests.gateway.conftest import StartLine

PICTURE = b"\x89PNG the bytes of a picture"
PARAM = "images[0]"


@dataclass
class Host:
    """A web server whose paths answer as scripted.

    Attributes:
        port: Where it listens.
        asked: The heads of all requests.
        connections: How many were made.
        replies: By path, what is written back.
        endless: Written again and again after the reply to /endless.
    """

    port: int
    asked: list[str] = field(default_factory=list)
    connections: int = 0
    replies: dict[str, bytes] = field(default_factory=dict)

    def url(self, path: str, name: str = "pictures.example") -> str:
        """A URL of this host under a name."""
        return f"http://{name}:{self.port}{path}"


def ok(body: bytes, head: str = "") -> bytes:
    """A reply of success."""
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


def moved(to: str) -> bytes:
    """A redirect."""
    return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


@asynccontextmanager
async def hosting() -> AsyncIterator[Host]:
    """The web server."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        host.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                host.asked.append(head.decode())
                path = head.split()[1].decode()
                writer.write(host.replies.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
                while path == "/endless":
                    writer.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")
                    await writer.drain()
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host = Host(server.sockets[0].getsockname()[1])
    host.replies["/endless"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    host.replies["/silent"] = b""
    try:
        yield host
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    async with hosting() as started:
        yield started


def resolving(*answers: Sequence[str]) -> Callable[[str, int], "asyncio.Future[Sequence[str]]"]:
    """A name service that gives these answers one after the other, and then fails the test."""
    left = list(answers)

    async def resolve(name: str, port: int) -> Sequence[str]:
        return left.pop(0)

    return resolve  # type: ignore[return-value]  # a coroutine function is such a callable


@asynccontextmanager
async def fetching(
    host: Host,
    *,
    answers: Sequence[Sequence[str]] = (["127.0.0.1"],) * 8,
    is_allowed: Callable[[str], bool] = lambda address: address == "127.0.0.1",
    image_bytes: int = 1000,
    image_s: float = 5.0,
) -> AsyncIterator[Fetcher]:
    """A fetcher to which loopback is as good as public."""
    limits = FetchSettings(
        (f"pictures.example:{host.port}", f"*.cdn.example:{host.port}"), image_bytes=image_bytes, image_s=image_s
    )
    fetcher = Fetcher(limits, resolving(*answers), is_allowed)
    try:
        yield fetcher
    finally:
        await fetcher.close()


async def refusal(fetcher: Fetcher, url: str) -> ApiError:
    """Why a URL gives no image."""
    with pytest.raises(ApiError) as caught:
        await fetcher.fetch(url, PARAM)
    assert caught.value.param == PARAM
    assert "127.0.0.1" not in caught.value.message
    return caught.value


async def test_an_image_of_an_allowed_domain_is_fetched(host: Host) -> None:
    """Its bytes come, the host is asked by its name, and nothing of ours is told."""
    host.replies["/a.png"] = ok(PICTURE)
    async with fetching(host) as fetcher:
        assert await fetcher.fetch(host.url("/a.png"), PARAM) == PICTURE
        assert await fetcher.fetch(host.url("/a.png", "eu.cdn.example"), PARAM) == PICTURE
    assert f"Host: pictures.example:{host.port}" in host.asked[0]
    assert "ookie" not in host.asked[0]
    assert "uthorization" not in host.asked[0]


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/a.png",
        "http://pictures.example.evil.example:{port}/a.png",
        "http://pictures.example:1/a.png",
        "http://pictures.example/a.png",
        "http://cdn.example:{port}/a.png",
        "http://evilcdn.example:{port}/a.png",
        "http://127.0.0.1:{port}/a.png",
        "http://127.1:{port}/a.png",
        "http://2130706433:{port}/a.png",
        "http://0x7f000001:{port}/a.png",
        "http://0177.0.0.1:{port}/a.png",
        "http://[::1]:{port}/a.png",
        "http://[::ffff:127.0.0.1]:{port}/a.png",
        "http://localhost:{port}/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://pictures.example:{port}@127.0.0.1/a.png",
        "http://me:secret@pictures.example:{port}/a.png",
        "http://pictures.example\\@127.0.0.1:{port}/a.png",
        "https:///a.png",
        "http://",
        "http://[::1/a.png",
        "http://" + "a" * 9000,
    ],
)
async def test_other_hosts_are_not_asked(host: Host, url: str) -> None:
    """Whatever is not an allowed domain with its port is refused by its words alone: no name is looked up."""
    host.replies["/a.png"] = ok(PICTURE)
    async with fetching(host, answers=()) as fetcher:
        error = await refusal(fetcher, url.format(port=host.port))
    assert error.code in ("url_not_allowed", "bad_image_url")
    assert not host.asked


async def test_nothing_is_fetched_by_default(host: Host) -> None:
    """Without domains every URL is refused, and the refusal says what works."""
    fetcher = Fetcher(FetchSettings(), resolving())
    error = await refusal(fetcher, host.url("/a.png"))
    await fetcher.close()
    assert error.code == "url_not_allowed"
    assert "data URL" in error.message
    assert "POST /v1/images" in error.message


@pytest.mark.parametrize("to", ["http://127.0.0.1:{port}/a.png", "http://other.example/a.png", "file:///etc/passwd"])
async def test_a_redirect_is_looked_at_like_the_first_url(host: Host, to: str) -> None:
    """One that leads elsewhere is not followed."""
    host.replies["/a.png"] = ok(PICTURE)
    host.replies["/moved"] = moved(to.format(port=host.port))
    async with fetching(host) as fetcher:
        error = await refusal(fetcher, host.url("/moved"))
    assert error.code in ("url_not_allowed", "bad_image_url")
    assert len(host.asked) == 1


async def test_a_redirect_within_the_allowed_is_followed(host: Host) -> None:
    """To another path, and to another allowed domain."""
    host.replies["/a.png"] = ok(PICTURE)
    host.replies["/moved"] = moved("/moved-on")
    host.replies["/moved-on"] = moved(host.url("/a.png", "eu.cdn.example"))
    async with fetching(host) as fetcher:
        assert await fetcher.fetch(host.url("/moved"), PARAM) == PICTURE


async def test_redirects_end(host: Host) -> None:
    """A URL that leads to itself is given up after a few."""
    host.replies["/round"] = moved("/round")
    async with fetching(host) as fetcher:
        assert (await refusal(fetcher, host.url("/round"))).code == "image_url_failed"
    assert len(host.asked) <= 5


async def test_an_allowed_name_with_a_private_address_is_refused(host: Host) -> None:
    """Loopback is no public address, alone or among others."""
    async with fetching(host, is_allowed=is_public, answers=[["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], []]) as fetcher:
        for _ in range(3):
            assert (await refusal(fetcher, host.url("/a.png"))).code == "url_not_allowed"
    assert not host.asked


async def test_a_redirect_to_a_name_with_a_private_address_is_refused(host: Host) -> None:
    """Each name that a redirect leads to is looked up and looked at."""
    host.replies["/moved"] = moved(host.url("/a.png", "in.cdn.example"))
    async with fetching(host, answers=[["127.0.0.1"], ["10.0.0.1"]]) as fetcher:
        assert (await refusal(fetcher, host.url("/moved"))).code == "url_not_allowed"
    assert len(host.asked) == 1


async def test_a_name_is_looked_up_once(host: Host) -> None:
    """An answer that changes changes nothing: the connection goes to the address that was looked at."""
    host.replies["/a.png"] = ok(PICTURE)
    async with fetching(host, answers=[["127.0.0.1"]]) as fetcher:
        assert await fetcher.fetch(host.url("/a.png"), PARAM) == PICTURE


async def test_names_at_one_address_share_nothing(host: Host) -> None:
    """A connection that was made for one name is not used for another, and no cookie goes from one to the next."""
    host.replies["/a.png"] = ok(PICTURE, "Set-Cookie: whose=pictures\r\n")
    async with fetching(host) as fetcher:
        await fetcher.fetch(host.url("/a.png"), PARAM)
        await fetcher.fetch(host.url("/a.png", "eu.cdn.example"), PARAM)
    assert host.connections == 2
    assert "ookie" not in host.asked[1]


@pytest.mark.parametrize("name", ["a" * 64 + ".cdn.example", "a..cdn.example"])
async def test_a_name_that_cannot_be_one_is_refused(host: Host, name: str) -> None:
    """A part of a name that is too long or empty is the client's fault, and nothing is asked."""
    fetcher = Fetcher(FetchSettings((f"*.cdn.example:{host.port}",)))
    try:
        assert (await refusal(fetcher, host.url("/a.png", name))).code == "image_url_failed"
    finally:
        await fetcher.close()
    assert not host.asked


@pytest.mark.parametrize("path", ["/large", "/endless"])
async def test_a_large_image_is_given_up(host: Host, path: str) -> None:
    """One over the limit, and one that never ends, are 413."""
    host.replies["/large"] = ok(bytes(1001))
    async with fetching(host) as fetcher:
        assert isinstance(await refusal(fetcher, host.url(path)), BodyTooLarge)


async def test_a_silent_host_is_given_up(host: Host) -> None:
    """What does not come in time is refused, and says so."""
    async with fetching(host, image_s=0.3) as fetcher:
        assert (await refusal(fetcher, host.url("/silent"))).code == "image_url_timeout"


@pytest.mark.parametrize("path", ["/missing", "/empty", "/garbage", "/cut"])
async def test_what_is_no_success_is_no_image(host: Host, path: str) -> None:
    """An error, an empty body, words that are no HTTP, and a body that is cut off are refused."""
    host.replies |= {"/empty": ok(b""), "/garbage": b"220 smtp.example\r\n\r\n", "/cut": ok(bytes(50))[:-20]}
    async with fetching(host, image_s=0.5) as fetcher:
        assert isinstance(await refusal(fetcher, host.url(path)), BadRequest)


async def test_a_dead_host_is_told(host: Host) -> None:
    """One that takes no connection is refused without a word of its address."""
    port = host.port
    async with hosting() as gone:
        host.port = gone.port
    async with fetching(host) as fetcher:
        assert (await refusal(fetcher, host.url("/a.png"))).code == "image_url_failed"
    host.port = port


NOT_PUBLIC = """
0.0.0.0 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 192.0.0.1 192.0.2.1 192.168.0.1
198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1 255.255.255.255
:: ::1 ::7f00:1 fec0::1 fe80::1 fe80::1%eth0 fc00::1 fd12:3456::1 ff02::1 2001:db8::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1
64:ff9b::7f00:1 64:ff9b::a00:1 2002:7f00:1:: 2002:a9fe:a9fe:: 2001:0:4136:e378:8000:63bf:80ff:fffe
localhost 127.1 2130706433
"""


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_addresses_that_are_not_public(address: str) -> None:
    """Loopback, private, shared, reserved, documentation, also within an IPv6 address; and what is no address."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_that_are_public(address: str) -> None:
    """Those of the public network."""
    assert is_public(address)


async def test_a_url_in_a_request_is_fetched_and_encoded(host: Host, start_line: StartLine) -> None:
    """What a request names by URL reaches the vision worker as bytes, through the whole gate."""
    host.replies["/a.png"] = ok(PICTURE)
    line = await start_line(fetch=FetchSettings((f"pictures.example:{host.port}",)))
    service = line.app.state.service
    await service.fetcher.close()
    service.fetcher = Fetcher(service.settings.fetch, resolving(["127.0.0.1"]), lambda address: True)
    part = {"type": "image_url", "image_url": {"url": host.url("/a.png")}}
    chat = {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "what?"}]}]}
    assert (await line.post("/v1/chat/completions", chat)).status_code == 200
    assert line.vision.encoded == [PICTURE]
    refused = await line.post("/v1/answers", {"images": ["https://other.example/"], "questions": [{"text": "what?"}]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "images[0]")


async def test_the_fetched_frames_of_a_video_are_bounded_together(host: Host, start_line: StartLine) -> None:
    """A list of many small pictures is given up as soon as they are too much for one video."""
    host.replies["/a.png"] = ok(PICTURE)
    limits = FetchSettings((f"pictures.example:{host.port}",), image_bytes=50, video_bytes=100)
    line = await start_line(fetch=limits)
    service = line.app.state.service
    await service.fetcher.close()
    service.fetcher = Fetcher(limits, resolving(*[["127.0.0.1"]] * 9), lambda address: True)
    part = {"type": "video", "video": [host.url("/a.png")] * 9}
    refused = await line.post("/v1/chat/completions", {"messages": [{"role": "user", "content": [part]}]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (413, "messages[0].content[0].video[3]")
    assert len(host.asked) == 4
