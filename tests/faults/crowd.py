"""Clients that ask about pictures which carry their own identity, and a record of what became of every request.

A picture's right answers are transformers' whole model's, computed beforehand and distinct for each picture: an answer
about another picture is seen.
"""

import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.end_to_end.asking import data_url
from tests.lm_server.workshop import Workshop, ask

MAX_TOKENS = 6
QUESTIONS = ("What is this?", "How many are there?", "Name a colour.")
TIMEOUT_S = 120.0
PAUSE_S = 0.3
# What a client may be told where no answer is promised.
TYPED = frozenset({404, 413, 429, 503, 504})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request.

    Attributes:
        began: time.monotonic() when it was sent.
        seconds: Until it was over.
        verdict: right, wrong, refused (a typed error), left (the client went away), or failed.
        told: What was answered instead, where it was not right.
    """

    began: float
    seconds: float
    verdict: str
    told: str = ""


@dataclass(slots=True)
class Album:
    """Pictures with the whole model's answer to each question about each of them.

    Attributes:
        urls: A data URL of each picture.
        answers: (place of the picture, place of the question) → the right text.
    """

    urls: list[str]
    answers: dict[tuple[int, int], str]

    def whose(self, text: str, number: int) -> str:
        """Which pictures a text would have been the right answer about."""
        owners = [picture for (picture, place), right in self.answers.items() if place == number and right == text]
        return f"the answer about picture {owners}" if owners else "no picture's answer"


def make_album(model_dir: Path, num_pictures: int, questions: Sequence[str] = QUESTIONS) -> Album:
    """Pictures whose answers tell them apart for every question; others are passed over."""
    shop = Workshop(model_dir)
    urls: list[str] = []
    answers: dict[tuple[int, int], str] = {}
    number = 0
    while len(urls) < num_pictures:
        texts = [shop.expected(ask(question, number), MAX_TOKENS).text for question in questions]
        is_distinct = all(
            texts[place] and texts[place] != answers[picture, place]
            for place in range(len(questions))
            for picture in range(len(urls))
        )
        if is_distinct:
            answers |= {(len(urls), place): text for place, text in enumerate(texts)}
            urls.append(data_url(number))
        number += 1
    return Album(urls, answers)


@dataclass(slots=True)
class Crowd:
    """Clients of one gateway, each a thread that asks again and again until it is told to stop.

    Attributes:
        url: The gateway.
        album: What they ask about.
        by_id: The part of the requests that name a picture by its id.
        leaving: The part whose client goes away in the middle of the stream.
        pause_s: Between a client's answer and its next question.
        outcomes: What became of every request that is over.
    """

    url: str
    album: Album
    by_id: float = 0.0
    leaving: float = 0.0
    pause_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    _ids: dict[int, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def asking(self, num_clients: int) -> Iterator["Crowd"]:
        """So many clients ask within; at its end each has had its last answer."""
        self._stop.clear()
        threads = [threading.Thread(target=self._ask_on, args=(seed,)) for seed in range(num_clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Clients pause between their questions within: what starts meanwhile shares the cores with their answers."""
        self.pause_s = PAUSE_S
        try:
            yield
        finally:
            self.pause_s = 0.0

    def since(self, moment: float) -> list[Outcome]:
        """The requests that were sent at or after that time.monotonic()."""
        return [outcome for outcome in self.outcomes if outcome.began >= moment]

    def tally(self) -> Counter[str]:
        """How many requests came to each verdict."""
        return Counter(outcome.verdict for outcome in self.outcomes)

    def problems(self, *allowed: str) -> list[Outcome]:
        """The requests that were not answered right, those with an allowed verdict left out."""
        return [outcome for outcome in self.outcomes if outcome.verdict not in ("right", *allowed)]

    def _ask_on(self, seed: int) -> None:
        chance = random.Random(seed)
        with httpx.Client(base_url=self.url, timeout=TIMEOUT_S, headers=self.headers) as http:
            while not self._stop.is_set():
                began = time.monotonic()
                verdict, told = self._ask(http, chance)
                self.outcomes.append(Outcome(began, time.monotonic() - began, verdict, told))
                # As a client does that was told to come back later.
                self._stop.wait(0.2 if verdict == "refused" else self.pause_s)

    def _ask(self, http: httpx.Client, chance: random.Random) -> tuple[str, str]:
        picture, number = chance.randrange(len(self.album.urls)), chance.randrange(len(QUESTIONS))
        image = self.album.urls[picture]
        if chance.random() < self.by_id and picture in self._ids:
            image = f"image:{self._ids[picture]}"
        body = {"images": [image], "questions": [{"text": QUESTIONS[number], "max_tokens": MAX_TOKENS}]}
        body |= {"temperature": 0, "stream": chance.random() < self.leaving}
        try:
            if body["stream"]:
                return _leave(http, body)
            return self._judge(http.post("/v1/answers", json=body), picture, number)
        except httpx.HTTPError as exc:
            return "failed", f"{type(exc).__name__}: {exc}"

    def _judge(self, response: httpx.Response, picture: int, number: int) -> tuple[str, str]:
        if response.status_code != httpx.codes.OK:
            return _refusal(response.status_code, response.text)
        reply = response.json()
        answer = reply["answers"][0]
        if answer.get("error"):
            error = answer["error"]
            return ("failed" if error["code"] == "internal_error" else "refused"), str(error)
        self._ids[picture] = reply["images"][0]
        if answer["text"] == self.album.answers[picture, number]:
            return "right", ""
        return "wrong", f"{answer['text']!r} about picture {picture}: {self.album.whose(answer['text'], number)}"


def _refusal(status: int, text: str) -> tuple[str, str]:
    is_typed = status in TYPED and '"error"' in text
    return ("refused" if is_typed else "failed"), f"{status} {text}"


def _leave(http: httpx.Client, body: dict[str, Any]) -> tuple[str, str]:
    with http.stream("POST", "/v1/answers", json=body) as response:
        if response.status_code != httpx.codes.OK:
            return _refusal(response.status_code, response.read().decode(errors="replace"))
        next(response.iter_lines())
    return "left", ""


def median_s(outcomes: Sequence[Outcome]) -> float:
    """The median time of these requests."""
    return statistics.median(outcome.seconds for outcome in outcomes)


def longest_s(outcomes: Sequence[Outcome]) -> float:
    """The longest of these requests."""
    return max(outcome.seconds for outcome in outcomes)
