"""The workers of the model: a vision worker encodes one image after the other, a language worker goes on in steps."""

from collections import OrderedDict, deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import simpy

from planning.costs import Costs
from planning.traffic import Request, Traffic

Process = Generator[simpy.Event, Any, None]
# As lm_server's scheduler: rows of a step at most.
STEP_ROWS = 512
# An encoding takes turns with steps after each of so many parts, its layers.
ENCODE_PARTS = 8


@dataclass(slots=True)
class Host:
    """Cores that workers may share.

    Attributes:
        cores: Held during a step, or a part of an encoding; None where every worker has its own.
    """

    cores: simpy.Resource | None

    def work(self, env: simpy.Environment, seconds: float) -> Process:
        """Works for so long, in its turn."""
        if self.cores is None:
            yield env.timeout(seconds)
            return
        with self.cores.request() as turn:
            yield turn
            yield env.timeout(seconds)


class Lru:
    """What is kept, by how lately it was used, within a number of bytes."""

    def __init__(self, budget_bytes: float) -> None:
        self._budget_bytes = budget_bytes
        self._kept: OrderedDict[int, float] = OrderedDict()
        self._used_bytes = 0.0

    def has(self, image: int) -> bool:
        """Whether it is kept; it counts as used now."""
        if image not in self._kept:
            return False
        self._kept.move_to_end(image)
        return True

    def keep(self, image: int, num_bytes: float) -> None:
        """Keeps it, and lets go of what was used longest ago."""
        self._used_bytes += num_bytes - self._kept.pop(image, 0.0)
        self._kept[image] = num_bytes
        while self._used_bytes > self._budget_bytes and len(self._kept) > 1:
            self._used_bytes -= self._kept.popitem(last=False)[1]


@dataclass(slots=True)
class Asked:
    """A request in the model.

    Attributes:
        request: What came.
        first_token: Happens with the first token of its last question to get one.
        done: Happens with its last answer.
        prompt_rows: Rows of its questions that are not computed.
        answers: Tokens that each question that is being answered lacks.
    """

    request: Request
    first_token: simpy.Event
    done: simpy.Event
    prompt_rows: int = 0
    answers: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Counts:
    """What happened.

    Attributes:
        encodings: Images that a tower encoded.
        entry_hits: Requests whose image was in the store.
        prefix_hits: Requests whose image's prefix was resident.
        requests: All of them.
        busy_vision_s: Seconds that towers worked.
        busy_language_s: Seconds that steps took.
        dead_vision: Vision workers that died.
        dead_language: Language workers that died.
        died_at_s: When they did.
    """

    encodings: int = 0
    entry_hits: int = 0
    prefix_hits: int = 0
    requests: int = 0
    busy_vision_s: float = 0.0
    busy_language_s: float = 0.0
    dead_vision: int = 0
    dead_language: int = 0
    died_at_s: float = 0.0


class VisionWorker:
    """Encodes images in the order in which they come."""

    def __init__(self, env: simpy.Environment, host: Host, costs: Costs, counts: Counts) -> None:
        self._env, self._host, self._costs, self._counts = env, host, costs, counts
        self._tower = simpy.Resource(env, 1)
        self.is_alive = True

    @property
    def queue(self) -> int:
        """Images in work or waiting."""
        return len(self._tower.queue) + self._tower.count

    def encode(self, image_tokens: int) -> Process:
        """Ends when the image is encoded and its entry is in the store."""
        with self._tower.request() as turn:
            yield turn
            seconds = self._costs.encode(image_tokens)
            for _ in range(ENCODE_PARTS):
                yield from self._host.work(self._env, seconds / ENCODE_PARTS)
            self._counts.encodings += 1
            self._counts.busy_vision_s += seconds
        yield self._env.timeout(self._costs.store(image_tokens * self._costs.entry_bytes_per_token))


@dataclass(slots=True)
class _Prefix:
    """An image's prefix that is being computed; `rows` of it are not."""

    image: int
    made: simpy.Event
    rows: int


