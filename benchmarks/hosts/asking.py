"""What is asked of a deployment: some new pictures at once, the same questions about each, streamed."""

import asyncio
import base64
import io
import itertools
import json
import math
import time
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.errors import SystemFailed

TIMEOUT_S = 300.0
DATA, END = "data: ", "[DONE]"
_BLOCKS, _NOISE = 12, 6.0
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Load:
    """Pictures of so many tokens, new and all at once, and questions about each."""

    tokens: int
    questions: int
    pictures: int
    answer_tokens: int = 8

    @property
    def side(self) -> int:
        """Tokens along a picture's side."""
        return math.isqrt(self.tokens)


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of it.

    Attributes:
        first_s: Until something of an answer about a picture came; mean over the pictures.
        last_s: Until everything was answered.
        texts: The answers, picture by picture.
    """

    first_s: float
    last_s: float
    texts: tuple[tuple[str, ...], ...]


def picture(load: Load, unit: int) -> bytes:
    """A JPEG file that nobody has seen: one picture's, with other bytes behind its end, so a new image to a server."""
    return _drawn(load.side * unit) + next(_numbers).to_bytes(16, "big")


@lru_cache
def _drawn(side: int) -> bytes:
    """Soft blocks with a camera's noise: about as many bytes as a photograph has."""
    random = np.random.default_rng(side)
    blocks = Image.fromarray(random.integers(0, 256, (_BLOCKS, _BLOCKS, 3), dtype=np.uint8))
    smooth = np.asarray(blocks.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    noisy = np.clip(smooth + random.normal(0, _NOISE, smooth.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=85)
    return file.getvalue()


def ask(url: str, load: Load, unit: int) -> Asked:
    """Asks the gateway there. Raises `SystemFailed` where a question has no answer."""
    files = [picture(load, unit) for _ in range(load.pictures)]
    return asyncio.run(_ask_all(url, [_body(file, load) for file in files]))


def _body(file: bytes, load: Load) -> dict[str, Any]:
    return {
        "images": ["data:image/jpeg;base64," + base64.b64encode(file).decode()],
        "questions": [
            {"text": f"Question {number}: what is shown?", "max_tokens": load.answer_tokens}
            for number in range(load.questions)
        ],
        "stream": True,
    }


async def _ask_all(url: str, bodies: list[dict[str, Any]]) -> Asked:
    async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
        (await http.get(f"{url}/health")).raise_for_status()
        started = time.perf_counter()
        came = await asyncio.gather(*(_ask_one(http, url, body, started) for body in bodies))
        last_s = time.perf_counter() - started
    return Asked(fmean(first_s for first_s, _ in came), last_s, tuple(texts for _, texts in came))


async def _ask_one(
    http: httpx.AsyncClient, url: str, body: dict[str, Any], started: float
) -> tuple[float, tuple[str, ...]]:
    first_s, texts = 0.0, {}
    async with http.stream("POST", f"{url}/v1/answers", json=body) as response:
        async for line in response.aiter_lines():
            if not line.startswith(DATA) or line == DATA + END:
                continue
            event = json.loads(line.removeprefix(DATA))
            if event.get("error"):
                raise SystemFailed(f"the gateway answered {line}")
            if "index" not in event:
                continue
            first_s = first_s or time.perf_counter() - started
            if event["object"] == "answers.answer":
                texts[event["index"]] = event["text"]
    if len(texts) != len(body["questions"]) or response.status_code != httpx.codes.OK:
        raise SystemFailed(f"{len(body['questions']) - len(texts)} questions got no answer ({response.status_code})")
    return first_s, tuple(texts[index] for index in range(len(texts)))
