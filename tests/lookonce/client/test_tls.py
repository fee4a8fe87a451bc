"""The client over TLS: a certificate is checked, against the authority that is named."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lookonce.client import Retries, Untrusted
from tests.certificates import Pair, make_pair
from tests.lookonce.client.either import KINDS, use


class Models(BaseHTTPRequestHandler):
    """Serves one model."""

    def do_GET(self) -> None:
        body = b'{"data": [{"id": "demo"}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keeps the test quiet."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(pair: Pair) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Models) as served:
        served.socket = context.wrap_socket(served.socket, server_side=True)
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"https://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_an_authority_that_is_named_is_trusted(kind: str, server: str, pair: Pair) -> None:
    """A company's own certificates work once their authority's file is given."""
    assert use(kind, None, lambda c: c.models(), server, ca=pair.ca) == ("demo",)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stranger_is_not_spoken_to(kind: str, server: str, tmp_path: Path) -> None:
    """A certificate of nobody we know is told as that, at once; so is one of another authority."""
    other = make_pair(tmp_path / "other").ca
    for ca in (None, other):
        with pytest.raises(Untrusted, match="certificate of https://127"):
            use(kind, None, lambda c: c.models(), server, ca=ca, retries=Retries(times=3, first_s=20))
