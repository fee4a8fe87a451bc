"""What goes into the engine and what comes out: questions as work, the ticket of each, the events that tell of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from lm_server.constrained import Constrained
from lm_server.constraints import Constraint
from lm_server.grammars import Grammar
from lm_server.logprobs import TokenLog, TokenLogprob
from lm_server.lora import Adapter
from lm_server.prompt import Prompt
from lm_server.runner import ImageEmbedding
from lm_server.sampler import Sampler, Sampling
from lm_server.sequence import Sequence
from lm_server.text import TextStream
from lm_server.times import QuestionTimes
from rpc.errors import RpcError


class AnyAdapter(Protocol):
    """A LoRA adapter. `identity` differs between any two, also of one name and place at different times."""

    @property
    def identity(self) -> str:
        """Tells it from every other."""


@dataclass(frozen=True, slots=True)
class Work:
    """A question as the engine takes it.

    Attributes:
        prompt: Tokens and all that belongs to them.
        keys: A segment key for each cut of the prompt.
        max_tokens: At most this many are generated.
        sampling: How they are chosen.
        choices: Token ids of each choice; given, they are scored and nothing is generated.
        embeddings: By image id; may lack images whose segments are expected to be resident.
        tenant: Whose question it is; tenants take turns.
        adapter: What it is answered with beside the model; the keys must be made with its identity.
        grammar: What the answer is held to; None leaves it free.
        fingerprint: Of the embeddings; empty where there are none.
        constraint: The grammar as it was asked for.
    """

    prompt: Prompt
    keys: tuple[bytes, ...]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    choices: tuple[tuple[int, ...], ...] = ()
    embeddings: Mapping[str, ImageEmbedding] = field(default_factory=dict)
    tenant: str = ""
    adapter: AnyAdapter | None = None
    grammar: Grammar | None = None
    fingerprint: str = ""
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of an answer's text, and the tokens that it completes, where they were asked for."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class LackingImages:
    """The question cannot start without these embeddings: call `supply`, or `cancel`."""

    image_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete.

    Attributes:
        finish_reason: "stop" or "length".
        logprobs: Of each choice: the total natural-log probability of its tokens after the prompt.
        num_generated: Tokens generated, the end token included.
        cached_tokens: Prompt tokens that somebody else had computed.
        first_token_s: Seconds from submission to the first token, or to the scores.
    """

    finish_reason: str
    logprobs: tuple[float, ...]
    num_generated: int
    cached_tokens: int
    first_token_s: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The question has no answer."""

    error: RpcError


Event = Delta | LackingImages | Finished | Failed
Listener = Callable[[Event], None]


class Ticket:
    """A question in the engine. Everything but the constructor belongs to the engine's thread."""

    def __init__(self, work: Work, tokenizer: Any, listener: Listener) -> None:
        self.work = work
        self.listener = listener
        self.sequence = sequence_of(work)
        self.text = TextStream(tokenizer, work.sampling.stop)
        self.sampler = Sampler(work.sampling)
        num_top = work.sampling.top_logprobs
        self.logprobs = None if num_top is None else TokenLog(tokenizer, num_top)
        self.times = QuestionTimes()
        self.constrained = Constrained(work.grammar) if work.grammar else None
        # By choice: the log-probability of its first token, and of the rest once its branch has run.
        self.first_logprobs: list[float] = []
        self.rest_logprobs: list[float] = []

    def push(self, token: int, logits: torch.Tensor, place: int) -> str:
        """Takes the next token of the text, chosen by the logits [R, V] at `place`; returns what can be sent now."""
        if self.logprobs is not None:
            self.logprobs.note(token, logits[place])
        return self.text.push(token)

    def completed(self) -> tuple[TokenLogprob, ...]:
        """The tokens whose text has been sent since the last call, where they were asked for."""
        return () if self.logprobs is None else self.logprobs.give(self.text.num_sent_tokens)


def sequence_of(work: Work) -> Sequence:
    """What the scheduler is given of a question."""
    max_tokens = 0 if work.choices else work.max_tokens
    return Sequence(
        work.prompt,
        work.keys,
        max_tokens,
        work.choices,
        embeddings=dict(work.embeddings),
        tenant=work.tenant,
        adapter=work.adapter if isinstance(work.adapter, Adapter) else None,
    )
