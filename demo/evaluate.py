"""Ask a running server about fresh scenes and report how many answers are right.

`python -m demo.evaluate --seed 7 --images 50 --server http://127.0.0.1:8000` prints a table to stderr and one line of
JSON to stdout, whose last key is the accuracy. It leaves with 0 unless the server fails.
"""

import argparse
import base64
import io
import json
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

if __package__ in (None, ""):  # run as a file: make the package importable
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo.questions import KINDS, Question, ask_all
from demo.scenes import draw, make_scene

MAX_TOKENS = 32  # the longest description has 20 tokens
SEED_STRIDE = 1_000_000  # evaluation scenes of different --seed values do not meet


class ServerFailed(Exception):
    """The server could not be reached, or answered with an error or with something else than answers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One asked question and what came back."""

    question: Question
    given: str

    @property
    def right(self) -> bool:
        """Whether the stripped, lower-case answer is exactly the expected one."""
        return self.given.strip().lower() == self.question.answer


def scene_seeds(seed: int, images: int) -> range:
    """The scenes that belong to an evaluation; all far below the seeds that training draws from."""
    first = (seed % 1000) * SEED_STRIDE
    return range(first, first + images)


def data_url(seed: int) -> str:
    """The scene's picture as a PNG data URL."""
    buffer = io.BytesIO()
    draw(make_scene(seed)).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def request_body(model: str, seed: int, questions: list[Question]) -> dict[str, Any]:
    """The request for one scene with all its questions."""
    asked = [{"id": str(i), "text": q.text, "max_tokens": MAX_TOKENS} for i, q in enumerate(questions)]
    return {"model": model, "images": [data_url(seed)], "questions": asked, "temperature": 0}


def _call(client: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        response = client.request(method, path, json=body)
        response.raise_for_status()
        parsed = response.json()
    except httpx.HTTPStatusError as exc:
        raise ServerFailed(f"{method} {path}: {exc.response.status_code} {exc.response.text[:300]}") from exc
    except (httpx.HTTPError, ValueError) as exc:
        raise ServerFailed(f"{method} {path}: {exc}") from exc
    if not isinstance(parsed, dict):
        raise ServerFailed(f"{method} {path}: not a JSON object")
    return parsed


def model_id(client: httpx.Client) -> str:
    """The first model the server lists."""
    listed = _call(client, "GET", "/v1/models")
    try:
        return str(listed["data"][0]["id"])
    except (KeyError, IndexError, TypeError) as exc:
        raise ServerFailed("GET /v1/models: no model listed") from exc


def ask_server(client: httpx.Client, model: str, seed: int) -> list[Outcome]:
    """Ask every question about one scene in one request."""
    questions = ask_all(seed, make_scene(seed))
    reply = _call(client, "POST", "/v1/answers", request_body(model, seed, questions))
    try:
        texts = {str(answer["id"]): str(answer.get("text") or "") for answer in reply["answers"]}
        return [Outcome(question, texts[str(i)]) for i, question in enumerate(questions)]
    except (KeyError, TypeError) as exc:
        raise ServerFailed(f"POST /v1/answers: no answer {exc}") from exc


def summary(seed: int, images: int, outcomes: list[Outcome]) -> dict[str, Any]:
    """The JSON line's content; the accuracy is its last key."""
    by_kind = {kind: [o.right for o in outcomes if o.question.kind == kind] for kind in KINDS}
    right = sum(o.right for o in outcomes)
    return {
        "seed": seed,
        "images": images,
        "questions": len(outcomes),
        "by_kind": {kind: round(sum(found) / len(found), 4) for kind, found in by_kind.items() if found},
        "accuracy": round(right / max(1, len(outcomes)), 4),
    }


def table(outcomes: list[Outcome], seconds: float, mistakes: int = 5) -> str:
    """Right answers by kind, then a few of the wrong ones."""
    lines = [f"{'kind':<14}{'right':>7}{'asked':>7}{'share':>9}"]
    for kind in KINDS:
        found = [o.right for o in outcomes if o.question.kind == kind]
        if found:
            lines.append(_row(kind, sum(found), len(found)))
    lines.append(_row("all", sum(o.right for o in outcomes), len(outcomes)))
    wrong = [o for o in outcomes if not o.right]
    lines += [f"wrong: {o.question.text!r} -> {o.given!r}, is {o.question.answer!r}" for o in wrong[:mistakes]]
    lines.append(f"{len(outcomes)} questions in {seconds:.1f} s")
    return "\n".join(lines)


def _row(name: str, right: int, asked: int) -> str:
    return f"{name:<14}{right:>7}{asked:>7}{right / max(1, asked):>9.1%}"


def _watched(results: Iterable[list[Outcome]], images: int) -> list[Outcome]:
    """Collect the outcomes, with a progress line where someone is watching."""
    outcomes: list[Outcome] = []
    for done, found in enumerate(results, start=1):
        outcomes += found
        if sys.stderr.isatty():
            share = sum(o.right for o in outcomes) / max(1, len(outcomes))
            print(f"\r{done}/{images} pictures, {share:.1%} right", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return outcomes


def evaluate(server: str, seed: int, images: int, parallel: int, timeout_s: float) -> dict[str, Any]:
    """Ask about `images` scenes, print the table, return the summary."""
    begin = time.monotonic()
    with httpx.Client(base_url=server, timeout=timeout_s) as client, ThreadPoolExecutor(parallel) as pool:
        model = model_id(client)
        results = pool.map(lambda s: ask_server(client, model, s), scene_seeds(seed, images))
        outcomes = _watched(results, images)
    print(table(outcomes, time.monotonic() - begin), file=sys.stderr)
    return summary(seed, images, outcomes)


def positive(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="which scenes (default 0)")
    parser.add_argument("--images", type=positive, default=20, help="how many scenes (default 20)")
    parser.add_argument("--server", default="http://127.0.0.1:8000", help="the gateway's address")
    parser.add_argument("--parallel", type=positive, default=2, help="requests under way at once (default 2)")
    parser.add_argument("--timeout", type=float, default=120, help="seconds one request may take (default 120)")
    given = parser.parse_args()
    try:
        result = evaluate(given.server, given.seed, given.images, given.parallel, given.timeout)
    except ServerFailed as exc:
        print(f"the server failed: {exc}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
