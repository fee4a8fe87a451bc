"""Replies of a server, as tests need them."""

from typing import Any

Json = dict[str, Any]


def answer(text: str, *, cached: int = 0, prompt: int = 50, state: str = "hit", **more: Any) -> Json:
    """One answer of a reply."""
    usage = {"prompt_tokens": prompt, "prompt_tokens_details": {"cached_tokens": cached}}
    told = {"image_cache": [state], "time_s": 0.25, "time_to_first_token_s": 0.1}
    return {"id": "0", "text": text, "finish_reason": "stop", "usage": usage, "lookonce": told, **more}


def failed(message: str) -> Json:
    """An answer that is an error."""
    return {"id": "0", "text": "", "finish_reason": "error", "error": {"message": message, "type": "x"}}


def reply(*answers: Json, states: tuple[str, ...] = ("miss",)) -> Json:
    """A reply of /v1/answers."""
    sound = [each for each in answers if "error" not in each]
    reused = sum(each["usage"]["prompt_tokens_details"]["cached_tokens"] for each in sound)
    return {
        "images": [f"img_{place}" for place in range(len(states))],
        "answers": list(answers),
        "usage": {"prompt_tokens": sum(each["usage"]["prompt_tokens"] for each in sound)},
        "lookonce": {"image_cache": list(states), "prefix_tokens_reused": reused},
    }
