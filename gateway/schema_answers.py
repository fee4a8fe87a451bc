"""Many questions about the same images: the request, the reply, and the events of a streamed reply."""

from typing import Annotated, Literal

from pydantic import Field

from gateway.schema import (
    CacheState,
    ErrorObject,
    Flag,
    Input,
    MaxTokens,
    NonEmptyText,
    Output,
    SamplingFields,
    Text,
    UsageBody,
)
from gateway.schema_formats import ResponseFormat


class QuestionBody(Input):
    """One question. With `choices` it is scored over them, and nothing is sampled."""

    id: NonEmptyText | None = Field(default=None, description="Echoed. Left out: the question's place, from 0.")
    text: NonEmptyText
    choices: Annotated[list[NonEmptyText], Field(min_length=1, fail_fast=True)] | None = None
    response_format: ResponseFormat | None = Field(
        default=None, description="What the answer's text has to be; goes before the request's response_format."
    )
    max_tokens: MaxTokens | None = Field(default=None, description="Goes before the request's max_tokens.")


class AnswersRequest(SamplingFields):
    """Questions, and the images that all of them are about."""

    model: Text | None = Field(default=None, description="A name that /v1/models lists. Left out: the served model.")
    images: Annotated[list[Text], Field(fail_fast=True)] = Field(
        default_factory=list,
        description="Each `data:image/…;base64,…`, `data:video/…;base64,…`, or `image:img_…` for one uploaded before.",
    )
    system: Text | None = None
    questions: Annotated[list[QuestionBody], Field(min_length=1, fail_fast=True)]
    response_format: ResponseFormat | None = Field(
        default=None, description="What the text of every answer has to be, but of questions with `choices`."
    )
    stream: Flag | None = None


class ChoiceBody(Output):
    """One choice with its score."""

    text: str
    logprob: float = Field(description="Total natural-log probability of the choice's tokens after the prompt.")
    probability: float = Field(description="Softmax of the logprobs over the question's choices.")


class AnswerLookonce(Output):
    """What this answer cost."""

    image_cache: list[CacheState] = Field(description="miss: this answer paid for the images' prefix.")
    time_s: float
    time_to_first_token_s: float


class AnswerBody(Output):
    """One question's answer, or its `error`."""

    id: str
    text: str
    finish_reason: Literal["stop", "length", "error"]
    choices: list[ChoiceBody] | None = None
    usage: UsageBody
    error: ErrorObject | None = None
    lookonce: AnswerLookonce | None = None


class AnswersLookonce(Output):
    """What was saved."""

    image_cache: list[CacheState] = Field(description="For each image: its embedding was there, or had to be made.")
    prefix_tokens_reused: int = Field(description="Prompt tokens, over all questions, that were not computed again.")


class AnswersResponse(Output):
    """Every answer, in the questions' order."""

    id: str
    object: Literal["answers"]
    model: str
    images: list[str]
    answers: list[AnswerBody]
    usage: UsageBody
    lookonce: AnswersLookonce


class DeltaEvent(Output):
    """The next piece of one question's answer."""

    object: Literal["answers.delta"]
    index: int
    id: str
    delta: str


class AnswerEventBody(AnswerBody):
    """One question's finished answer, or its `error`."""

    object: Literal["answers.answer"]
    index: int


class DoneEvent(Output):
    """The last event before `[DONE]`: every question has had its answer."""

    object: Literal["answers.done"]
    id: str
    model: str
    images: list[str]
    usage: UsageBody
    lookonce: AnswersLookonce
