"""Carries out what the ledger decided about memory: copies between the tiers, room given up, and what is counted of it.

Owned by the engine's thread. A spill or a restore is one copy of the segment; disk work goes on beside the steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch

from lm_server import metrics
from lm_server.disk import DiskFolder, FileFacts
from lm_server.kv import KvMemory
from lm_server.scheduler import Scheduler
from lm_server.segments import KvLedger
from lm_server.tiers import Drop, Erase, Read, Restore, Spill, Tiers, Transfer, Write

Command = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Restoring:
    """A copy that goes to a block as soon as the block has memory."""

    block_id: int
    copy: torch.Tensor


class TierMemory:
    """The tensors of the host tier and the way to the disk tier's files.

    `post` has a command run by the engine's thread soon. `disk` is there exactly when the ledger has a disk tier.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        memory: KvMemory,
        token_bytes: int,
        post: Callable[[Command], None],
        disk: DiskFolder | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._ledger = scheduler.ledger
        self._memory = memory
        self._token_bytes = token_bytes
        self._post = post
        self._disk = disk
        # By slot, [L, 2, Hkv, tokens, D]: what the host tier holds, and what is on its way to disk.
        self._host: dict[int, torch.Tensor] = {}
        self._writing: dict[int, torch.Tensor] = {}
        self._counted = _counts(self._ledger)

    @property
    def used_bytes(self) -> int:
        """Key/value memory reserved now, kept segments included."""
        return self._ledger.used_tokens * self._token_bytes

    @property
    def budget_bytes(self) -> int:
        """Key/value memory that may be reserved."""
        return self._ledger.budget_tokens * self._token_bytes

    @property
    def host_bytes(self) -> int:
        """Memory of the host tier that is taken now."""
        return sum(copy.nbytes for copy in (*self._host.values(), *self._writing.values()))

    def settle(self) -> None:
        """Carries out what was decided outside a step: what ended or was forgotten."""
        self.carry_out(self._ledger.take_transfers(), self._ledger.take_freed())

    def carry_out(self, transfers: Sequence[Transfer], freed: Sequence[int]) -> None:
        """Copies what is to be copied and gives up the blocks `freed`; then what is restored finds its room."""
        restoring: list[_Restoring] = []
        for transfer in transfers:
            match transfer:
                case Spill(slot, block_id, num_tokens):
                    self._host[slot] = self._memory.copy_out(block_id, num_tokens)
                case Restore(slot, block_id):
                    copy = self._host[slot] if slot in self._host else self._writing[slot]
                    restoring.append(_Restoring(block_id, copy))
                case Drop(slot):
                    # Forgotten while it was read, it is not here yet.
                    self._host.pop(slot, None)
                case _:
                    self._carry_out_on_disk(transfer)
        self._memory.free(freed)
        for each in restoring:
            self._memory.copy_in(each.block_id, each.copy)
        self._count()

    def close(self) -> None:
        """Gives every tier up."""
        if self._disk is not None:
            self._disk.close()
        self._host.clear()
        self._writing.clear()

    def _carry_out_on_disk(self, transfer: Write | Read | Erase) -> None:
        if self._disk is None:
            raise RuntimeError("the ledger has a disk tier and there is no folder for it")
        match transfer:
            case Write(slot, key):
                copy = self._writing[slot] = self._host[slot]
                self._disk.write(
                    FileFacts(slot, key), _raw(copy), lambda ok: self._post(partial(self._written, slot, ok))
                )
            case Read(slot, key, num_tokens):
                into = self._memory.empty_copy(num_tokens)
                self._disk.read(
                    FileFacts(slot, key), _raw(into), lambda ok: self._post(partial(self._arrived, slot, into, ok))
                )
            case Erase(slot):
                self._disk.erase(slot)

    def _written(self, slot: int, is_whole: bool) -> None:
        del self._writing[slot]
        self._tiers.written(slot, is_whole=is_whole)

    def _arrived(self, slot: int, copy: torch.Tensor, is_whole: bool) -> None:
        if self._tiers.arrived(slot, is_whole=is_whole):
            self._host[slot] = copy
        self._scheduler.tiers_changed()

    @property
    def _tiers(self) -> Tiers:
        if self._ledger.tiers is None:
            raise RuntimeError("something came from a tier and there is none")
        return self._ledger.tiers

    def _count(self) -> None:
        """Tells Prometheus what has changed since the last time."""
        now = _counts(self._ledger)
        for event, total in now.items():
            if tokens := total - self._counted.get(event, 0):
                metrics.KV_TOKENS.labels(event).inc(tokens)
                metrics.KV_BYTES.labels(event).inc(tokens * self._token_bytes)
        self._counted = now
        for tier, tokens in _held(self._ledger).items():
            metrics.KV_HELD_TOKENS.labels(tier).set(tokens)
            metrics.KV_HELD_BYTES.labels(tier).set(tokens * self._token_bytes)


def _counts(ledger: KvLedger) -> dict[str, int]:
    return {"evicted": ledger.num_evicted_tokens} | (asdict(ledger.tiers.counts) if ledger.tiers else {})


def _held(ledger: KvLedger) -> dict[str, int]:
    held = {"memory": ledger.used_tokens}
    if ledger.tiers:
        held |= {"host": ledger.tiers.used_host_tokens, "disk": ledger.tiers.used_disk_tokens}
    return held


def _raw(copy: torch.Tensor) -> memoryview:
    """The tensor's own bytes."""
    return copy.view(-1).view(torch.uint8).numpy().data
