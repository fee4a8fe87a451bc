"""Videos over HTTP, gRPC, Redis and processes, against transformers' whole model."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cache.servers import Server
from tests.deployment import Deployment, deploy, redis_server
from tests.end_to_end.asking import data_url
from tests.videos import whole
from tests.videos.clips import drawn, video
from tests.videos.conftest import MakeHalves
from tests.videos.halves import Film, Halves, Part

QUESTIONS = ("What happens?", "这里发生了什么？", "Is anybody there, and if so, who?")
MAX_TOKENS = 12
# The same six frames as a list, two a second, and as a file of two frames a second of which all are chosen.
FILM = Film(7, 6, fps=2.0)
FILE = video(drawn(6, 7), rate=2)


@dataclass(frozen=True)
class Served:
    """A deployment and the whole model to hold it against."""

    deployment: Deployment
    store: Server
    halves: Halves

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        reply = self.deployment.http.post(path, json=body)
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    def expected(self, *parts: Part) -> str:
        """The whole model's answer."""
        return whole.generate(self.halves.shop.oracle, self.halves.whole(*parts), MAX_TOKENS).text

    def chat(self, *parts: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The answer to one user's turn, and what was saved."""
        body = {"messages": [{"role": "user", "content": list(parts)}], "max_tokens": MAX_TOKENS}
        reply = self.post("/v1/chat/completions", body)
        return reply["choices"][0]["message"]["content"], reply

    @property
    def encoded(self) -> float:
        """Forwards of the tower so far."""
        return self.deployment.vision_info().counters["lookonce_images_encoded_total"]


@pytest.fixture(scope="module")
def served(halves: MakeHalves, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The family that differs most between images and videos."""
    made = halves("qwen3_vl")
    root = tmp_path_factory.mktemp("served")
    with redis_server(root / "store") as store, deploy(made.model_dir, store.url, root) as deployment:
        yield Served(deployment, store, made)


def frame_urls(film: Film) -> list[str]:
    return ["data:image/png;base64," + base64.b64encode(one).decode() for one in film.files]


def file_url() -> str:
    return "data:video/mp4;base64," + base64.b64encode(FILE).decode()


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_a_chat_about_frames_and_pictures_equals_the_whole_model(served: Served) -> None:
    """Two videos as lists of frames, one of an odd number, and a picture between them."""
    odd = Film(8, 3, fps=0.5)
    parts: list[dict[str, Any]] = [
        {"type": "video", "video": frame_urls(FILM), "fps": 2.0},
        {"type": "image_url", "image_url": {"url": data_url(3)}},
        {"type": "video", "video": frame_urls(odd), "fps": 0.5},
        text("Compare them."),
    ]
    answer, reply = served.chat(*parts)
    assert answer == served.expected(FILM, 3, odd, "Compare them.")
    assert reply["lookonce"]["image_cache"] == ["miss"] * 3
    assert served.chat(*parts)[1]["lookonce"]["image_cache"] == ["hit"] * 3


def test_a_window_that_moved_on_has_its_new_frames_encoded(served: Served) -> None:
    """The next of two overlapping clips is answered as by the whole model, with three of its four groups reused."""
    counters = []
    for start in (0, 2):
        film = Film(9, 8, start=start)
        answer, reply = served.chat({"type": "video", "video": frame_urls(film), "fps": 2.0}, text("What happens?"))
        assert answer == served.expected(film, "What happens?")
        assert reply["lookonce"]["image_cache"] == ["miss"]
        counters.append(served.deployment.vision_info().counters)
    encoded, reused = (
        counters[1][name] - counters[0][name]
        for name in ("lookonce_frame_groups_encoded_total", "lookonce_frame_groups_reused_total")
    )
    assert (encoded, reused) == (1, 3)


def test_a_file_is_uploaded_once_and_asked_much(served: Served) -> None:
    """Questions about an uploaded file get the whole model's answers, and all but one reuse the video's prefix."""
    uploaded = served.deployment.http.post("/v1/images?fps=2", content=FILE).json()
    assert uploaded["video"] == {"timestamps": [0.25, 1.25, 2.25], "seconds_per_grid": 1.0}
    body = {
        "images": [f"image:{uploaded['id']}"],
        "questions": [{"text": question, "max_tokens": MAX_TOKENS} for question in QUESTIONS],
    }
    before = served.encoded
    reply = served.post("/v1/answers", body)
    assert [one["text"] for one in reply["answers"]] == [served.expected(FILM, question) for question in QUESTIONS]
    cached = [one["usage"]["prompt_tokens_details"]["cached_tokens"] for one in reply["answers"]]
    assert sum(count >= uploaded["image_tokens"] for count in cached) == len(QUESTIONS) - 1
    assert served.encoded == before
    answer, chatted = served.chat({"type": "video_url", "video_url": {"url": file_url(), "fps": 2}}, text(QUESTIONS[0]))
    assert answer == served.expected(FILM, QUESTIONS[0])
    assert chatted["lookonce"] == {"images": [uploaded["id"]], "image_cache": ["hit"]}


def test_answers_survive_the_loss_of_the_entry(served: Served) -> None:
    """After the entry is gone from Redis and the language worker has forgotten it, the file is encoded again."""
    uploaded = served.deployment.http.post("/v1/images", content=FILE).json()
    for key in served.store.client.scan_iter("lookonce:*"):
        if b":original:" not in key:
            served.store.client.delete(key)
    served.deployment.language[0].restart()
    served.deployment.wait_paired()
    before = served.encoded
    shown = {"type": "video_url", "video_url": {"url": f"image:{uploaded['id']}"}}
    answer, reply = served.chat(shown, text("Why?"))
    # By default two frames are chosen of each second: all of them.
    assert answer == served.expected(FILM, "Why?")
    assert reply["lookonce"]["image_cache"] == ["miss"]
    assert served.encoded == before + 1


def test_what_is_no_video_is_refused_over_http(served: Served) -> None:
    """A truncated file is a 400 in our words that names the field."""
    cut = "data:video/mp4;base64," + base64.b64encode(FILE[: len(FILE) // 2]).decode()
    body = {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": cut}}]}]}
    reply = served.deployment.http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].endswith("video is damaged or truncated")
    assert reply.json()["error"]["param"] == "messages[0].content[0].video_url.url"
