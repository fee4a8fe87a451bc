"""What the language worker's tests are made with: prompts, embeddings of the whole model's own tower, and an engine."""

import copy
import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from checkpoint.families import FAMILIES
from lm_server.constraints import Constraint
from lm_server.disk import DiskFolder
from lm_server.drafts import DraftBook
from lm_server.engine import Engine
from lm_server.grammars import Grammar, Vocabulary
from lm_server.logprobs import TokenLogprob
from lm_server.probing import ParserLimits
from lm_server.prompt import Message, Prompt, PromptBuilder, TokenFacts, segment_keys
from lm_server.runner import ImageEmbedding, ModelRunner
from lm_server.sampler import Sampling
from lm_server.scheduler import Scheduler, SchedulerLimits
from lm_server.segments import KvLedger
from lm_server.showing import ImageRef, VideoFacts
from lm_server.tickets import Delta, Event, Failed, Finished, LackingImages, Ticket, Work
from lm_server.tiers import Tiers
from tests.families.oracle import Generated, load


def picture(number: int, width: int = 84, height: int = 56) -> Image.Image:
    """A picture of its own for every number."""
    values = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


MASKS = ThreadPoolExecutor(1, "masks")


@dataclass(frozen=True)
class Case:
    """A conversation: turns of (role, picture numbers, text)."""

    turns: tuple[tuple[str, tuple[int, ...], str], ...]
    choices: tuple[str, ...] = ()

    @property
    def pictures(self) -> list[int]:
        return [number for _, numbers, _ in self.turns for number in numbers]


def ask(text: str, *pictures: int, system: str | None = None, choices: Sequence[str] = ()) -> Case:
    """One question about some pictures."""
    turns = (("system", (), system),) if system else ()
    return Case((*turns, ("user", pictures, text)), tuple(choices))


# Sixteen requests of every kind: with and without images, one and three, several turns, English and Chinese.
MIXED = (
    ask("What is this?", 1),
    ask("图片里有什么？", 1),
    ask("Is it large or small?", 1),
    ask("Name a colour.", 2),
    ask("请描述这张图片。", 2),
    ask("Hello there."),
    ask("你好，今天怎么样？"),
    ask("Compare them.", 1, 2, 3),
    ask("比较一下。", 3, 2, 1),
    ask("Which one is larger?", 2, 3),
    ask("Be brief: what is it?", 3, system="You answer in one word."),
    Case((("user", (1,), "What is this?"), ("assistant", (), "A thing."), ("user", (), "Which thing?"))),
    Case((("user", (), "Hi."), ("assistant", (), "Hello!"), ("user", (2,), "And this?"))),
    Case((("user", (1,), "First."), ("assistant", (), "Yes."), ("user", (3,), "Second, and the first?"))),
    ask("A rather longer question about nothing in particular, asked to make ragged batches. " * 2),
    ask("What does it say, if anything at all?", 3),
)


