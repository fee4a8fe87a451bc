"""One run: everything on one host and the halves on two, in turn, at every rate; and what came of it as values."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from benchmarks.hosts.apart import Apart
from benchmarks.hosts.asking import Asked, Load, ask, picture
from benchmarks.hosts.expected import Parts
from benchmarks.hosts.link import Link, inside
from cache import CODECS, Entry
from cache.codec import ZSTD, codec_of
from cache.header import ITEM_BYTES

ONE, TWO, PACKED = "one host", "two hosts", "two hosts, zstd"
# How often an entry is compressed to see how long it takes.
PACKINGS = 5
# Sent to see what a rate comes to: so many seconds of it, at most so many bytes.
PROBE_S, PROBE_BYTES = 0.4, 256 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        checkpoint: Its directory.
        unit: Pixels along the side of what becomes one token.
        rates_mbit: Of the link.
        loads: At each rate.
        packed: Of these, those that compressed entries are measured with too.
        repeats: Of everything; medians count.
        delay_s: Of every byte on the link.
        dtypes: Of the vision half and the language half on two hosts; on one host both have the second one.
    """

    checkpoint: Path
    unit: int
    rates_mbit: tuple[float, ...]
    loads: tuple[Load, ...]
    packed: tuple[Load, ...]
    repeats: int
    delay_s: float = 0.0
    dtypes: tuple[str, str] = ("auto", "auto")

    def visits(self) -> int:
        """How often a deployment is asked something."""
        packed = sum(load in self.packed for load in self.loads)
        alone = len(self.alone())
        return self.repeats * (alone + len(self.rates_mbit) * (len(self.loads) + packed))

    def alone(self) -> tuple[Load, ...]:
        """What is asked on one host: the loads, and one picture of each, which tells what its answers take."""
        single = (Load(load.tokens, load.questions, 1, load.answer_tokens) for load in self.loads)
        return tuple(dict.fromkeys((*self.loads, *single)))


@dataclass(slots=True)
class Point:
    """One system under one load: seconds of each repeat. `mbit` is 0 where no link is used."""

    system: str
    mbit: float
    tokens: int
    questions: int
    pictures: int
    first_s: list[float] = field(default_factory=list)
    last_s: list[float] = field(default_factory=list)

    @property
    def median_first_s(self) -> float:
        """Until a picture's first answer begins."""
        return median(self.first_s)

    @property
    def median_last_s(self) -> float:
        """Until everything is answered."""
        return median(self.last_s)


@dataclass(slots=True)
class Encoding:
    """A picture of so many tokens: seconds to encode it on one host, and bytes.

    `packing_s` are processor seconds of compressing its entry and having it back.
    """

    tokens: int
    file_bytes: int
    entry_bytes: int
    packed_bytes: int
    packing_s: float
    seconds: list[float] = field(default_factory=list)

    @property
    def packing_pays_mbit(self) -> float:
        """The rate below which the link saves more than compressing takes."""
        return max(self.entry_bytes - self.packed_bytes, 0) * 8 / 1e6 / max(self.packing_s, 1e-9)


@dataclass(slots=True)
class Hosts:
    """A whole run.

    Attributes:
        reached_mbit: What one connection came to at each rate, by the rate.
        compared: Answers on two hosts that were held against those on one.
        equal: Of these, those that are the same.
    """

    machine: dict[str, Any]
    command: str
    recipe: str
    dtypes: tuple[str, str]
    delay_s: float
    repeats: int
    reached_mbit: dict[str, float] = field(default_factory=dict)
    encodings: list[Encoding] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    compared: int = 0
    equal: int = 0

    def point(self, system: str, mbit: float, load: Load) -> Point:
        """The point, which is made where it is new."""
        key = (system, mbit, load.tokens, load.questions, load.pictures)
        for one in self.points:
            if (one.system, one.mbit, one.tokens, one.questions, one.pictures) == key:
                return one
        self.points.append(Point(*key))
        return self.points[-1]

    def parts(self, tokens: int, questions: int, *, packed: bool = False) -> Parts:
        """What one picture takes: its encoding as measured alone, and the rest of its time on one host."""
        encoding = next(one for one in self.encodings if one.tokens == tokens)
        encode_s = median(encoding.seconds)
        whole = self.point(ONE, 0, Load(tokens, questions, 1))
        entry_bytes = encoding.packed_bytes if packed else encoding.entry_bytes
        answer_s = max(whole.median_last_s - encode_s, 0.0)
        first_s = max(whole.median_first_s - encode_s, 0.0)
        return Parts(encode_s, answer_s, encoding.file_bytes, entry_bytes + encoding.file_bytes, first_s)


