"""lookonce without sockets: the vision tower and the language engine, called directly in one process."""

import queue
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers

from benchmarks.systems.system import KV_BYTES, Setup
from benchmarks.workload import Answer, Outcome, Question, Workload
from checkpoint import LoadedLanguage, load_language, load_vision
from kernels import keep_freed_memory, leave_threads_to_the_model, return_freed_memory
from lm_server.engine import Engine
from lm_server.main import make_engine, token_facts
from lm_server.prompt import Message, Prompt, PromptBuilder, segment_keys
from lm_server.runner import ImageEmbedding
from lm_server.settings import LanguageSettings
from lm_server.showing import ImageRef
from lm_server.tickets import Delta, Event, Failed, Finished, LackingImages, Ticket, Work
from lm_server.tied import hold_table_once
from vision_server.decode import ImageLimits, decode
from vision_server.encoder import Embedding, VisionTower
from vision_server.preprocess import ImagePreprocessor, PreparedImage

MAX_IMAGE_PIXELS = 50_000_000


@dataclass(slots=True)
class _Asked:
    """A question in the engine."""

    question: Question
    at: float
    ticket: Ticket | None = None
    text: list[str] = field(default_factory=list)
    first_token_s: float | None = None


class Worker:
    """One tower and one engine. Embeddings are kept by picture, as Redis would keep their entries."""

    def start(self, setup: Setup) -> None:
        """Loads both halves."""
        return_freed_memory()
        self._setup = setup
        self._threads = leave_threads_to_the_model(setup.threads)
        model_dir = Path(setup.checkpoint)
        self._tower = self._load_tower(model_dir)
        self._preprocessor = ImagePreprocessor(model_dir)
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
        self._half = self._load_half(model_dir)
        self._prompts = PromptBuilder(self._tokenizer, token_facts(self._half, self._tokenizer))
        self._images: dict[str, tuple[ImageRef, ImageEmbedding]] = {}
        self._engine = self._open_engine()
        keep_freed_memory()

    def _load_tower(self, model_dir: Path) -> VisionTower:
        return VisionTower(load_vision(model_dir, dtype=self._setup.dtype, device=self._setup.device))

    def _load_half(self, model_dir: Path) -> LoadedLanguage:
        return load_language(model_dir, dtype=self._setup.dtype, device=self._setup.device, on_table=hold_table_once)

    def _entry(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of an embedding, as an entry keeps it."""
        return tensor

    def _settings(self) -> LanguageSettings:
        text = self._half.description.config.text_config
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        token_bytes = 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * self._half.dtype.itemsize
        kv_tokens = self._setup.kv_tokens
        kv_bytes = KV_BYTES if kv_tokens is None else kv_tokens * token_bytes
        return LanguageSettings(
            self._setup.checkpoint,
            "",
            "memory://",
            (),
            dtype=self._setup.dtype,
            device=self._setup.device,
            kv_bytes=kv_bytes,
            threads=self._threads,
        )

    def _open_engine(self) -> Engine:
        engine = make_engine(self._settings(), self._half, self._tokenizer)
        engine.start()
        return engine

    def restart(self) -> None:
        """A new engine; the embeddings stay."""
        self._engine.stop()
        self._engine = self._open_engine()

    def run(self, workload: Workload, paths: Sequence[str]) -> Outcome:
        """Asks each group when it is due, in the order of the workload."""
        events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
        asked: dict[int, _Asked] = {}
        answers: dict[int, Answer] = {}
        groups = workload.groups()
        started = time.perf_counter()
        if workload.is_burst:
            for path in paths:
                self._image(path)
        while groups or len(asked) > len(answers):
            while groups and self._may_ask(workload, groups[0], len(asked) - len(answers), started):
                self._ask(workload, groups.pop(0), paths, started, events, asked)
            self._take(events, asked, answers, waits=not (groups and workload.in_flight is None))
        seconds = time.perf_counter() - started
        return Outcome(seconds, tuple(answers[place] for place in range(len(workload.questions))))

    def _may_ask(self, workload: Workload, group: Sequence[int], num_asked: int, started: float) -> bool:
        if workload.in_flight is not None and num_asked >= workload.in_flight:
            return False
        return workload.questions[group[0]].at_s <= time.perf_counter() - started

    def _ask(
        self,
        workload: Workload,
        group: Sequence[int],
        paths: Sequence[str],
        started: float,
        events: "queue.SimpleQueue[tuple[int, Event]]",
        asked: dict[int, _Asked],
    ) -> None:
        questions = [workload.questions[place] for place in group]
        is_timed = workload.is_burst or any(question.at_s for question in questions)
        at = started + questions[0].at_s if is_timed else time.perf_counter()
        image, embedding = self._image(paths[questions[0].picture])
        built = [self._prompts.build([Message("user", (image, question.text))]) for question in questions]
        works = [
            self._work(question, prompt, {image.image_id: embedding})
            for question, prompt in zip(questions, built, strict=True)
        ]
        asked.update((place, _Asked(question, at)) for place, question in zip(group, questions, strict=True))
        listeners = [lambda event, place=place: events.put((place, event)) for place in group]
        for place, ticket in zip(group, self._engine.submit(works, listeners), strict=True):
            asked[place].ticket = ticket

    def _work(self, question: Question, prompt: Prompt, embeddings: dict[str, ImageEmbedding]) -> Work:
        choices = tuple(self._prompts.encode_text(choice) for choice in question.choices)
        keys = segment_keys(prompt, "public", "")
        return Work(prompt, keys, question.max_tokens, choices=choices, embeddings=embeddings)

    def _image(self, path: str) -> tuple[ImageRef, ImageEmbedding]:
        if path not in self._images:
            picture = decode(Path(path).read_bytes(), ImageLimits(MAX_IMAGE_PIXELS))
            prepared = self._preprocessor.prepare(picture)
            embedding = self._encode(prepared)
            deepstack = tuple(self._entry(layer) for layer in embedding.deepstack)
            kept = ImageEmbedding(self._entry(embedding.merged), deepstack)
            self._images[path] = (ImageRef(path, prepared.grid), kept)
        return self._images[path]

    def _encode(self, prepared: PreparedImage) -> Embedding:
        """In a thread that ends with the image: two threads that both hold a pool of torch's slow each other down."""
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(self._threads,)) as model_thread:
            [embedding] = model_thread.submit(self._tower.encode, [prepared]).result()
        return embedding

    def _take(
        self,
        events: "queue.SimpleQueue[tuple[int, Event]]",
        asked: dict[int, _Asked],
        answers: dict[int, Answer],
        *,
        waits: bool,
    ) -> None:
        """Reads what the engine said; for a moment at least, so as not to spin."""
        try:
            place, event = events.get(timeout=None if waits else 0.0005)
        except queue.Empty:
            return
        one = asked[place]
        elapsed = time.perf_counter() - one.at
        match event:
            case Delta():
                one.text.append(event.text)
                one.first_token_s = one.first_token_s or elapsed
            case Finished():
                answers[place] = _answer(one, event, elapsed)
            case LackingImages():
                self._bring(one, event)
            case Failed():
                answers[place] = Answer("", 0, elapsed, error=str(event.error))

    def _bring(self, one: _Asked, event: LackingImages) -> None:
        if one.ticket is not None:
            self._engine.supply(one.ticket, {path: self._images[path][1] for path in event.image_ids})


def _answer(one: _Asked, event: Finished, elapsed: float) -> Answer:
    choices = one.question.choices
    if not choices:
        return Answer("".join(one.text), event.num_generated, elapsed, one.first_token_s)
    weights = np.exp(np.asarray(event.logprobs) - max(event.logprobs))
    probabilities = tuple((weights / weights.sum()).tolist())
    return Answer(choices[int(weights.argmax())], 0, elapsed, elapsed, probabilities)