class Workshop:
    """The language half of a checkpoint, taken out of the whole model, beside that whole model as the oracle."""

    def __init__(self, model_dir: Path) -> None:
        self.oracle = load(model_dir)
        self.model = copy.deepcopy(self.oracle.model)
        self.model.model.visual = None
        self.tokenizer = copy.deepcopy(self.oracle.tokenizer)
        config = self.model.config
        end = self.model.generation_config.eos_token_id
        self.end_tokens = frozenset(end if isinstance(end, list) else [end])
        self.merge_size: int = config.vision_config.spatial_merge_size
        facts = TokenFacts(
            config.image_token_id,
            config.vision_end_token_id,
            self.tokenizer.convert_tokens_to_ids("<|im_end|>"),
            self.merge_size,
            VideoFacts(
                FAMILIES[config.model_type].video,
                config.video_token_id,
                config.vision_start_token_id,
                getattr(config.vision_config, "tokens_per_second", 1),
            ),
        )
        self.prompts = PromptBuilder(self.tokenizer, facts)
        self.vocabulary = Vocabulary(self.tokenizer, config.text_config.vocab_size, self.end_tokens)
        self._embeddings: dict[int, tuple[ImageRef, ImageEmbedding]] = {}

    def image(self, number: int) -> tuple[ImageRef, ImageEmbedding]:
        """A picture as the engine knows it, from the whole model's own vision tower."""
        if number not in self._embeddings:
            pixels = self.oracle.image_processor(images=[picture(number)], return_tensors="pt")
            grid = tuple(pixels["image_grid_thw"][0].tolist())
            with torch.no_grad():
                out = self.oracle.model.model.visual(pixels["pixel_values"], grid_thw=pixels["image_grid_thw"])
            deepstack = tuple(getattr(out, "deepstack_features", None) or ())
            self._embeddings[number] = (ImageRef(f"img_{number}", grid), ImageEmbedding(out.pooler_output, deepstack))
        return self._embeddings[number]

    def grammar(self, kind: str, *texts: str, **limits: int) -> Grammar:
        """A compiled grammar, not tried elsewhere first."""
        return Grammar(Constraint(kind, texts), self.vocabulary, ParserLimits(**limits), MASKS)

    def prompt(self, case: Case) -> Prompt:
        """The case's prompt, as the worker builds it."""
        messages = []
        for role, numbers, text in case.turns:
            messages.append(Message(role, (*(self.image(number)[0] for number in numbers), text)))
        return self.prompts.build(messages)

    def work(self, case: Case, prompt: Prompt | None = None, **options: Any) -> Work:
        """The case as the engine takes it."""
        prompt = prompt or self.prompt(case)
        embeddings = {self.image(number)[0].image_id: self.image(number)[1] for number in case.pictures}
        choices = tuple(self.prompts.encode_text(choice) for choice in case.choices)
        return Work(
            prompt, segment_keys(prompt, "public", "f"), choices=choices, **{"embeddings": embeddings, **options}
        )

    def expected(self, case: Case, max_tokens: int) -> Generated:
        """The whole model's greedy answer."""
        return self.oracle.generate(oracle_messages(case), [picture(number) for number in case.pictures], max_tokens)

    def expected_next_logprobs(self, case: Case, answer: Sequence[int]) -> torch.Tensor:
        """The whole model's log-probability of every token in each place of an answer, [answer tokens, vocabulary]."""
        images = [picture(number) for number in case.pictures]
        return self.oracle.next_logprobs(oracle_messages(case), images, answer)

    def expected_logprobs(self, case: Case) -> tuple[float, ...]:
        """The whole model's log-probability of each choice."""
        images = [picture(number) for number in case.pictures]
        return self.oracle.choice_logprobs(oracle_messages(case), images, case.choices)

    @contextmanager
    def engine(
        self,
        *,
        kv_tokens: int = 100_000,
        host_tokens: int = 0,
        disk_tokens: int = 0,
        disk: DiskFolder | None = None,
        draft_tokens: int = 0,
        max_wait_s: float | None = None,
        **limits: Any,
    ) -> Iterator["Bench"]:
        """A running engine, with the tiers below its memory and the drafts that are asked for."""
        options = {"max_rows": 64, "max_running": 64, **limits}
        tiers = Tiers(host_tokens, disk_tokens) if host_tokens else None
        scheduler = Scheduler(KvLedger(kv_tokens, tiers), SchedulerLimits(**options))
        runner = ModelRunner(self.model, kv_tokens * kv_bytes_per_token(self.model.config.text_config))
        engine = Engine(
            runner,
            scheduler,
            self.tokenizer,
            end_tokens=self.end_tokens,
            max_questions=10_000,
            disk=disk,
            drafts=DraftBook(draft_tokens, 1 << 20) if draft_tokens else None,
            max_wait_s=max_wait_s,
        )
        engine.start()
        try:
            yield Bench(self, engine, scheduler, runner)
        finally:
            engine.stop()


def front_tokens(shop: "Workshop") -> int:
    """What questions about any picture begin with, in tokens; 0 where that is no segment of its own."""
    cuts = shop.prompt(ask("x", 1)).cuts
    return cuts[-2] if len(cuts) > 1 else 0


def image_tokens(shop: "Workshop") -> int:
    """What questions about one picture share beyond that."""
    return shop.prompt(ask("x", 1)).cuts[-1] - front_tokens(shop)


def kv_bytes_per_token(text: Any) -> int:
    """Bytes of keys and values that a token takes in float32."""
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * 4)


def oracle_messages(case: Case) -> list[dict[str, Any]]:
    """The case as the chat template takes it."""
    return [
        {"role": role, "content": [*({"type": "image"} for _ in numbers), {"type": "text", "text": text}]}
        if numbers
        else {"role": role, "content": text}
        for role, numbers, text in case.turns
    ]


@dataclass
class Told:
    """What the engine said of one question."""

    ticket: Ticket
    events: "queue.SimpleQueue[Event]"
    text: str = ""
    pieces: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    lacking: list[LackingImages] = field(default_factory=list)

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(self.ticket.sequence.output)

    def next(self) -> Event:
        """The next event, waited for."""
        return self.events.get(timeout=60)

    def end(self) -> Finished:
        """Follows the question to its answer."""
        while True:
            event = self.next()
            match event:
                case Delta():
                    self.pieces.append(event.text)
                    self.logprobs += event.logprobs
                    self.text += event.text
                case LackingImages():
                    self.lacking.append(event)
                case Finished():
                    return event
                case Failed():
                    raise event.error


@dataclass
class Bench:
    """A running engine with what surrounds it."""

    shop: Workshop
    engine: Engine
    scheduler: Scheduler
    runner: ModelRunner

    def submit(self, works: Sequence[Work]) -> list[Told]:
        """Gives questions to the engine together."""
        queues: list[queue.SimpleQueue[Event]] = [queue.SimpleQueue() for _ in works]
        tickets = self.engine.submit(works, [q.put for q in queues])
        return [Told(ticket, q) for ticket, q in zip(tickets, queues, strict=True)]

    def ask(self, cases: Sequence[Case], max_tokens: int = 12, sampling: Sampling | None = None) -> list[Told]:
        """Asks all the cases as one request."""
        prompts = [self.shop.prompt(case) for case in cases]
        return self.submit(
            [
                self.shop.work(case, prompt, max_tokens=max_tokens, sampling=sampling or Sampling())
                for case, prompt in zip(cases, prompts, strict=True)
            ]
        )
