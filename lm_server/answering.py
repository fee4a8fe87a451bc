"""From checked questions to what the engine is given: images looked up, prompts built, grammars compiled."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from lm_server import metrics
from lm_server.constraints import Constraint
from lm_server.entries import EntryLibrary, checked_tenant
from lm_server.grammars import Grammar, GrammarLibrary
from lm_server.prompt import Message, Prompt, PromptBuilder, segment_keys
from lm_server.request_run import Done, KnownImage, Piece, RequestRun, Underway
from lm_server.requests import Ask, ImagePart, Turn
from lm_server.runner import ImageEmbedding
from lm_server.seam import AnsweringEngine
from lm_server.showing import ImageRef
from lm_server.tickets import AnyAdapter, Work
from rpc.errors import InvalidArgument, RpcError

MAX_CHOICE_TOKENS = 256


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """How long prompts and answers may be, in tokens."""

    context_tokens: int
    default_max_tokens: int


class Answerer:
    """Answers questions with one engine."""

    def __init__(
        self,
        engine: AnsweringEngine,
        prompts: PromptBuilder,
        library: EntryLibrary,
        grammars: GrammarLibrary,
        limits: TokenLimits,
    ) -> None:
        self._engine = engine
        self._prompts = prompts
        self._library = library
        self._grammars = grammars
        self._limits = limits

    async def answer(
        self, tenant: str, asks: Sequence[Ask], adapter: AnyAdapter | None = None
    ) -> AsyncGenerator[Piece | Done, None]:
        """Text and answers of all the questions as they come; every question ends with one `Done`.

        They are answered with the adapter to their ends, also where it is given up meanwhile.

        Leaving the iterator cancels what is unanswered.

        Raises:
            RpcError: an image cannot be had, the engine is full, or, of a single question, the question is no good.
        """
        started = time.monotonic()
        tenant = checked_tenant(tenant)
        # Before any work is done for what would be refused in the end.
        self._engine.check_room(len(asks), tenant)
        # One fingerprint for the whole request; of a prompt without images nothing depends on the vision half.
        fingerprint = self._library.fingerprint if any(turn.image_ids for ask in asks for turn in ask.turns) else ""
        grammars = await self._compile(asks)
        images = await self._look_up(tenant, fingerprint, asks)
        prepared = await asyncio.to_thread(self._prepare, asks, tenant, fingerprint, images, adapter, grammars)
        works: list[Work] = []
        questions: list[Underway] = []
        for index, outcome in enumerate(prepared):
            if isinstance(outcome, Work):
                works.append(replace(outcome, fingerprint=fingerprint, constraint=asks[index].constraint))
                questions.append(Underway(index, asks[index], outcome.prompt))
            else:
                metrics.QUESTIONS.labels("error").inc()
                yield Done(index, outcome)
        run = RequestRun(self._engine, self._library, tenant, fingerprint, images, started)
        async with aclosing(run.events(works, questions)) as events:
            async for event in events:
                yield event

    def forget(self, tenant: str, image_id: str) -> None:
        """Drops everything this worker keeps of a deleted image.

        Raises what `EntryLibrary.fingerprint` and `EntryLibrary.key` raise.
        """
        self._engine.forget(image_id)
        self._library.forget(self._library.key(tenant, image_id, self._library.fingerprint))

    async def _compile(self, asks: Sequence[Ask]) -> Mapping[Constraint, Grammar | RpcError]:
        """Every constraint's grammar. Raises what is wrong where that is the same for all the questions."""
        grammars = await self._grammars.get_all(ask.constraint for ask in asks)
        first = asks[0].constraint if asks else None
        if first and all(ask.constraint == first for ask in asks):
            outcome = grammars[first]
            if isinstance(outcome, RpcError):
                raise outcome
        return grammars

    async def _look_up(self, tenant: str, fingerprint: str, asks: Sequence[Ask]) -> dict[str, KnownImage]:
        """What is known of every image; those whose shape is not known are fetched."""
        image_ids = dict.fromkeys(image_id for ask in asks for turn in ask.turns for image_id in turn.image_ids)
        found = await asyncio.gather(*(self._look_up_one(tenant, image_id, fingerprint) for image_id in image_ids))
        return dict(zip(image_ids, found, strict=True))

    async def _look_up_one(self, tenant: str, image_id: str, fingerprint: str) -> KnownImage:
        key = self._library.key(tenant, image_id, fingerprint)
        shape = self._library.known_shape(key)
        if shape is not None:
            return KnownImage(shape, self._library.local(key))
        fetched = await self._library.fetch(tenant, image_id, fingerprint)
        return KnownImage(fetched.shape, fetched)

    def _prepare(
        self,
        asks: Sequence[Ask],
        tenant: str,
        fingerprint: str,
        images: Mapping[str, KnownImage],
        adapter: AnyAdapter | None,
        grammars: Mapping[Constraint, Grammar | RpcError],
    ) -> list[Work | RpcError]:
        """What the engine is given of each question, or why that question is no good, in order."""
        prompts = self._build_all(asks, images)
        held = [grammars[ask.constraint] if ask.constraint else None for ask in asks]
        embeddings = {image_id: image.fetched.embedding for image_id, image in images.items() if image.fetched}
        identity = adapter.identity if adapter else ""
        return [
            prompt
            if not isinstance(prompt, Prompt)
            else grammar
            if isinstance(grammar, RpcError)
            else self._checked_work(
                ask, prompt, segment_keys(prompt, tenant, fingerprint, identity), embeddings, tenant, adapter, grammar
            )
            for ask, prompt, grammar in zip(asks, prompts, held, strict=True)
        ]

    def _build_all(self, asks: Sequence[Ask], images: Mapping[str, KnownImage]) -> list[Prompt | RpcError]:
        """A prompt or the reason why there is none, for each question, in order."""
        outcomes: list[Prompt | RpcError] = []
        known: dict[tuple[Turn, ...], Prompt] = {}
        for ask in asks:
            try:
                if ask.turns not in known:
                    known[ask.turns] = self._prompts.build(_messages(ask.turns, images))
                outcomes.append(self._check_length(known[ask.turns], ask))
            except InvalidArgument as exc:
                outcomes.append(exc)
        return outcomes

    def _check_length(self, prompt: Prompt, ask: Ask) -> Prompt:
        # Of a choice nothing is generated: how long it may be is checked with its own tokens.
        context, wanted = self._limits.context_tokens, 0 if ask.choices else ask.max_tokens or 1
        if len(prompt) + wanted > context:
            raise InvalidArgument(
                f"the prompt has {len(prompt)} tokens and the answer may take {wanted}, but the model's context "
                f"holds {context}",
                reason="CONTEXT_LENGTH_EXCEEDED",
            )
        return prompt

    def _check_choices(self, work: Work) -> None:
        """A choice is run in one step and its logits are kept for it, so its length in tokens is bounded."""
        longest = max(map(len, work.choices), default=0)
        if longest > MAX_CHOICE_TOKENS or min(map(len, work.choices), default=1) == 0:
            raise InvalidArgument(f"choices: each must have 1 to {MAX_CHOICE_TOKENS} tokens, one has {longest}")
        if len(work.prompt) + longest > self._limits.context_tokens:
            raise InvalidArgument(
                f"the prompt has {len(work.prompt)} tokens and a choice {longest}, but the model's context holds "
                f"{self._limits.context_tokens}",
                reason="CONTEXT_LENGTH_EXCEEDED",
            )

    def _checked_work(
        self,
        ask: Ask,
        prompt: Prompt,
        keys: tuple[bytes, ...],
        embeddings: Mapping[str, ImageEmbedding],
        tenant: str,
        adapter: AnyAdapter | None,
        grammar: Grammar | None,
    ) -> Work | RpcError:
        left = self._limits.context_tokens - len(prompt)
        work = Work(
            prompt=prompt,
            keys=keys,
            max_tokens=ask.max_tokens or min(self._limits.default_max_tokens, left),
            sampling=ask.sampling,
            choices=tuple(self._prompts.encode_text(choice) for choice in ask.choices),
            embeddings=embeddings,
            tenant=tenant,
            adapter=adapter,
            grammar=grammar,
        )
        try:
            self._engine.check(work)
            self._check_choices(work)
        except InvalidArgument as exc:
            return exc
        return work


def _messages(turns: Sequence[Turn], images: Mapping[str, KnownImage]) -> list[Message]:
    return [Message(turn.role, tuple(_part(part, images) for part in turn.parts)) for turn in turns]


def _part(part: str | ImagePart, images: Mapping[str, KnownImage]) -> str | ImageRef:
    if isinstance(part, str):
        return part
    shape = images[part.image_id].shape
    return ImageRef(part.image_id, shape.grid, shape.video)
