"""One download of one commit: small files, headers, the plan that they give, and then the bytes of the plan."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from checkpoint import CheckpointError, Half, describe, plan_from_headers
from checkpoint.description import family_of, read_config
from checkpoint.errors import FaultKind
from checkpoint.partial import SUFFIX, Range, lacking
from checkpoint.plan import Plan
from checkpoint.shards import MAX_HEADER_BYTES
from checkpoint.survey import INDEX_FILE, SINGLE_FILE, shard_names
from hub.access import FileFacts, Hub
from hub.errors import DownloadBroken, NotOnHub, Unservable
from hub.progress import SILENCE, Meter, MeterFactory
from hub.ranges import coalesced, is_nearly_all
from hub.reference import HubModel
from hub.snapshot import link, mark_complete
from hub.whole_files import check_whole
from hub.writing import PartialFile, discard

CONFIG = "config.json"
CONFIGS = (
    CONFIG,
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
SMALL_FILES = {Half.VISION: CONFIGS, Half.LANGUAGE: (*CONFIGS, *TOKENIZER)}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
AT_ONCE = 4
LENGTH_BYTES = 8  # of the field before a safetensors header

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Coming:
    """What is to come of one shard; `ranges` None is the whole file."""

    name: str
    facts: FileFacts
    ranges: tuple[Range, ...] | None

    @property
    def num_bytes(self) -> int:
        """Bytes that will travel."""
        return self.facts.size if self.ranges is None else sum(end - begin for begin, end in self.ranges)


class Download:
    """`model.revision` is a commit, `files` the names of all that it has, `directory` its snapshot."""

    def __init__(self, hub: Hub, model: HubModel, files: frozenset[str], directory: Path, meters: MeterFactory) -> None:
        self.model = model
        self.directory = directory
        self._hub = hub
        self._files = files
        self._meters = meters
        self._facts: dict[str, FileFacts] = {}
        self._stopped = threading.Event()

    def run(self, halves: Sequence[Half]) -> None:
        """Brings everything that the halves need. Raises HubError, CheckpointError."""
        self.headers(halves)
        small = {half: self._small_files(SMALL_FILES[half]) for half in halves}
        coming = self._coming(self._plans(halves))
        with self._meters(f"{self.model.repo} ({', '.join(halves)})", sum(each.num_bytes for each in coming)) as meter:
            told = _Stoppable(meter, self._stopped)
            self._all(lambda each: self._bring(each, told), coming)
        for half in halves:
            mark_complete(self.directory, half, small[half])

    def headers(self, halves: Sequence[Half]) -> None:
        """Brings the configuration, and the header of each shard that holds something of the halves."""
        self._refuse_other_weights()
        self._small_files(CONFIGS)
        if SINGLE_FILE in self._files:
            names = {SINGLE_FILE}
        else:
            family = family_of(read_config(self.directory), self.directory)
            names = {name for half in halves for name in shard_names(self.directory, family, half)}
        self._all(self._header, sorted(names & self._files))

    def _refuse_other_weights(self) -> None:
        if CONFIG not in self._files:
            raise NotOnHub(f"{self.model.repo} has no {CONFIG}: it is no model of transformers'")
        if self._files & {SINGLE_FILE, INDEX_FILE}:
            return
        pickle = next((name for name in sorted(self._files) if name.endswith(PICKLES)), None)
        if pickle is not None:
            raise Unservable(f"{self.model.repo} has its weights as pickle ({pickle}), which is never loaded")
        raise Unservable(f"{self.model.repo} has no weights as safetensors: neither {SINGLE_FILE} nor {INDEX_FILE}")

    def _small_files(self, names: Iterable[str]) -> list[str]:
        """Brings those of these files that there are, and the index; which they are."""
        index = () if SINGLE_FILE in self._files else (INDEX_FILE,)
        present = [name for name in (*names, *index) if name in self._files]
        for name in present:
            if not (self.directory / name).exists():
                link(self.directory, name, self._hub.whole(self.model, name, SILENCE))
        return present

    def _header(self, name: str) -> None:
        if (self.directory / name).exists():
            return
        facts = self._facts_of(name)
        cached = self._hub.cached(self.model, name)
        if cached is not None:
            self._link_sound(name, cached, facts)
            return
        with PartialFile(self.directory / name, facts.size) as file:
            self._bring_ranges(file, name, [(0, LENGTH_BYTES)])
            length = int.from_bytes(file.read(0, LENGTH_BYTES), "little")
            if length > min(MAX_HEADER_BYTES, facts.size - LENGTH_BYTES):
                raise DownloadBroken(f"{name} of {self.model.repo} does not begin as a safetensors file does")
            self._bring_ranges(file, name, [(LENGTH_BYTES, LENGTH_BYTES + length)])

    def _plans(self, halves: Sequence[Half]) -> list[Plan]:
        """What the halves read. Raises CheckpointError for what the headers show to be wrong."""
        description = describe(self.directory)
        plans = [plan_from_headers(self.directory, description, half) for half in halves]
        faults = [fault for plan in plans for fault in plan.faults if fault.kind is not FaultKind.NOT_DOWNLOADED]
        if faults:
            raise CheckpointError(dict.fromkeys(faults), self.model.repo)
        return plans

    def _coming(self, plans: Sequence[Plan]) -> list[Coming]:
        """What is to come, shard by shard; those that are here whole, or as far as is wanted, are left out."""
        wanted: dict[Path, list[Range]] = {}
        for plan in plans:
            heads = () if plan.redundant_head is None else (plan.redundant_head,)
            for stored in (*(match.stored for match in plan.matches), *heads):
                if stored.shard.suffix == SUFFIX:
                    wanted.setdefault(stored.shard, []).append((stored.begin, stored.end))
        coming = [self._of_shard(path.name.removesuffix(SUFFIX), ranges) for path, ranges in sorted(wanted.items())]
        return [each for each in coming if each.num_bytes]

    def _of_shard(self, name: str, wanted: list[Range]) -> Coming:
        facts = self._facts_of(name)
        with PartialFile(self.directory / name, facts.size) as file:
            here, header_end = file.held, LENGTH_BYTES + int.from_bytes(file.read(0, LENGTH_BYTES), "little")
        if here == ((0, header_end),) and is_nearly_all(wanted, header_end, facts.size):
            return Coming(name, facts, None)
        return Coming(name, facts, lacking(coalesced(wanted), here))

    def _bring(self, coming: Coming, meter: Meter) -> None:
        if coming.ranges is None:
            path = self._hub.whole(self.model, coming.name, meter)
            self._link_sound(coming.name, path, coming.facts)
            discard(self.directory / coming.name)
            return
        with PartialFile(self.directory / coming.name, coming.facts.size) as file:
            self._bring_ranges(file, coming.name, coming.ranges, meter)

    def _bring_ranges(self, file: PartialFile, name: str, wanted: Iterable[Range], meter: Meter = SILENCE) -> None:
        for begin, end in lacking(wanted, file.held):
            file.write(begin, self._hub.pieces(self.model, name, begin, end, file.size), meter)

    def _link_sound(self, name: str, path: Path, facts: FileFacts) -> None:
        check_whole(path, facts)
        link(self.directory, name, path)

    def _facts_of(self, name: str) -> FileFacts:
        if name not in self._facts:
            self._facts[name] = self._hub.facts(self.model, name)
        return self._facts[name]

    def _all(self, work: Callable[[Item], None], items: Sequence[Item]) -> None:
        """Several at a time. The first failure ends the others within a piece; what has come stays."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)
                raise


class _Stopped(Exception):
    """Another part of the download has failed, or a person has had enough."""


class _Stoppable:
    """A meter that ends what tells it, once the download is to stop."""

    def __init__(self, meter: Meter, stopped: threading.Event) -> None:
        self._meter = meter
        self._stopped = stopped

    def advance(self, num_bytes: int) -> None:
        """Passes on, or raises."""
        if self._stopped.is_set():
            raise _Stopped
        self._meter.advance(num_bytes)
