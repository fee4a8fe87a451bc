import httpx
import pytest

from rpc.errors import InvalidArgument, Overloaded, TooLarge, Unavailable
from tests.gateway.conftest import Line, StartLine
from tests.gateway.fakes import image_id

PNG = b"\x89PNG pretend"

# So many that of three workers none is without any, but for one run in millions.
NUM_SPREAD = 40


async def upload(line: Line, data: bytes = PNG) -> httpx.Response:
    return await line.client.post("/v1/images", files={"file": ("a.png", data, "image/png")})


async def test_multipart_and_raw_uploads_give_the_same_image(line: Line) -> None:
    """A form's `file` and a raw body are the same image; the second time it is cached."""
    first = await upload(line)
    second = await line.client.post("/v1/images", content=PNG, headers={"Content-Type": "image/png"})
    expected = {
        "id": image_id(PNG),
        "object": "image",
        "width": 30,
        "height": 20,
        "bytes": len(PNG),
        "image_tokens": 16,
        "cached": False,
        "created": 1_700_000_000,
        "expires_at": 1_700_003_600,
    }
    assert (first.status_code, first.json()) == (200, expected)
    assert second.json() == {**expected, "cached": True}


async def test_image_can_be_looked_up_and_forgotten(line: Line) -> None:
    """GET and HEAD know an image until DELETE; then all three say 404."""
    path = f"/v1/images/{(await upload(line)).json()['id']}"
    assert (await line.client.get(path)).json()["width"] == 30
    head = await line.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    deleted = await line.client.delete(path)
    assert deleted.json() == {"id": image_id(PNG), "object": "image", "deleted": True}
    for method in ("GET", "HEAD", "DELETE"):
        assert (await line.client.request(method, path)).status_code == 404


@pytest.mark.parametrize("image", ["../secret", "img_", "img_..", "img_" + "a" * 500, "foo", "img_a%00b", "img_é"])
async def test_id_that_cannot_exist_is_not_found(line: Line, image: str) -> None:
    """An id that this server could not have made is a 404 like any unknown one, and reaches no worker."""
    reply = await line.client.get(f"/v1/images/{image}")
    assert reply.status_code == 404
    assert reply.json()["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidArgument("not an image", reason="NOT_AN_IMAGE"), 400, "not_an_image"),
        (TooLarge("over 5 bytes"), 413, "too_large"),
        (Overloaded("the queue is full", retry_after_s=3), 503, "overloaded"),
        (Unavailable("starting"), 503, "unavailable"),
    ],
)
async def test_worker_errors_reach_the_client(line: Line, error: Exception, status: int, code: str) -> None:
    """What the vision worker says of an upload is what the client is told."""
    line.vision.error = error
    reply = await upload(line)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert reply.headers.get("retry-after") == {"overloaded": "3", "unavailable": "1"}.get(code)


async def test_bad_uploads_name_the_field(line: Line) -> None:
    """An empty image, a form without `file`, and a form with another field are 400."""
    replies = [
        await upload(line, b""),
        await line.client.post("/v1/images"),
        await line.client.post("/v1/images", files={"hash": ("h", b"x")}),
        await line.client.post("/v1/images", data={"file": "text"}, files={"file": ("a", b"x")}),
        await line.client.post("/v1/images", content=b"x", headers={"Content-Type": "multipart/form-data"}),
        await line.client.post("/v1/images", content=b"x", headers={"Content-Type": "multipart/form-data; boundary=b"}),
    ]
    assert [reply.status_code for reply in replies] == [400] * 6
    assert replies[2].json()["error"]["param"] == "hash"
    assert line.vision.encoded == []


async def test_message_over_grpc_limit_is_too_large(line: Line) -> None:
    """An image over the worker's message limit is a 413, not an internal error."""
    reply = await line.client.post("/v1/images", content=bytes(9 * 1024 * 1024))
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")


async def test_equal_bytes_go_to_one_vision_worker(start_line: StartLine) -> None:
    """With several vision workers the same bytes always go to the same one, and images are spread."""
    line = await start_line(visions=3)
    for number in range(NUM_SPREAD):
        for _ in range(2):
            await upload(line, b"image %d" % number)
    spread = [len(fake.encoded) for fake in line.visions]
    assert sum(spread) == NUM_SPREAD
    assert sum(len(fake.images) for fake in line.visions) == NUM_SPREAD
    assert all(spread)


@pytest.mark.parametrize(
    ("charset", "name"), [("undefined", "file"), ("unicode_escape", "\\\\ud800"), ("no-such", "file")]
)
async def test_a_form_in_an_odd_charset_is_the_clients_fault(line: Line, charset: str, name: str) -> None:
    """One that cannot be read, one in which a name is half of a surrogate pair, and one that nobody knows."""
    body = f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\nx\r\n--b--\r\n'
    headers = {"Content-Type": f"multipart/form-data; boundary=b; charset={charset}"}
    reply = await line.client.post("/v1/images", content=body.encode(), headers=headers)
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error"), reply.text


async def test_images_of_unshared_stores_are_found_and_forgotten_everywhere(start_line: StartLine) -> None:
    """Each worker may have a store of its own: lookups ask all of them, and a delete reaches all of them."""
    line = await start_line(visions=2)
    ids = [(await upload(line, b"image %d" % number)).json()["id"] for number in range(6)]
    for image in ids:
        assert (await line.client.get(f"/v1/images/{image}")).status_code == 200
        assert (await line.client.delete(f"/v1/images/{image}")).status_code == 200
    assert all(not fake.images for fake in line.visions)


async def test_vision_worker_that_is_away_is_replaced_once(start_line: StartLine) -> None:
    """An encoding is tried on one more worker when the first is unavailable, then given up with Retry-After."""
    line = await start_line(visions=2)
    line.visions[0].error = Unavailable("restarting", retry_after_s=2)
    assert [(await upload(line, b"image %d" % number)).status_code for number in range(4)] == [200] * 4
    line.visions[1].error = Unavailable("restarting", retry_after_s=2)
    refused = await upload(line)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")


async def test_a_deleted_image_is_forgotten_by_every_language_worker(start_line: StartLine) -> None:
    """A delete reaches the language workers too, which may hold the embedding and its prefix."""
    line = await start_line(languages=2)
    image = (await upload(line)).json()["id"]
    assert (await line.client.delete(f"/v1/images/{image}")).status_code == 200
    assert [fake.forgotten for fake in line.languages] == [[("public", image)]] * 2


async def test_a_delete_that_a_vision_worker_missed_reaches_the_language_workers(start_line: StartLine) -> None:
    """What the others deleted nobody shall answer about, whether or not the delete has to be asked for again."""
    line = await start_line(visions=2)
    image = (await upload(line)).json()["id"]
    await line.vision_servers[1].drain(0)
    assert (await line.client.delete(f"/v1/images/{image}")).status_code == 503
    assert line.language.forgotten == [("public", image)]


async def test_delete_that_may_have_missed_a_worker_is_not_a_success(start_line: StartLine) -> None:
    """When a worker does not answer, the image may still be there, and a delete says so."""
    line = await start_line(visions=2)
    image = (await upload(line)).json()["id"]
    await line.vision_servers[0].drain(0)
    reply = await line.client.delete(f"/v1/images/{image}")
    assert reply.status_code == 503
    assert "127.0.0.1" not in reply.text
