"""How many workers there are, at least and at most, and how that is written: MIN:MAX, or one number."""

from typing import NamedTuple

import typer

from lookonce.kinds import Kind, read_count


class Bounds(NamedTuple):
    """At least one, and at most; the second is not below the first."""

    least: int
    most: int

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to scale."""
        return self.least == self.most


def read_bounds(text: str) -> Bounds:
    """`1:3`, or `2` for `2:2`. Raises `typer.BadParameter`."""
    least, colon, most = text.partition(":")
    try:
        bounds = Bounds(read_count(least), read_count(most if colon else least))
    except typer.BadParameter:
        bounds = Bounds(1, 0)
    if bounds.least > bounds.most:
        raise typer.BadParameter(f"{text!r} is not MIN:MAX: write 1:3, or 2 for always two")
    return bounds


def show_bounds(bounds: Bounds) -> str:
    """As `read_bounds` takes it."""
    return f"{bounds.least}:{bounds.most}"


BOUNDS = Kind("MIN:MAX", read_bounds, show_bounds)
