"""The promises about bad images."""

import base64

import grpc
import pytest

from protos import vision_pb2
from tests.promises.checking import check_grpc, check_http
from tests.promises.pictures import REFUSED
from tests.promises.served import Served


@pytest.mark.parametrize("name", REFUSED)
def test_bad_image_is_refused_as_an_upload(served: Served, name: str) -> None:
    """An upload of it is a 400 that says why, and the next good request is answered."""
    data, words = REFUSED[name]
    check_http(served.deployment.http.post("/v1/images", content=data), 400, words)
    served.check_good()


@pytest.mark.parametrize("name", REFUSED)
def test_bad_image_is_refused_in_a_chat(served: Served, name: str) -> None:
    """A chat about it is a 400 that names the field."""
    data, words = REFUSED[name]
    response = served.chat("data:image/png;base64," + base64.b64encode(data).decode())
    check_http(response, 400, words)
    assert response.json()["error"]["param"] == "messages[0].content[0].image_url.url"
    served.check_good()


@pytest.mark.parametrize("name", REFUSED)
def test_bad_image_is_refused_over_grpc(served: Served, name: str) -> None:
    """The vision worker says INVALID_ARGUMENT and why."""
    data, words = REFUSED[name]
    with pytest.raises(grpc.RpcError) as caught:
        served.vision.Encode(vision_pb2.EncodeRequest(image=data), timeout=60)
    check_grpc(caught.value, grpc.StatusCode.INVALID_ARGUMENT, words)
    served.check_good()
