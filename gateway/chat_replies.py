"""What a chat completion's client is sent: the reply, or the chunks of a streamed one."""

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from gateway.errors import Unforeseen
from gateway.images import RequestImage, image_cache
from gateway.schema_chat import (
    ChatChunk,
    ChatLookonce,
    ChatResponse,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
    ReplyChoice,
    ReplyMessage,
    TokenLogprob,
    TopLogprob,
)
from gateway.streams import Opened
from gateway.usage import choices_usage, finish_reason
from protos import language_pb2
from rpc.errors import Unavailable

Events = Opened[language_pb2.GenerateEvent]
# What OpenAI writes for a token that cannot come.
LEAST_LOGPROB = -9999.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What every part of one reply says of it.

    Attributes:
        id: The reply's id.
        created: Unix seconds.
        model: The served model's name.
        images: The request's images.
        warnings: What was asked for in vain.
        num_choices: So many answers were asked for.
        has_logprobs: Tokens' log-probabilities were asked for.
    """

    id: str
    created: int
    model: str
    images: Sequence[RequestImage]
    warnings: Sequence[str] = ()
    num_choices: int = 1
    has_logprobs: bool = False

    def lookonce(self, answers: Collection[language_pb2.Answer]) -> ChatLookonce:
        """What was saved, and what was in vain."""
        told = ChatLookonce(
            images=[image.id for image in self.images],
            image_cache=image_cache(self.images, [answer.image_sources for answer in answers]),
        )
        return told.model_copy(update={"warnings": list(self.warnings)}) if self.warnings else told

    def logprobs(self, tokens: Sequence[language_pb2.TokenLogprob]) -> ChoiceLogprobs | None:
        """The tokens as OpenAI writes them; None where nobody asked."""
        return ChoiceLogprobs(content=[_token(each) for each in tokens], refusal=None) if self.has_logprobs else None

    def check(self, event: language_pb2.GenerateEvent) -> None:
        """Raises `Unavailable` for an event of an answer that was not asked for: it was damaged on its way."""
        if event.index >= self.num_choices:
            raise Unavailable("the language worker's reply cannot be read", retry_after_s=1.0)


async def collect(reply: Reply, events: Events) -> ChatResponse:
    """The reply that is not streamed.

    Raises:
        RpcError: the worker failed.
        Unforeseen: the worker ended before every choice had its answer.
    """
    answers: dict[int, language_pb2.Answer] = {}
    async with aclosing(events):
        async for event in events:
            reply.check(event)
            if event.WhichOneof("event") == "done":
                answers[event.index] = event.done
            if len(answers) == reply.num_choices:
                return _response(reply, [answers[index] for index in range(reply.num_choices)])
    raise Unforeseen


def _response(reply: Reply, answers: Sequence[language_pb2.Answer]) -> ChatResponse:
    return ChatResponse(
        id=reply.id,
        object="chat.completion",
        created=reply.created,
        model=reply.model,
        choices=[_choice(reply, index, answer) for index, answer in enumerate(answers)],
        usage=choices_usage([answer.usage for answer in answers]),
        lookonce=reply.lookonce(answers),
    )


def _choice(reply: Reply, index: int, answer: language_pb2.Answer) -> ReplyChoice:
    return ReplyChoice(
        index=index,
        message=ReplyMessage(role="assistant", content=answer.text, refusal=None),
        logprobs=reply.logprobs(answer.logprobs),
        finish_reason=finish_reason(answer),
    )


async def chunks(reply: Reply, events: Events, *, include_usage: bool) -> AsyncGenerator[ChatChunk, None]:
    """The chunks of a streamed reply: each choice's role, the texts' pieces, each finish, and the usage if asked for.

    Raises:
        RpcError: the worker failed.
        Unforeseen: the worker ended before every choice had its answer.
    """
    # As OpenAI has it: with include_usage every chunk has the field, null before the last.
    blank = {"usage": None} if include_usage else {}
    for index in range(reply.num_choices):
        yield _chunk(reply, index, Delta(role="assistant", content="")).model_copy(update=blank)
    answers: dict[int, language_pb2.Answer] = {}
    async for event in events:
        reply.check(event)
        if event.WhichOneof("event") == "delta":
            logprobs = reply.logprobs(event.logprobs)
            yield _chunk(reply, event.index, Delta(content=event.delta), logprobs).model_copy(update=blank)
            continue
        answers[event.index] = event.done
        finish = _chunk(reply, event.index, Delta(), finish=finish_reason(event.done)).model_copy(update=blank)
        if len(answers) < reply.num_choices:
            yield finish
            continue
        for last in _last_chunks(reply, finish, list(answers.values()), include_usage=include_usage):
            yield last
        return
    raise Unforeseen


def _chunk(
    reply: Reply,
    index: int,
    delta: Delta,
    logprobs: ChoiceLogprobs | None = None,
    finish: Literal["stop", "length"] | None = None,
) -> ChatChunk:
    return ChatChunk(
        id=reply.id,
        object="chat.completion.chunk",
        created=reply.created,
        model=reply.model,
        choices=[ChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=finish)],
    )


def _last_chunks(
    reply: Reply, finish: ChatChunk, answers: Sequence[language_pb2.Answer], *, include_usage: bool
) -> list[ChatChunk]:
    saved = {"lookonce": reply.lookonce(answers)}
    if not include_usage:
        return [finish.model_copy(update=saved)]
    usage = choices_usage([answer.usage for answer in answers])
    return [finish, finish.model_copy(update={**saved, "choices": [], "usage": usage})]


def _token(told: language_pb2.TokenLogprob) -> TokenLogprob:
    return TokenLogprob(
        token=_spelt(told.token),
        logprob=max(told.logprob, LEAST_LOGPROB),
        bytes=list(told.token),
        top_logprobs=[
            TopLogprob(token=_spelt(top.token), logprob=max(top.logprob, LEAST_LOGPROB), bytes=list(top.token))
            for top in told.top
        ],
    )


def _spelt(token: bytes) -> str:
    """A token as text; bytes that are no whole character in hexadecimal behind a backslash, as OpenAI spells them."""
    return token.decode(errors="backslashreplace")
