"""Downloads that are cut, refused or forged: each goes on, or ends with one line that says what to do."""

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import checkpoint
from checkpoint import Half
from hub import access as access_module
from hub.access import Hub
from hub.errors import AccessRefused, DownloadBroken, HubUnreachable, NotOnHub, Unservable
from hub.fetch import fetch
from hub.reference import HubModel
from tests.deployment import environment, wait_until
from tests.hub.server import TestHub
from tests.hub.test_fetch import header_bytes, weights_sent


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(access_module, "PAUSES_S", (0.0,) * 4)


def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    server: TestHub, access: Hub, models: dict[str, Path]
) -> None:
    """Every body ends early, and the download is whole with no byte fetched twice."""
    server.break_after = 20_000
    server.refuse_next = 2
    directory = fetch(HubModel("org/one"), [Half.LANGUAGE], access)
    report = checkpoint.load_language(directory).report
    assert weights_sent(server) <= 1.02 * report.bytes_read + header_bytes(models["one"])


def test_a_download_that_failed_goes_on_the_next_time(server: TestHub, access: Hub, models: dict[str, Path]) -> None:
    """A hub that stops answering ends the first attempt; the second fetches only what is still missing."""
    server.silent_after = 7  # three headers take two requests each
    with pytest.raises(HubUnreachable):
        fetch(HubModel("org/mixed"), [Half.LANGUAGE], access)
    server.silent_after = None
    directory = fetch(HubModel("org/mixed"), [Half.LANGUAGE], access)
    report = checkpoint.load_language(directory).report
    assert weights_sent(server) <= 1.02 * report.bytes_read + header_bytes(models["mixed"])


def test_a_killed_download_goes_on(server: TestHub, tmp_path: Path) -> None:
    """After SIGKILL the shards that were there are not fetched again, and the lock is free."""
    variables = environment(HF_ENDPOINT=server.url, HF_HOME=str(tmp_path / "home"))
    command = [sys.executable, "-m", "lookonce", "fetch", "org/mixed", "--half", "vision"]
    stalled = server.stall = "model-00003-of-00003.safetensors"
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    others = {f"model-0000{i}-of-00003.safetensors.partial.json" for i in (1, 2)}
    wait_until(
        lambda: (
            server.stalled.is_set()
            and all(_is_recorded(path) for path in tmp_path.rglob("*.json") if path.name in others)
        ),
        "two shards to be there and one to stall",
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.let_go()
    server.forget()
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert "downloading org/mixed (vision)" in done.stderr
    assert {name for name in server.sent if name.endswith(".safetensors")} == {stalled}
    assert checkpoint.load_vision(Path(done.stdout.strip())).report.tensors


def _is_recorded(record: Path) -> bool:
    """Whether the record has more than the header's range."""
    return len(checkpoint.partial.held(record.with_suffix("")) or ()) > 1


def test_a_forged_shard_is_not_used(server: TestHub, access: Hub) -> None:
    """A whole file with another checksum than the hub's is removed; the next attempt fetches it anew."""
    server.corrupt = True
    with pytest.raises(DownloadBroken, match="sha256"):
        fetch(HubModel("org/sharded"), [Half.VISION], access)
    server.corrupt = False
    assert checkpoint.load_vision(fetch(HubModel("org/sharded"), [Half.VISION], access)).report.tensors


def test_a_hub_without_ranges_is_refused(server: TestHub, access: Hub) -> None:
    """Rather than taking a whole file's first bytes for a range of it."""
    server.ignores_ranges = True
    with pytest.raises(DownloadBroken, match="range"):
        fetch(HubModel("org/one"), [Half.VISION], access)


def test_a_model_that_is_not_there_is_named(server: TestHub, access: Hub) -> None:
    """So is a revision, and a repository that is no model."""
    with pytest.raises(NotOnHub, match="org/absent"):
        fetch(HubModel("org/absent"), [Half.VISION], access)
    with pytest.raises(NotOnHub, match="v9"):
        fetch(HubModel("org/one", "v9"), [Half.VISION], access)


def test_a_hub_that_is_down_is_named(server: TestHub, access: Hub) -> None:
    """By its address."""
    hub = Hub(replace(access.settings, endpoint="http://127.0.0.1:9"))
    with pytest.raises(HubUnreachable, match=r"127\.0\.0\.1:9"):
        fetch(HubModel("org/one"), [Half.VISION], hub)
    hub.close()


def test_a_gated_model_wants_its_terms_accepted(server: TestHub, access: Hub, models: dict[str, Path]) -> None:
    """The line says where."""
    server.add("org/gated", models["one"], token="sesame", gated=True)
    with pytest.raises(AccessRefused, match="accept its terms"):
        fetch(HubModel("org/gated"), [Half.VISION], access)


def test_a_private_model_is_seen_with_its_token_which_stays_on_the_hub(
    server: TestHub, access: Hub, models: dict[str, Path]
) -> None:
    """Without the token it is as if it were not there; with it the CDN never hears it."""
    server.add("org/private", models["one"], token="sesame")
    with pytest.raises(NotOnHub, match="HF_TOKEN"):
        fetch(HubModel("org/private"), [Half.VISION], access)
    hub = Hub(replace(access.settings, token="sesame"))
    assert checkpoint.load_vision(fetch(HubModel("org/private"), [Half.VISION], hub)).report.tensors
    assert server.cdn_authorization == []
    hub.close()


@pytest.mark.parametrize(("file_name", "says"), [("pytorch_model.bin", "pytorch_model.bin"), ("x.txt", "safetensors")])
def test_weights_in_other_formats_are_refused(
    server: TestHub, access: Hub, models: dict[str, Path], tmp_path: Path, file_name: str, says: str
) -> None:
    """Pickle by its name, before any of it is fetched."""
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(models["one"] / "config.json", other)
    (other / file_name).write_bytes(b"\x80\x04")
    server.add("org/other", other)
    with pytest.raises(Unservable, match=says):
        fetch(HubModel("org/other"), [Half.VISION], access)
    assert file_name not in server.sent