def measure(plan: Plan, link: Link, found: Hosts, step: Callable[[str], None]) -> None:
    """Fills `found`. `step` is told what was done, `plan.visits()` times. Raises `SystemFailed`."""
    with inside(link.language):
        for rate in plan.rates_mbit:
            link.set_rate(rate)
            probe = int(min(rate * 1e6 / 8 * PROBE_S, PROBE_BYTES))
            found.reached_mbit[f"{rate:g}"] = round(link.reached_mbit(probe), 1)
        one = Apart(with_gateways=True, eyes=link.language, mouth=link.language, dtypes=(plan.dtypes[1],) * 2)
        two = Apart(
            with_gateways=True,
            eyes=link.vision,
            mouth=link.language,
            codecs=CODECS,
            delay_s=plan.delay_s,
            dtypes=plan.dtypes,
        )
        try:
            one.launch(plan.checkpoint)
            two.launch(plan.checkpoint)
            one.wait_ready()
            two.wait_ready()
            _Run(plan, link, found, one, two, step).everything()
        finally:
            two.stop()
            one.stop()


@dataclass(slots=True)
class _Run:
    """The running deployments, and what is known so far."""

    plan: Plan
    link: Link
    found: Hosts
    one: Apart
    two: Apart
    step: Callable[[str], None]
    _texts: dict[Load, tuple[str, ...]] = field(default_factory=dict)

    def everything(self) -> None:
        """A round to get warm, then every repeat."""
        self._warm_up()
        for _ in range(self.plan.repeats):
            self._encode()
            for load in self.plan.alone():
                # Beside each other, so that what changes in the course of a run changes both.
                self._visit(ONE, 0, load, self.one.gateways[0])
                if load in self.plan.loads:
                    self._at_every_rate(load)
            for each in (self.one, self.two):
                each.forget()

    def _at_every_rate(self, load: Load) -> None:
        for rate in self.plan.rates_mbit:
            self.link.set_rate(rate)
            for system, gateway in self._systems(load):
                self._visit(system, rate, load, gateway)

    def _systems(self, load: Load) -> Iterator[tuple[str, str]]:
        plain, packed = self.two.gateways
        yield TWO, plain
        if load in self.plan.packed:
            yield PACKED, packed

    def _warm_up(self) -> None:
        smallest = min(self.plan.loads, key=lambda load: (load.tokens, load.questions))
        for gateway in (*self.one.gateways, *self.two.gateways):
            ask(gateway, smallest, self.plan.unit)

    def _encode(self) -> None:
        """How long each size of picture takes to encode on one host, and how large its entry is either way."""
        for load in {load.tokens: load for load in self.plan.loads}.values():
            known = next((one for one in self.found.encodings if one.tokens == load.tokens), None)
            if known is None:
                # New to each worker: the second would find the first one's entry.
                made = [self.two.encode(picture(load, self.plan.unit), place)[1] for place in range(len(CODECS))]
                plain, packed = (image.entry_bytes for image in made)
                packing_s = _packing_s(self.two.entry(made[0]))
                known = Encoding(load.tokens, len(picture(load, self.plan.unit)), plain, packed, packing_s)
                self.found.encodings.append(known)
            known.seconds.append(self.one.encode(picture(load, self.plan.unit))[0])

    def _visit(self, system: str, mbit: float, load: Load, gateway: str) -> None:
        asked = ask(gateway, load, self.plan.unit)
        point = self.found.point(system, mbit, load)
        point.first_s.append(asked.first_s)
        point.last_s.append(asked.last_s)
        self._compare(load, asked)
        self.step(f"{system}{f' at {mbit:g} Mbit/s' if mbit else ''}: {load.pictures} × {load.tokens} tokens")

    def _compare(self, load: Load, asked: Asked) -> None:
        """Every picture of a load is the same one, so all have the answers that one host gave about the first."""
        right = self._texts.setdefault(load, asked.texts[0])
        for texts in asked.texts:
            self.found.compared += len(texts)
            self.found.equal += sum(a == b for a, b in zip(texts, right, strict=True))


def _packing_s(entry: Entry) -> float:
    """Processor seconds to compress an entry's values and to have them back."""
    tensors = [(tensor.data, ITEM_BYTES[tensor.dtype]) for tensor in entry.tensors]
    seconds = []
    for _ in range(PACKINGS):
        started = process_time()
        for data, item_bytes in tensors:
            zstd = codec_of(ZSTD)
            zstd.unpack(zstd.pack(data, item_bytes), item_bytes, len(data))
        seconds.append(process_time() - started)
    return median(seconds)


def loads_of(
    tokens: Sequence[int], questions: Sequence[int], pictures: int, middle: tuple[int, int]
) -> tuple[Load, ...]:
    """One picture of every size, several at once of every size, and the middle size with other numbers of questions.

    Those are asked about several pictures, and the smallest of them about one as well.
    """
    middle_tokens, middle_questions = middle
    sizes = [Load(size, middle_questions, count) for count in (1, pictures) for size in tokens]
    more = [Load(middle_tokens, min(questions), 1), *(Load(middle_tokens, count, pictures) for count in questions)]
    return tuple(dict.fromkeys([*sizes, *more]))
