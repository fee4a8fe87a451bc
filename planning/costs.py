"""What the parts of a request cost, in seconds, as measured on one kind of worker."""

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class UnusableCosts(ValueError):
    """A file of costs that cannot be read; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Measured points with straight lines between them, and beyond the last as between the last two.

    Attributes:
        points: (amount, seconds), amounts ascending.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        amounts = [amount for amount, _ in self.points]
        if not amounts or amounts != sorted(set(amounts)) or any(seconds < 0 for _, seconds in self.points):
            raise UnusableCosts("a curve has one point or more, amounts ascending, seconds not negative")

    def __call__(self, amount: float) -> float:
        """Seconds of an amount; proportional where there is one point, and below the first."""
        first_amount, first_seconds = self.points[0]
        if len(self.points) == 1:
            return first_seconds * amount / first_amount
        if amount <= first_amount:
            return first_seconds
        place = min(bisect_right(self.points, (amount, float("inf"))), len(self.points) - 1)
        (x0, y0), (x1, y1) = self.points[place - 1], self.points[place]
        return max(0.0, y0 + (y1 - y0) * (amount - x0) / (x1 - x0))


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of a model on its workers, and the sizes that go with them.

    Attributes:
        name: Of what was measured: model, machine.
        encode: Image tokens → seconds of the tower, preparation included.
        prefill: Prompt tokens → seconds to compute an image's prefix of so many.
        prompt: Tokens of questions, of one or many → seconds of a step over them.
        decode: Sequences → seconds of a step that gives each of them a token.
        store: Bytes → seconds of a put or a get.
        request_s: Of a request beside all that: client, gateway, gRPC, preparing.
        entry_bytes_per_token: Of an entry.
        kv_bytes_per_token: Of keys and values.
        shares_cores: Vision and language worker of a host take turns on the same cores.
    """

    name: str
    encode: Curve
    prefill: Curve
    prompt: Curve
    decode: Curve
    store: Curve
    request_s: float
    entry_bytes_per_token: int
    kv_bytes_per_token: int
    shares_cores: bool = False

    def step_s(self, decoding: int, prompt_tokens: int, prefix_part: float, image_tokens: int) -> float:
        """Seconds of a step: its decoding sequences, its tokens of questions, and its part of an image's prefix.

        The weights are read once for all of it.
        """
        parts = [self.decode(decoding)] if decoding else []
        parts += [self.prompt(prompt_tokens)] if prompt_tokens else []
        parts += [self.prefill(image_tokens) * prefix_part] if prefix_part else []
        return max(sum(parts) - (len(parts) - 1) * self.decode(1), 0.0) if parts else 0.0

    def to_json(self) -> dict[str, Any]:
        """As `read_costs` takes it."""
        curves = {name: [list(point) for point in getattr(self, name).points] for name in CURVES}
        return {"name": self.name, **curves, **{name: getattr(self, name) for name in (*NUMBERS, "shares_cores")}}


CURVES = ("encode", "prefill", "prompt", "decode", "store")
NUMBERS = ("request_s", "entry_bytes_per_token", "kv_bytes_per_token")


def read_costs(path: Path) -> Costs:
    """Costs in a file of JSON. Raises `UnusableCosts`."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise UnusableCosts(f"{path}: it cannot be read as JSON") from exc
    try:
        curves: dict[str, Any] = {name: Curve(_points(fields[name])) for name in CURVES}
        return Costs(
            name=str(fields["name"]),
            **curves,
            request_s=float(fields["request_s"]),
            entry_bytes_per_token=int(fields["entry_bytes_per_token"]),
            kv_bytes_per_token=int(fields["kv_bytes_per_token"]),
            shares_cores=bool(fields.get("shares_cores")),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise UnusableCosts(f"{path}: {exc!s:.200}") from exc


def _points(values: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    return tuple((float(amount), float(seconds)) for amount, seconds in values)
