"""Which adapters are served under which names: loading, replacing and unloading them while the worker serves.

The policy is here: which directories may be read, how many adapters there may be, and how large.
"""

import asyncio
import itertools
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from lm_server import adapter_config, adapters
from lm_server.adapters import AdapterFile, read_adapter
from lm_server.lora import Linear, make_adapter
from lm_server.tickets import AnyAdapter
from protos import language_pb2
from rpc.errors import InvalidArgument, NotFound, PermissionDenied

logger = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


@dataclass(frozen=True, slots=True)
class AdapterLimits:
    """How many adapters may be served, how many bytes their weights may have together, and where they may lie.

    Without `directories` none is loaded but at the start.
    """

    max_adapters: int
    max_bytes: int
    directories: tuple[Path, ...] = ()


class ServedAdapter(AnyAdapter, Protocol):
    """An adapter as its engine has it. `is_gone`: it is not served any more; only what runs goes on with it."""

    is_gone: bool

    @property
    def rank(self) -> int:
        """The largest of its ranks."""

    @property
    def num_bytes(self) -> int:
        """Of its weights."""


@dataclass(frozen=True, slots=True)
class Served:
    """An adapter under its name. `created` is in Unix seconds."""

    name: str
    path: str
    created: int
    adapter: ServedAdapter

    def message(self) -> language_pb2.Adapter:
        """As the contract has it."""
        return language_pb2.Adapter(
            name=self.name,
            path=self.path,
            rank=self.adapter.rank,
            bytes=self.adapter.num_bytes,
            created=self.created,
        )


class AdapterRegistry:
    """The adapters of one model, whose linear layers are `linears`. Belongs to the event loop.

    `model` is the name that no adapter may have. `on_gone` is told the identity of each that is given up.
    """

    def __init__(
        self,
        linears: Sequence[Linear],
        dtype: torch.dtype,
        device: torch.device | str,
        limits: AdapterLimits,
        *,
        model: str = "",
        on_gone: Callable[[str], None] = lambda identity: None,
    ) -> None:
        self._linears = tuple(linears)
        self._dtype = dtype
        self._device = device
        self._limits = limits
        self._model = model
        self._on_gone = on_gone
        self._served: dict[str, Served] = {}
        self._generations = itertools.count(1)
        self._loading = asyncio.Lock()

    def find(self, name: str) -> ServedAdapter | None:
        """The adapter of this name; None for no name. Raises `NotFound`."""
        if not name:
            return None
        served = self._served.get(name)
        if served is None:
            raise _unknown(name)
        return served.adapter

    @property
    def served(self) -> tuple[Served, ...]:
        """All that are served, in the order of their loading."""
        return tuple(self._served.values())

    async def load(self, name: str, path: str) -> Served:
        """Reads an adapter in the background and serves it, in the place of one that has the name now.

        Raises:
            PermissionDenied: this worker loads none while it serves.
            InvalidArgument: the name, the path or the adapter is no good, or there would be too many, or too many
                bytes; one that has the name stays.
        """
        if not self._limits.directories:
            raise PermissionDenied(
                "this worker loads no adapters while it serves: start it with --lora-dirs", reason="ADAPTERS_FIXED"
            )
        # One at a time, so that the bounds hold for all of them together.
        async with self._loading:
            made = await asyncio.to_thread(self._read, name, path, self._limits.directories)
        self._serve(made)
        return made

    def load_first(self, name: str, path: str) -> None:
        """Reads an adapter that the worker was started with, wherever it lies. Raises as `load`."""
        self._serve(self._read(name, path, None))

    def unload(self, name: str) -> None:
        """Serves the adapter no longer; answers under way are finished with it. Raises `NotFound`."""
        gone = self._served.pop(name, None)
        if gone is None:
            raise _unknown(name)
        self._give_up(gone)
        logger.info("adapter unloaded", extra={"adapter": name})

    def _serve(self, made: Served) -> None:
        replaced = self._served.pop(made.name, None)
        self._served[made.name] = made
        if replaced is not None:
            self._give_up(replaced)
        logger.info("adapter loaded", extra={"adapter": made.name, "adapter_bytes": made.adapter.num_bytes})

    def _give_up(self, served: Served) -> None:
        served.adapter.is_gone = True
        self._on_gone(served.adapter.identity)

    def _read(self, name: str, path: str, directories: Sequence[Path] | None) -> Served:
        if not NAME.fullmatch(name) or name == self._model:
            raise InvalidArgument(
                "lora_name: an adapter's name has 1 to 128 of A-Z a-z 0-9 . _ : / -, begins with a letter or digit, "
                "and is not the model's"
            )
        if not self._linears:
            raise InvalidArgument("adapters are not served where a device map spreads the model's layers")
        room = self._room(name)
        file = read_adapter(_allowed(path, directories), {each.name: each.shape for each in self._linears}, room)
        adapter = self._made(name, path, file)
        if adapter.num_bytes > room:
            raise _full(f"the adapter takes {adapter.num_bytes} bytes and {room} are left")
        return Served(name, path, int(time.time()), adapter)

    def _room(self, name: str) -> int:
        """Bytes left for an adapter of this name."""
        others = [served for served in self._served.values() if served.name != name]
        if len(others) >= self._limits.max_adapters:
            raise _full(f"{len(others)} adapters are served and no more may be: unload one")
        return max(self._limits.max_bytes - sum(served.adapter.num_bytes for served in others), 0)

    def _made(self, name: str, path: str, file: AdapterFile) -> ServedAdapter:
        """The adapter as the engine takes it."""
        identity = f"{name}\0{file.digest}\0{next(self._generations)}"
        try:
            return make_adapter(file, identity, self._linears, self._dtype, self._device)
        except OverflowError as exc:
            raise adapter_config.refused(f"the adapter has values beyond the range of {self._dtype}") from exc


def _full(what: str) -> InvalidArgument:
    return InvalidArgument(what, reason="ADAPTERS_FULL")


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no adapter {name!r:.130} on this worker", reason="MODEL_NOT_FOUND")


def _allowed(path: str, directories: Sequence[Path] | None) -> Path:
    """The adapter's directory, links followed, of which every file lies where files may be read."""
    unusable = InvalidArgument("lora_path: there is no adapter, or this worker may not read it (--lora-dirs)")
    try:
        found = Path(path).resolve(strict=True)
        files = [
            (found / name).resolve() for name in (adapter_config.FILE, adapters.WEIGHTS) if (found / name).exists()
        ]
        allowed = None if directories is None else [each.resolve() for each in directories]
    except (OSError, ValueError, RuntimeError) as exc:
        raise unusable from exc
    is_inside = allowed is None or (
        Path(path).is_absolute() and all(any(each.is_relative_to(root) for root in allowed) for each in (found, *files))
    )
    if not is_inside or not found.is_dir():
        raise unusable
    return found
