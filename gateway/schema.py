"""The types that several routes share: checked texts and numbers in, usage and errors out."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field
from pydantic_core import PydanticCustomError

UINT32 = 2**32 - 1
UINT64 = 2**64 - 1

CacheState = Literal["hit", "miss"]

# Values of an unsupported field that ask for nothing.
NEUTRAL: Sequence[object] = (None, False, 0, "", "none", "auto", [], {}, ["text"])


class Standing(Enum):
    """What becomes of a request's parameter."""

    SUPPORTED = "supported"
    IGNORED = "ignored"
    REFUSED = "refused"


def _well_formed(text: str) -> str:
    """A text that UTF-8 can hold; JSON can also spell half of a surrogate pair."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise PydanticCustomError("not_unicode", "the text holds a lone surrogate") from None
    return text


def _neutral(value: object) -> object:
    if value not in NEUTRAL:
        raise PydanticCustomError("unsupported", "this is not supported here")
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def by_field(field: str, same_branch: Mapping[str, str] | None = None) -> Discriminator:
    """Picks a union's branch by a field; branches are tagged `<value>`, so that error paths can leave them out.

    `same_branch` names another value for those that share its branch.
    """
    same = same_branch or {}

    def branch(value: object) -> str | None:
        name = value.get(field) if isinstance(value, dict) else getattr(value, field, None)
        return f"<{same.get(name, name)}>" if isinstance(name, str) else None

    return Discriminator(
        branch, custom_error_type="unsupported", custom_error_message=f"this '{field}' is not supported here"
    )


Text = Annotated[str, Field(strict=True), AfterValidator(_well_formed)]
NonEmptyText = Annotated[str, Field(strict=True, min_length=1), AfterValidator(_well_formed)]
Flag = Annotated[bool, Field(strict=True)]
MaxTokens = Annotated[int, Field(strict=True, ge=1, le=UINT32)]
Temperature = Annotated[float, Field(strict=True, ge=0, le=2, allow_inf_nan=False)]
TopP = Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]
TopK = Annotated[int, Field(strict=True, ge=1, le=UINT32)]
Seed = Annotated[int, Field(strict=True, ge=0, le=UINT64)]
Penalty = Annotated[float, Field(strict=True, ge=-2, le=2, allow_inf_nan=False)]
RepetitionPenalty = Annotated[float, Field(strict=True, gt=0, le=10, allow_inf_nan=False)]
Stop = Annotated[
    list[NonEmptyText],
    Field(max_length=16, fail_fast=True),
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
]
NumChoices = Annotated[int, Field(strict=True, ge=1, le=128)]
TopLogprobs = Annotated[int, Field(strict=True, ge=0, le=20)]
# Fields of OpenAI's that change nothing about the answer; the reply says so.
Ignored = Annotated[object, Standing.IGNORED, Field(description="Accepted, and changes nothing.")]
# Fields of OpenAI's that would change the answer's meaning.
Refused = Annotated[
    object,
    Standing.REFUSED,
    AfterValidator(_neutral),
    Field(description="Not supported: refused unless it asks for nothing."),
]


class Input(BaseModel):
    """What clients send: a field that is not listed is refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SamplingFields(Input):
    """How answers are sampled, for every route that generates. Without `temperature` decoding is greedy."""

    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = Field(default=None, description="0, the default, is greedy.")
    top_p: TopP | None = None
    top_k: TopK | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    stop: Stop | None = Field(default=None, description="Generation ends before any of these.")


class Output(BaseModel):
    """What clients are sent: fields that were not set are left out."""

    model_config = ConfigDict(frozen=True)


class PromptTokensDetails(Output):
    """What the prompt's tokens were."""

    cached_tokens: int = Field(description="Prompt tokens whose keys and values somebody else had computed.")


class UsageBody(Output):
    """Tokens of one answer, or of all of a request's."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class ErrorObject(Output):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Output):
    """The body of every reply that is not a success."""

    error: ErrorObject
