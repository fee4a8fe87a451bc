"""Answers as rows of a table, and what was saved. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lookonce.amounts import counted, percent_text, seconds_text
from lookonce.client.values import Answer, Answers, Choice


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
        return f"Saved: {tokens} ({share}) were not computed again; {self.of_images()}."

    def of_images(self) -> str:
        """What was saved of the vision half's work."""
        return f"{self.images_hit:,} of {counted(self.images, 'image')} needed no encoding"


def rows(questions: Sequence[str], answers: Answers) -> list[AnswerRow]:
    """A row for each question."""
    return [_row(question, answer) for question, answer in zip(questions, answers, strict=True)]


def _row(question: str, answer: Answer) -> AnswerRow:
    if answer.error:
        return AnswerRow(question, answer.error.message, "", "", "", failed=True)
    reused = f"{answer.cached_tokens} of {answer.usage.prompt_tokens}"
    text = _with_choices(answer.text, answer.choices)
    return AnswerRow(question, text, seconds_text(answer.time_s or 0.0), _states(answer), reused, failed=False)


def _with_choices(text: str, choices: Iterable[Choice]) -> str:
    """`yes  (yes 97 %, no 3 %)`, the likeliest first."""
    ordered = sorted(choices, key=lambda choice: -choice.probability)
    shares = ", ".join(f"{choice.text} {percent_text(choice.probability, 1)}" for choice in ordered)
    return f"{text}  ({shares})" if shares else text


def _states(answer: Answer) -> str:
    """`hit`, or `hit, miss` where images differ."""
    return ", ".join(dict.fromkeys(answer.image_cache))


def saved(replies: Iterable[Answers]) -> Saved:
    """The sum over replies."""
    images = hits = prompt = reused = 0
    for reply in replies:
        images += len(reply.image_cache)
        hits += reply.image_cache.count("hit")
        prompt += reply.usage.prompt_tokens
        reused += reply.prefix_tokens_reused
    return Saved(images, hits, prompt, reused)
