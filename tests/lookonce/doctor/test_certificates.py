"""What the doctor says of certificates."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lookonce.doctor.certificates import examine_files, examine_served, judge_expiry
from lookonce.doctor.findings import Level
from rpc.peers import PeerSettings
from tests.certificates import make_pair
from tests.deployment import free_port

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("left", "level"),
    [
        (timedelta(days=100), Level.OK),
        (timedelta(days=13), Level.WARN),
        (timedelta(0), Level.FAIL),
        (timedelta(days=-3), Level.FAIL),
    ],
)
def test_expiry_is_judged(left: timedelta, level: Level) -> None:
    """Good, soon over, over: and what is not good says what to do."""
    finding = judge_expiry("it", NOW + left, NOW)
    assert finding.level is level
    assert ("renew" in finding.remedy) == (level is not Level.OK)


def test_files_are_read(tmp_path: Path) -> None:
    """Certificate and authority, good for two days, warn now and fail in a week."""
    pair = make_pair(tmp_path)
    peers = PeerSettings(str(pair.cert), str(pair.key), str(pair.ca))
    assert [finding.level for finding in examine_files(peers)] == [Level.WARN] * 2
    later = datetime.now(UTC) + timedelta(days=7)
    assert [finding.level for finding in examine_files(peers, later)] == [Level.FAIL] * 2


def test_a_file_that_is_no_certificate_fails(tmp_path: Path) -> None:
    """It is told by its flag."""
    pair = make_pair(tmp_path / "pair")
    (tmp_path / "ca.pem").write_text("nothing")
    peers = PeerSettings(str(pair.cert), str(pair.key), str(tmp_path / "ca.pem"))
    assert [(finding.level, finding.subject) for finding in examine_files(peers)][1] == (Level.FAIL, "--peer-ca")


def test_a_servers_certificate_is_read_whoever_signed_it(tmp_path: Path) -> None:
    """From a TLS server that nobody vouches for; one that is not there, or speaks plain text, says nothing."""
    pair = make_pair(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            taken, _ = listener.accept()
            with context.wrap_socket(taken, server_side=True):
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        [finding] = examine_served("gateway", "127.0.0.1", port, PeerSettings())
        thread.join()
    assert finding.level is Level.WARN
    assert not list(examine_served("gateway", "127.0.0.1", free_port(), PeerSettings()))
