"""Token counts and sampling, between the worker's messages and OpenAI's."""

from collections.abc import Iterable, Sequence
from typing import Literal

from gateway.schema import PromptTokensDetails, SamplingFields, UsageBody
from protos import language_pb2


def usage_body(usages: Iterable[language_pb2.Usage]) -> UsageBody:
    """The sum of some answers' usage."""
    prompt = completion = cached = 0
    for usage in usages:
        prompt += usage.prompt_tokens
        completion += usage.completion_tokens
        cached += usage.cached_tokens
    return UsageBody(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
    )


def choices_usage(usages: Sequence[language_pb2.Usage]) -> UsageBody:
    """The usage of several answers to one prompt, which counts once: reused is what the first of them found."""
    cached = min(usage.cached_tokens for usage in usages)
    completion = sum(usage.completion_tokens for usage in usages)
    prompt = usages[0].prompt_tokens
    return usage_body([language_pb2.Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)])


def sampling_message(
    request: SamplingFields, max_tokens: int | None, top_logprobs: int | None = None
) -> language_pb2.Sampling:
    """The request's sampling as the worker takes it; what was not sent stays unset."""
    return language_pb2.Sampling(
        max_tokens=max_tokens,
        temperature=request.temperature or 0.0,
        top_p=request.top_p,
        top_k=request.top_k,
        seed=request.seed,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        repetition_penalty=request.repetition_penalty,
        stop=request.stop or (),
        top_logprobs=top_logprobs,
    )


def finish_reason(answer: language_pb2.Answer) -> Literal["stop", "length"]:
    """Why an answer ended, as OpenAI writes it."""
    return "length" if answer.finish_reason == "length" else "stop"
