"""A deployment whose processes show each other certificates and tokens."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos import language_pb2, language_pb2_grpc, vision_pb2, vision_pb2_grpc
from tests.certificates import Pair, make_pair
from tests.deployment import CALL_S, deploy, environment
from tests.end_to_end.asking import chat
from tests.families import make
from tests.lm_server.workshop import ask


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("qwen2_vl", tmp_path_factory.mktemp("security") / "model")


def _code(address: str, half: str, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    """How a caller without a token is answered."""
    opened = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
    with opened:
        asked: Any
        if half == "vision":
            asked, call = vision_pb2.GetInfoRequest(), vision_pb2_grpc.VisionServiceStub(opened).GetInfo  # type: ignore[no-untyped-call]
        else:
            asked, call = language_pb2.GetInfoRequest(), language_pb2_grpc.LanguageServiceStub(opened).GetInfo  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError) as caught:
            call(asked, timeout=CALL_S)
    code: grpc.StatusCode = caught.value.code()
    return code


def _credentials(pair: Pair) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(pair.ca.read_bytes(), pair.key.read_bytes(), pair.cert.read_bytes())


def test_every_process_shows_who_it_is(model_dir: Path, tmp_path: Path) -> None:
    """With certificates and tokens everywhere questions are answered and the doctor is content; others are refused."""
    pair, tokens = make_pair(tmp_path / "pair"), tmp_path / "tokens"
    tokens.write_text("for-all *\n")
    flags = (*pair.flags, "--peer-tokens-file", str(tokens))
    options = {"vision": flags, "language": flags, "gateway": flags}
    with deploy(model_dir, "memory://", tmp_path, start=False, **options) as deployed:
        for process in deployed.processes:
            process.start(wait=False)
        deployed.gateway.wait_ready()
        deployed.wait_paired()
        assert chat(deployed.http, ask("What is this?", 1), "model").num_tokens > 0
        for worker, half in ((deployed.vision[0], "vision"), (deployed.language[0], "language")):
            assert _code(worker.address, half, None) is grpc.StatusCode.UNAVAILABLE
            assert _code(worker.address, half, _credentials(pair)) is grpc.StatusCode.UNAUTHENTICATED
        addresses = ("--vision", deployed.vision[0].address, "--language", deployed.language[0].address)
        doctor = [sys.executable, "-m", "lookonce", "doctor", *addresses]
        known = subprocess.run([*doctor, *flags], capture_output=True, text=True, check=False, env=environment())
        assert known.returncode == 0, known.stdout + known.stderr
        unknown = subprocess.run(doctor, capture_output=True, text=True, check=False, env=environment())
        assert unknown.returncode == 1


def test_a_key_of_another_certificate_stops_the_start(model_dir: Path, tmp_path: Path) -> None:
    """Each process ends with status 1 and names the flags, without a traceback."""
    one, other = make_pair(tmp_path / "one"), make_pair(tmp_path / "other")
    flags = ("--peer-cert", str(one.cert), "--peer-key", str(other.key))
    options = {"vision": flags, "language": flags, "gateway": flags}
    with deploy(model_dir, "memory://", tmp_path, start=False, **options) as deployed:
        for process in deployed.processes:
            process.start(wait=False)
            assert process.wait() == 1
            assert "--peer-cert and --peer-key" in process.tail()
            assert "Traceback" not in process.tail()
