"""OpenAI's moderations: inputs to hold against every policy, and what came of it; and the list of policies."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from gateway.policies.policy import InputType
from gateway.schema import CacheState, Input, NonEmptyText, Output, Text, UsageBody
from gateway.schema_chat import ImagePart, TextPart


def _kind_of_part(value: object) -> str | None:
    name = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"<{name}>" if isinstance(name, str) else None


def _kind_of_input(value: object) -> str | None:
    if isinstance(value, list):
        return "<texts>" if value and isinstance(value[0], str) else "<parts>"
    return "<one>" if isinstance(value, str) else None


ModerationPart = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[ImagePart, Tag("<image_url>")],
    Discriminator(
        _kind_of_part,
        custom_error_type="unsupported",
        custom_error_message="a part is {{'type': 'text', …}} or {{'type': 'image_url', …}}",
    ),
]
ModerationInput = Annotated[
    Annotated[NonEmptyText, Tag("<one>")]
    | Annotated[list[NonEmptyText], Field(min_length=1, fail_fast=True), Tag("<texts>")]
    | Annotated[list[ModerationPart], Field(min_length=1, fail_fast=True), Tag("<parts>")],
    Discriminator(
        _kind_of_input,
        custom_error_type="unsupported",
        custom_error_message="an input is a text, a list of texts, or a list of text and image_url parts",
    ),
]


class ModerationsRequest(Input):
    """A text; several texts, with a result each; or parts, texts and images, which are one input together."""

    input: ModerationInput
    model: Text | None = Field(default=None, description="A name that /v1/models lists. Left out: the served model.")


class PolicyVerdict(Output):
    """What came of one policy that was asked about an input."""

    raw_score: float = Field(description="The flagged labels' share of the labels' probability.")
    calibrated_score: float = Field(description="The same after the policy's calibration; category_scores has it too.")
    threshold: float = Field(description="Flagged from this calibrated score on.")
    labels: dict[str, float] = Field(description="Each label's probability, which sum to 1.")


class ModerationLookonce(Output):
    """What OpenAI's shape has no place for."""

    images: list[str] = Field(description="Ids under which later requests may name the images: image:ID.")
    image_cache: list[CacheState] = Field(description="For each image: its embedding was there, or had to be made.")
    prefix_tokens_reused: int = Field(description="Prompt tokens, over all policies, that were not computed again.")
    usage: UsageBody
    policies: dict[str, PolicyVerdict] = Field(description="The policies that were asked about this input.")


class ModerationResult(Output):
    """One input against every policy; each map has an entry for each of them."""

    flagged: bool = Field(description="At least one policy is flagged.")
    categories: dict[str, bool]
    category_scores: dict[str, float] = Field(description="Calibrated. 0 for a policy that is not asked of such input.")
    category_applied_input_types: dict[str, list[InputType]]
    lookonce: ModerationLookonce


class ModerationsResponse(Output):
    """A result for each input, in order."""

    id: str
    model: str
    results: list[ModerationResult]


class CalibrationBody(Output):
    """From raw score to calibrated score: log-odds / temperature + bias."""

    temperature: float
    bias: float


class PolicyBody(Output):
    """A policy as its file has it, with what was left out filled in."""

    name: str
    object: Literal["policy"]
    question: str
    labels: list[str]
    flagged: list[str]
    threshold: float
    calibration: CalibrationBody
    inputs: list[InputType]


class PolicyList(Output):
    """Every policy, in the file's order; empty where the gateway was given none."""

    object: Literal["list"]
    data: list[PolicyBody]
    system: str = Field(description="The system prompt that they are asked under; empty for none.")
