"""Replies of a server, as tests need them."""

from typing import Any

Json = dict[str, Any]


def usage(prompt: int = 0, cached: int = 0, completion: int = 0) -> Json:
    """Tokens."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def answer(text: str, *, cached: int = 0, prompt: int = 50, state: str = "hit", **more: Any) -> Json:
    """One answer of a reply."""
    told = {"image_cache": [state], "time_s": 0.25, "time_to_first_token_s": 0.1}
    sound = {"id": "0", "text": text, "finish_reason": "stop", "usage": usage(prompt, cached, 3), "lookonce": told}
    return sound | more


def failed(message: str) -> Json:
    """An answer that is an error."""
    error = {"message": message, "type": "x", "param": None, "code": "bad"}
    return {"id": "0", "text": "", "finish_reason": "error", "usage": usage(), "error": error}


def reply(*answers: Json, states: tuple[str, ...] = ("miss",)) -> Json:
    """A reply of /v1/answers."""
    sound = [each for each in answers if "error" not in each]
    reused = sum(each["usage"]["prompt_tokens_details"]["cached_tokens"] for each in sound)
    return {
        "id": "ans_1",
        "object": "answers",
        "model": "demo",
        "images": [f"img_{place}" for place in range(len(states))],
        "answers": list(answers),
        "usage": usage(sum(each["usage"]["prompt_tokens"] for each in sound), reused, 3 * len(sound)),
        "lookonce": {"image_cache": list(states), "prefix_tokens_reused": reused},
    }


def image(image_id: str = "img_0", **more: Any) -> Json:
    """A reply of /v1/images."""
    known = {"width": 4, "height": 3, "bytes": 9, "image_tokens": 2, "cached": False, "created": 1, "expires_at": None}
    return {"id": image_id, "object": "image", **known, **more}
