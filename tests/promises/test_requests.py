"""The promises about bad requests."""

import grpc
import pytest

from protos import language_pb2, vision_pb2
from tests.end_to_end.asking import data_url
from tests.promises.checking import check_grpc, check_http
from tests.promises.requests import CHAT_FIELDS, URLS
from tests.promises.served import Served


@pytest.mark.parametrize("name", CHAT_FIELDS)
def test_bad_field_is_refused_by_name(served: Served, name: str) -> None:
    """The field is named in the error object, and the next good request is answered."""
    fields, param = CHAT_FIELDS[name]
    response = served.chat(data_url(1), **fields)
    check_http(response, 400, param)
    assert response.json()["error"]["param"] == param
    served.check_good()


@pytest.mark.parametrize("name", URLS)
def test_bad_image_url_is_refused(served: Served, name: str) -> None:
    """What is not a sound data URL is a 400, and nothing is fetched."""
    url, code = URLS[name]
    response = served.chat(url)
    check_http(response, 400)
    assert response.json()["error"]["code"] == code
    served.check_good()


def test_unknown_route_is_404(served: Served) -> None:
    """A route that is not there is a typed 404."""
    check_http(served.deployment.http.get("/v1/nothing"), 404)


@pytest.mark.parametrize("name", ["../../etc/passwd", "img_" + "0" * 40])
def test_unknown_image_is_404(served: Served, name: str) -> None:
    """An id that nobody has is a typed 404."""
    check_http(served.chat(f"image:{name}"), 404, "no such image")


@pytest.mark.parametrize("tenant", ["a\0b", "a:b", "{a}", "t" * 1_000_000], ids=["nul", "colon", "braces", "1 MB"])
def test_bad_tenant_is_refused_over_grpc(served: Served, tenant: str) -> None:
    """Both workers say INVALID_ARGUMENT."""
    generate = language_pb2.GenerateRequest(tenant=tenant, messages=[language_pb2.Message(role="user")])
    calls = (
        lambda: served.vision.GetImage(vision_pb2.GetImageRequest(tenant=tenant, image_id="img_0"), timeout=60),
        lambda: list(served.language.Generate(generate, timeout=60)),
    )
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        check_grpc(caught.value, grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize("raw", [b"\xff" * 50, b"\x0a\x02\xff\xfe"], ids=["garbage", "invalid UTF-8"])
def test_garbage_protobuf_is_invalid_argument(served: Served, raw: bytes) -> None:
    """Bytes that are no message are INVALID_ARGUMENT, not UNKNOWN or INTERNAL."""
    for channel, method in (
        (served.eyes, "/lookonce.vision.v1.VisionService/Encode"),
        (served.mouth, "/lookonce.language.v1.LanguageService/Score"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(method)(raw, timeout=60)
        check_grpc(caught.value, grpc.StatusCode.INVALID_ARGUMENT)


def test_unknown_method_is_unimplemented(served: Served) -> None:
    """A method that is not there is UNIMPLEMENTED on both workers."""
    for channel in (served.eyes, served.mouth):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/lookonce.Nothing/Nothing")(b"", timeout=60)
        check_grpc(caught.value, grpc.StatusCode.UNIMPLEMENTED)
