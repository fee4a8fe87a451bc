"""What becomes of each parameter that a request may have, and what a client is told of those that change nothing."""

from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.schema import NEUTRAL, Input, Standing

WARNING = "{path}: accepted, and changes nothing"


def standing(field: FieldInfo) -> Standing:
    """What becomes of a field of a request."""
    return next((each for each in field.metadata if isinstance(each, Standing)), Standing.SUPPORTED)


def warnings(body: Input) -> list[str]:
    """A sentence for each parameter of a request that was sent in vain, list items taken together.

    One that asks for nothing, as `store: false`, is none.
    """
    return [WARNING.format(path=path) for path in dict.fromkeys(_ignored(body, ""))]


def _ignored(value: object, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _ignored(item, f"{path}[]")
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            inner, child = getattr(value, name), f"{path}.{name}" if path else name
            if standing(field) is not Standing.IGNORED:
                yield from _ignored(inner, child)
            elif inner not in NEUTRAL:
                yield child
