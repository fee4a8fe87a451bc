"""Random faults, one at a time, each undone before the next."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.deployment import Deployment, Process
from tests.faults.proxy import Fault, Proxy
from tests.faults.store_faults import Store

# How long a fault lasts.
FAULT_S = 2.0


class Havoc:
    """Does random faults to a deployment and its store, with `calm_s` between them.

    Attributes:
        done: How often each was done.
    """

    def __init__(self, deployment: Deployment, store: Store, link: Proxy, seed: int, calm_s: float) -> None:
        self.done: Counter[str] = Counter()
        self._deployment = deployment
        self._store = store
        self._link = link
        self._calm_s = calm_s
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self.failure: BaseException | None = None

    @contextmanager
    def going_on(self) -> Iterator["Havoc"]:
        """Faults come and go within; at the end all of them are undone."""
        thread = threading.Thread(target=self._go_on)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _go_on(self) -> None:
        faults = self._faults()
        names = sorted(faults)
        self._chance.shuffle(names)
        place = 0
        try:
            while not self._stop.is_set():
                # Every one of them before any comes again.
                name = names[place % len(names)]
                place += 1
                faults[name]()
                self.done[name] += 1
                self._stop.wait(self._calm_s)
        except BaseException as exc:  # noqa: BLE001 - told of at the end of the run
            self.failure = exc

    def _faults(self) -> dict[str, Callable[[], object]]:
        store = self._store
        return {
            "Redis flushed": store.flush,
            "Redis values flipped": store.corrupt,
            "Redis values swapped": store.swap,
            "Redis values truncated": store.truncate,
            "Redis read-only": lambda: self._while(store.read_only),
            "Redis full": lambda: self._while(store.full),
            "Redis frozen": lambda: store.freeze(FAULT_S),
            "Redis killed": self._kill_store,
            "Redis black-holed": lambda: self._while(lambda: self._link.doing(Fault.BLACK_HOLE)),
            "Redis garbled": lambda: self._while(lambda: self._link.doing(Fault.CORRUPT)),
            "Redis cut off": lambda: self._while(lambda: self._link.doing(Fault.CUT)),
            "vision worker killed": lambda: self._pick(self._deployment.vision).restart(kill=True),
            "language worker killed": lambda: self._pick(self._deployment.language).restart(kill=True),
            "vision worker frozen": lambda: self._freeze(self._pick(self._deployment.vision)),
            "language worker frozen": lambda: self._freeze(self._pick(self._deployment.language)),
            "vision worker restarted": lambda: self._pick(self._deployment.vision).restart(),
            "language worker restarted": lambda: self._pick(self._deployment.language).restart(),
        }

    def _while(self, fault: Callable[[], object]) -> None:
        with fault():  # type: ignore[attr-defined]
            time.sleep(FAULT_S)

    def _kill_store(self) -> None:
        self._store.kill()
        time.sleep(FAULT_S / 2)
        self._store.start()

    def _pick(self, workers: list[Process]) -> Process:
        return self._chance.choice(workers)

    def _freeze(self, worker: Process) -> None:
        worker.signal(signal.SIGSTOP)
        try:
            time.sleep(2 * FAULT_S)
        finally:
            worker.signal(signal.SIGCONT)
