"""Hostile HTTP requests: each is refused as said, by the field it names."""

from collections.abc import Mapping
from typing import Any

# A chat whose one image is sound, with these fields changed: 400 with this `param`.
CHAT_FIELDS: Mapping[str, tuple[dict[str, Any], str]] = {
    "n huge": ({"n": 10**9}, "n"),
    "n negative": ({"n": -1}, "n"),
    "logprobs huge": ({"logprobs": 10**9}, "logprobs"),
    "top_logprobs huge": ({"logprobs": True, "top_logprobs": 10**9}, "top_logprobs"),
    "top_logprobs negative": ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
    "max_tokens negative": ({"max_tokens": -1}, "max_tokens"),
    "max_tokens huge": ({"max_tokens": 10**12}, "max_tokens"),
    "temperature text": ({"temperature": "NaN"}, "temperature"),
    "temperature huge": ({"temperature": 1e300}, "temperature"),
    "an embedding": ({"image_embeds": [0.0]}, "image_embeds"),
    "a grid": ({"image_grid_thw": [1, 2, 2]}, "image_grid_thw"),
    "a hash": ({"image_hash": "0" * 64}, "image_hash"),
}

# Where an image belongs: 400 with this code.
URLS: Mapping[str, tuple[str, str]] = {
    "bad base64": ("data:image/png;base64,@@@@", "bad_base64"),
    "no image": ("data:image/png;base64,", "empty_image"),
    "wrong mime": ("data:text/html;base64,AAAA", "bad_image_type"),
    "file": ("file:///etc/passwd", "bad_image_url"),
    "ftp": ("ftp://example.com/a.png", "bad_image_url"),
    "http": ("http://example.com/a.png", "url_not_allowed"),
    "https": ("https://example.com/a.png", "url_not_allowed"),
}
