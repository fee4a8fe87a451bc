"""The reply of /v1/stats: what the split has saved, and how busy it is."""

from typing import Literal

from pydantic import Field

from gateway.schema import Output


class ImageStats(Output):
    """The vision side: how often an image was needed, and how often it was encoded for that."""

    asked: int = Field(description="Images of answered questions, each as often as a question was about it.")
    encoded: int = Field(description="Images that went through the vision tower.")
    avoided: int = Field(description="Encodings that asking each question by itself would have cost: asked - encoded.")
    looked_up: int = Field(description="Times that an image was sent or looked for.")
    found: int = Field(description="Times that its embedding was there, or being made for somebody else.")
    waiting: int = Field(description="Images waiting to be encoded, and being encoded.")


class TokenStats(Output):
    """The language side, in tokens."""

    prompt: int = Field(description="Prompt tokens of answered questions, reused ones included.")
    reused: int = Field(description="Prompt tokens whose keys and values were there and not computed again.")
    computed: int = Field(description="The others.")
    generated: int


class QuestionStats(Output):
    """Questions, since the workers began, and now."""

    answered: int
    failed: int
    running: int
    waiting: int


class PrefixStats(Output):
    """Memory of keys and values."""

    bytes_used: int
    bytes_budget: int


class StoreStats(Output):
    """The store between the halves."""

    kinds: list[str] = Field(description="redis, rediss, unix, memory …: what the workers that answer were given.")
    healthy: bool = Field(description="Every worker that answers finds its store well.")


class WorkerStats(Output):
    """The workers of one half."""

    up: int
    known: int


class Stats(Output):
    """Sums over every worker that answers, since it began."""

    object: Literal["stats"]
    images: ImageStats
    tokens: TokenStats
    questions: QuestionStats
    prefixes: PrefixStats
    store: StoreStats
    vision: WorkerStats
    language: WorkerStats
