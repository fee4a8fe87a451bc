"""The evaluation's client, against a server that answers from the truth, or fails."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from demo.evaluate import MAX_TOKENS, data_url, evaluate, scene_seeds
from demo.questions import ask_all
from demo.scenes import make_scene

ROOT = Path(__file__).resolve().parents[2]
TRUTH = {(data_url(seed), q.text): q.answer for seed in scene_seeds(3, 4) for q in ask_all(seed, make_scene(seed))}


class Handler(BaseHTTPRequestHandler):
    """Lists one model and answers every question right, in capitals; a count is left wrong."""

    status = 200

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        """GET /v1/models."""
        self._send({"data": [{"id": "demo"}]})

    def do_POST(self) -> None:
        """POST /v1/answers."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (body["model"], body["temperature"]) == ("demo", 0)
        assert {q["max_tokens"] for q in body["questions"]} == {MAX_TOKENS}
        answers = [
            {"id": q["id"], "text": f" {TRUTH[body['images'][0], q['text']].upper()}\n"} for q in body["questions"]
        ]
        answers[0]["text"] = "nine"
        self._send({"answers": answers[::-1]})

    def _send(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a running stand-in server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_answers_are_matched_by_id_and_compared_without_case(server: str) -> None:
    """Answers count as right whatever their order, case and outer spaces; the one wrong kind shows in the summary."""
    result = evaluate(server, seed=3, images=4, parallel=2, timeout_s=30)
    assert result["questions"] == len(TRUTH)
    assert result["by_kind"]["count"] == 0
    assert {share for kind, share in result["by_kind"].items() if kind != "count"} == {1.0}
    assert result["accuracy"] == round(1 - 4 / len(TRUTH), 4)


def test_command_prints_one_json_line_that_ends_with_the_accuracy(server: str) -> None:
    """Run as a file from anywhere, it leaves with 0 and its standard output is one line of JSON."""
    command = [sys.executable, str(ROOT / "demo" / "evaluate.py"), "--seed", "3", "--images", "2", "--server", server]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert len(done.stdout.splitlines()) == 1
    assert list(json.loads(done.stdout))[-1] == "accuracy"
    assert "left_right" in done.stderr


def test_command_fails_with_the_server(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error from the server, or no server, gives exit status 1, no JSON, and the reason on standard error."""
    monkeypatch.setattr(Handler, "status", 503)
    command = [sys.executable, "-m", "demo.evaluate", "--images", "1", "--server"]
    for address, reason in ((server, "503"), ("http://127.0.0.1:9", "refused")):
        done = subprocess.run([*command, address], capture_output=True, text=True, check=False, cwd=ROOT)
        assert (done.returncode, done.stdout) == (1, "")
        assert reason in done.stderr


def test_evaluation_starts_without_torch() -> None:
    """The client needs neither torch nor transformers."""
    code = "import sys, demo.evaluate; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


def test_evaluation_scenes_are_none_of_training() -> None:
    """Every evaluation seed is below the range that training draws from."""
    assert max(scene_seeds(999, 1_000_000)) < 2**32
