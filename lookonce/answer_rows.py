"""A reply to questions as rows of a table, and what was saved. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lookonce.amounts import counted, percent_text, seconds_text

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One question and what came of it.

    Attributes:
        answer: The text; for a question with choices, their probabilities behind it.
        time: As people read it; "" for a question that failed.
        image: hit or miss, or several of them.
        reused: Reused tokens of the prompt's.
        failed: The answer is an error's message.
    """

    question: str
    answer: str
    time: str
    image: str
    reused: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Saved:
    """What some replies say was not done again.

    Attributes:
        images: Images of the requests.
        images_hit: Of those, the ones whose embedding was there.
        prompt_tokens: Over all questions.
        reused_tokens: Of those, not computed again.
    """

    images: int
    images_hit: int
    prompt_tokens: int
    reused_tokens: int

    def __str__(self) -> str:
        tokens = f"{self.reused_tokens:,} of {counted(self.prompt_tokens, 'prompt token')}"
        share = percent_text(self.reused_tokens, self.prompt_tokens)
        return (
            f"Saved: {tokens} ({share}) were not computed again; "
            f"{self.images_hit} of {counted(self.images, 'image')} needed no encoding."
        )


def rows(questions: Sequence[str], reply: Json) -> list[AnswerRow]:
    """A row for each question, from a reply of /v1/answers."""
    return [_row(question, answer) for question, answer in zip(questions, reply["answers"], strict=True)]


def _row(question: str, answer: Json) -> AnswerRow:
    error = answer.get("error")
    if error:
        return AnswerRow(question, str(error["message"]), "", "", "", failed=True)
    told, usage = answer["lookonce"], answer["usage"]
    reused = f"{usage['prompt_tokens_details']['cached_tokens']} of {usage['prompt_tokens']}"
    text = _with_choices(str(answer["text"]), answer.get("choices") or ())
    return AnswerRow(question, text, seconds_text(told["time_s"]), _states(told["image_cache"]), reused, failed=False)


def _with_choices(text: str, choices: Iterable[Json]) -> str:
    """`yes  (yes 97 %, no 3 %)`, the likeliest first."""
    ordered = sorted(choices, key=lambda choice: -float(choice["probability"]))
    shares = ", ".join(f"{choice['text']} {percent_text(choice['probability'], 1)}" for choice in ordered)
    return f"{text}  ({shares})" if shares else text


def _states(states: Sequence[str]) -> str:
    """`hit`, or `hit, miss` where images differ."""
    return ", ".join(dict.fromkeys(states))


def saved(replies: Iterable[Json]) -> Saved:
    """The sum over replies of /v1/answers."""
    images = hits = prompt = reused = 0
    for reply in replies:
        states = reply["lookonce"]["image_cache"]
        images += len(states)
        hits += states.count("hit")
        prompt += reply["usage"]["prompt_tokens"]
        reused += reply["lookonce"]["prefix_tokens_reused"]
    return Saved(images, hits, prompt, reused)