class LanguageWorker:
    """Computes prefixes and questions in steps: decoding rows first, then as much of the rest as there is room for."""

    def __init__(
        self, env: simpy.Environment, host: Host, costs: Costs, traffic: Traffic, kv_bytes: float, counts: Counts
    ) -> None:
        self._env, self._host, self._costs, self._traffic, self._counts = env, host, costs, traffic, counts
        self._prefixes = Lru(kv_bytes)
        self._being_made: dict[int, simpy.Event] = {}
        self._prefills: deque[_Prefix] = deque()
        self._asked: list[Asked] = []
        self._wake = env.event()
        self.is_alive = True
        self.running = 0
        env.process(self._serve())

    def has_prefix(self, image: int) -> bool:
        """Whether nothing of the image has to be fetched or computed."""
        return self._prefixes.has(image) or image in self._being_made

    def prefix(self, image: int) -> simpy.Event:
        """Happens when the image's prefix is resident; the first to ask has it computed."""
        if image in self._being_made:
            return self._being_made[image]
        made = self._env.event()
        if self._prefixes.has(image):
            made.succeed()
            return made
        self._being_made[image] = made
        self._prefills.append(_Prefix(image, made, self._traffic.image_tokens))
        self._rouse()
        return made

    def ask(self, request: Request) -> Asked:
        """Takes the questions of a request whose prefix is resident."""
        asked = Asked(request, self._env.event(), self._env.event())
        asked.prompt_rows = request.questions * self._traffic.question_tokens
        self._asked.append(asked)
        self._rouse()
        return asked

    def _rouse(self) -> None:
        if not self._wake.triggered:
            self._wake.succeed()

    def _serve(self) -> Process:
        while True:
            if not self._asked and not self._prefills:
                self._wake = self._env.event()
                yield self._wake
            yield from self._step()

    def _step(self) -> Process:
        decoding = [asked for asked in self._asked if asked.answers]
        rows = sum(len(asked.answers) for asked in decoding)
        prompts = self._fill(STEP_ROWS - rows)
        prompt_rows = sum(taken for _, taken in prompts)
        prefix = self._prefills[0] if self._prefills else None
        taken = min(prefix.rows, max(STEP_ROWS - rows - prompt_rows, 0)) if prefix else 0
        tokens = self._traffic.image_tokens
        seconds = self._costs.step_s(rows, prompt_rows, taken / tokens, tokens)
        self._counts.busy_language_s += seconds
        yield from self._host.work(self._env, seconds)
        for asked in decoding:
            self._decode(asked)
        for asked, count in prompts:
            self._prompt(asked, count)
        if prefix is not None:
            self._advance(prefix, taken)

    def _advance(self, prefix: _Prefix, taken: int) -> None:
        prefix.rows -= taken
        if prefix.rows:
            return
        self._prefills.popleft()
        self._prefixes.keep(prefix.image, self._traffic.image_tokens * self._costs.kv_bytes_per_token)
        del self._being_made[prefix.image]
        prefix.made.succeed()

    def _fill(self, room: int) -> list[tuple[Asked, int]]:
        found: list[tuple[Asked, int]] = []
        for asked in self._asked:
            if asked.prompt_rows and room > 0:
                taken = min(asked.prompt_rows, room)
                found.append((asked, taken))
                room -= taken
        return found

    def _prompt(self, asked: Asked, taken: int) -> None:
        asked.prompt_rows -= taken
        if not asked.prompt_rows:
            asked.first_token.succeed()
            asked.answers = [self._traffic.answer_tokens - 1] * asked.request.questions
            self._decode_end(asked)

    def _decode(self, asked: Asked) -> None:
        asked.answers = [left - 1 for left in asked.answers]
        self._decode_end(asked)

    def _decode_end(self, asked: Asked) -> None:
        asked.answers = [left for left in asked.answers if left > 0]
        if not asked.answers:
            self._asked.remove(asked)
            asked.done.succeed()
