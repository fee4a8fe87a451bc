"""OpenAI's chat completions: the part of the request that is served, and the whole of the reply."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, Tag

from gateway.schema import (
    CacheState,
    Flag,
    Ignored,
    Input,
    MaxTokens,
    NumChoices,
    Output,
    Refused,
    SamplingFields,
    Standing,
    Text,
    TopLogprobs,
    UsageBody,
    by_field,
)
from gateway.schema_formats import ResponseFormat, StructuredOutputs
from gateway.schema_video import VideoPart, VideoUrlPart


class TextPart(Input):
    """A piece of text."""

    type: Literal["text"]
    text: Text


class ImageUrl(Input):
    """Where an image comes from: `data:image/…;base64,…`, or `image:img_…` for one that was uploaded before."""

    url: Text
    detail: Annotated[Literal["auto", "low", "high"] | None, Standing.IGNORED] = Field(
        default=None, description="Accepted, and changes nothing: an image is seen as the model was trained to."
    )


class ImagePart(Input):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


SAME_BRANCH = {"developer": "system"}


def _as_parts(value: object) -> object:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


Part = Annotated[
    Annotated[TextPart, Tag("<text>")]
    | Annotated[ImagePart, Tag("<image_url>")]
    | Annotated[VideoUrlPart, Tag("<video_url>")]
    | Annotated[VideoPart, Tag("<video>")],
    by_field("type"),
]
TextParts = Annotated[
    list[TextPart],
    Field(min_length=1, fail_fast=True),
    BeforeValidator(_as_parts, json_schema_input_type=str | list[TextPart]),
]
Parts = Annotated[
    list[Part],
    Field(min_length=1, fail_fast=True),
    BeforeValidator(_as_parts, json_schema_input_type=str | list[Part]),
]


class SystemMessage(Input):
    """What the model should know or do."""

    role: Literal["system", "developer"]
    content: TextParts
    name: Ignored = None


class UserMessage(Input):
    """What the user says and shows."""

    role: Literal["user"]
    content: Parts
    name: Ignored = None


class AssistantMessage(Input):
    """What the model said in an earlier turn."""

    role: Literal["assistant"]
    content: TextParts
    name: Ignored = None
    annotations: Ignored = None
    refusal: Refused = None
    audio: Refused = None
    tool_calls: Refused = None
    function_call: Refused = None


ChatMessage = Annotated[
    Annotated[SystemMessage, Tag("<system>")]
    | Annotated[UserMessage, Tag("<user>")]
    | Annotated[AssistantMessage, Tag("<assistant>")],
    by_field("role", SAME_BRANCH),
]


class StreamOptions(Input):
    """What a stream ends with."""

    include_usage: Flag | None = None
    include_obfuscation: Ignored = None


class ChatRequest(SamplingFields):
    """A conversation to continue."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    model: Text | None = Field(default=None, description="A name that /v1/models lists. Left out: the served model.")
    max_completion_tokens: MaxTokens | None = Field(default=None, description="Goes before max_tokens.")
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    n: NumChoices | None = Field(
        default=None, description="So many answers; with a seed, answer i draws from seed + i."
    )
    logprobs: Flag | None = Field(default=None, description="Whether each token's log-probability is told.")
    top_logprobs: TopLogprobs | None = Field(default=None, description="With logprobs: likeliest tokens told beside.")
    response_format: ResponseFormat | None = Field(default=None, description="What the answer's text has to be.")
    structured_outputs: StructuredOutputs | None = Field(default=None, description="The same as vLLM spells it.")

    user: Ignored = None
    metadata: Ignored = None
    store: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    prompt_cache_options: Ignored = None
    parallel_tool_calls: Ignored = None

    tools: Refused = None
    tool_choice: Refused = None
    functions: Refused = None
    function_call: Refused = None
    logit_bias: Refused = None
    modalities: Refused = None
    moderation: Refused = None
    audio: Refused = None
    prediction: Refused = None
    reasoning_effort: Refused = None
    verbosity: Refused = None
    web_search_options: Refused = None


class ChatLookonce(Output):
    """What was saved, for each image of the conversation in order."""

    images: list[str] = Field(description="Ids under which later requests may name the images: image:ID.")
    image_cache: list[CacheState]
    warnings: list[str] | None = Field(default=None, description="Parameters that were sent and changed nothing.")


class ReplyMessage(Output):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None


class TopLogprob(Output):
    """A token that might have come."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(Output):
    """A token that came, with its natural-log probability before temperature and penalties."""

    token: str = Field(description="Its text; bytes that are no whole character are spelt \\xe5.")
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Output):
    """The tokens of an answer, or of a piece of it."""

    content: list[TokenLogprob] | None
    refusal: None


class ReplyChoice(Output):
    """One answer."""

    index: int
    message: ReplyMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: Literal["stop", "length"]


class ChatResponse(Output):
    """A finished answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ReplyChoice]
    usage: UsageBody
    lookonce: ChatLookonce


class Delta(Output):
    """The next piece of an answer."""

    role: Literal["assistant"] = "assistant"
    content: str = ""


class ChunkChoice(Output):
    """The next piece of one answer; its last has a finish_reason."""

    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class ChatChunk(Output):
    """One event of a streamed answer; `lookonce` is in the last, `usage` too where it was asked for."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: UsageBody | None = None
    lookonce: ChatLookonce | None = None
