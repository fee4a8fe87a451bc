"""The demo model's pictures as clients send them, and what the whole model says of them."""

import base64
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tests.families.oracle import Generated, Oracle, load

DEMO = Path(__file__).resolve().parents[2] / "demo"
MAX_TOKENS = 40


def scene(number: int) -> bytes:
    """A picture's file."""
    return (DEMO / "images" / f"scene-{number}.png").read_bytes()


def scene_base64(number: int) -> str:
    """The file in base64."""
    return base64.b64encode(scene(number)).decode()


def shown(number: int) -> dict[str, Any]:
    """The picture as a part of a message."""
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{scene_base64(number)}"}}


def user(text: str, *numbers: int) -> dict[str, Any]:
    """A user's message about some pictures."""
    return {"role": "user", "content": [*map(shown, numbers), {"type": "text", "text": text}]}


def whole_model() -> Oracle:
    """The whole demo model."""
    return load(DEMO / "checkpoint")


def _images(messages: list[dict[str, Any]]) -> list[Image.Image]:
    urls = {f"data:image/png;base64,{scene_base64(number)}": number for number in range(1, 7)}
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    numbers = [urls[part["image_url"]["url"]] for part in parts if part["type"] == "image_url"]
    return [Image.open(DEMO / "images" / f"scene-{number}.png") for number in numbers]


def _templated(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        message
        if isinstance(message["content"], str)
        else {
            "role": message["role"],
            "content": [{"type": "image"} if part["type"] == "image_url" else part for part in message["content"]],
        }
        for message in messages
    ]


def expected(messages: list[dict[str, Any]]) -> Generated:
    """The whole model's greedy answer to OpenAI's messages."""
    return whole_model().generate(_templated(messages), _images(messages), MAX_TOKENS)


def expected_logprobs(messages: list[dict[str, Any]], answer: tuple[int, ...]) -> torch.Tensor:
    """The whole model's log-probability of every token in each place of an answer."""
    return whole_model().next_logprobs(_templated(messages), _images(messages), answer)
