"""Which LoRA adapters can be asked for: those that every language worker which answers has loaded."""

from collections.abc import Mapping

from gateway.language import LanguageWorkers
from protos import language_pb2


class KnownAdapters:
    """The adapters by name, asked of the workers where a name is not among those last heard of.

    A worker has the last word: one that has lost an adapter answers that there is no such model.
    """

    def __init__(self, workers: LanguageWorkers, timeout_s: float) -> None:
        self._workers = workers
        self._timeout_s = timeout_s
        self._known: Mapping[str, language_pb2.Adapter] = {}

    async def has(self, name: str) -> bool:
        """Whether a request may name this adapter."""
        if name not in self._known:
            await self.look()
        return name in self._known

    async def look(self) -> list[language_pb2.Adapter]:
        """All of them, asked now, in the order of their names."""
        infos = (await self._workers.infos(self._timeout_s)).values()
        heard = [
            {each.name: each for each in info.adapters} for info in infos if isinstance(info, language_pb2.LanguageInfo)
        ]
        common = set(heard[0]).intersection(*heard[1:]) if heard else set[str]()
        self._known = {name: heard[0][name] for name in sorted(common)}
        return list(self._known.values())

    def forget(self) -> None:
        """Has the workers asked again before the next name is believed."""
        self._known = {}
