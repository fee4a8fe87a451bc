"""Which workers of a deployment serve now. Pure: no Ray, no clock.

Each worker says again and again that it is there; one that has not been heard of for a while is taken for gone.
"""

from dataclasses import dataclass, field

# A worker that was last heard of longer ago is gone. It says that it is there twice a second.
LIFE_S = 5.0


@dataclass(frozen=True, slots=True)
class Present:
    """The workers at one moment.

    Attributes:
        vision: Addresses of the vision workers.
        language: Addresses of the language workers.
        is_settled: Every worker that is there has had the time to say so.
    """

    vision: tuple[str, ...] = ()
    language: tuple[str, ...] = ()
    is_settled: bool = False

    def after(self, known: "Present") -> "Present":
        """These workers, and those known from before while not all of these have been heard."""
        if self.is_settled:
            return self
        return Present(_both(known.vision, self.vision), _both(known.language, self.language))


def _both(some: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*some, *others)))


@dataclass(slots=True)
class Roll:
    """Who was heard of, and when. `began` and every `now` are seconds of one clock."""

    began: float
    _heard: dict[tuple[str, str], float] = field(default_factory=dict)

    def note(self, half: str, address: str, now: float) -> None:
        """This worker serves."""
        self._heard[half, address] = now

    def strike(self, half: str, address: str) -> None:
        """This worker takes no more requests."""
        self._heard.pop((half, address), None)

    def present(self, now: float) -> Present:
        """Who serves."""
        self._heard = {worker: heard for worker, heard in self._heard.items() if now - heard < LIFE_S}
        by_half = {
            half: tuple(sorted(address for its_half, address in self._heard if its_half == half))
            for half in ("vision", "language")
        }
        return Present(by_half["vision"], by_half["language"], is_settled=now - self.began >= LIFE_S)
