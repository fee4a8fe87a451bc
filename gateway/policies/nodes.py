"""YAML read strictly: every value knows its line and its field's name, and `yes` is the word that was written.

Nothing is resolved: no types, no tags, no merging. So a label `yes` is not a boolean, and a file can do nothing.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml


class PolicyFileError(ValueError):
    """A policies file that is no good; the message names the line and the field."""


@dataclass(frozen=True, slots=True)
class Field:
    """A value in a file, with where it is.

    Attributes:
        node: What was written.
        path: `policies[0].threshold`; "" for the file as a whole.
    """

    node: yaml.Node
    path: str

    def fault(self, problem: str) -> PolicyFileError:
        """The error that says what is wrong here."""
        where = f"policies file, line {self.node.start_mark.line + 1}: "
        return PolicyFileError(where + (f"{self.path}: {problem}" if self.path else problem))

    def mapping(self, known: Sequence[str]) -> dict[str, "Field"]:
        """The fields of a mapping, all of them known, each there once."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.fault(f"write fields here: {', '.join(known)}")
        found: dict[str, Field] = {}
        for key, value in self.node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            if name not in known:
                raise Field(key, self.path).fault(f"there is no field {name!r:.60}; there are {', '.join(known)}")
            if name in found:
                raise Field(key, self.path).fault(f"the field {name!r} is there twice")
            found[name] = Field(value, f"{self.path}.{name}" if self.path else name)
        return found

    def need(self, fields: dict[str, "Field"], name: str) -> "Field":
        """One of this mapping's fields, which has to be there."""
        if name not in fields:
            raise self.fault(f"the field {name!r} is missing")
        return fields[name]

    def items(self) -> list["Field"]:
        """The items of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.fault("write a list here")
        return [Field(item, f"{self.path}[{place}]") for place, item in enumerate(self.node.value)]

    def text(self, most_chars: int) -> str:
        """A text, which is not empty."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.fault("write a text here")
        text = str(self.node.value)
        if not text.strip():
            raise self.fault("it is empty")
        if len(text) > most_chars:
            raise self.fault(f"{len(text)} characters; at most {most_chars} are allowed")
        return text

    def number(self, least: float, most: float) -> float:
        """A finite number between bounds, both included."""
        text = self.text(100)
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise self.fault(f"{text!r} is not a number from {least:g} to {most:g}")
        return number


def parse(text: str) -> Field:
    """The whole file.

    Raises:
        PolicyFileError: it is not YAML, or empty.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as exc:
        raise PolicyFileError(f"policies file{_where(exc)}: this is not YAML") from exc
    except RecursionError as exc:
        raise PolicyFileError("policies file: it is nested too deeply") from exc
    if node is None:
        raise PolicyFileError("policies file: it is empty")
    return Field(node, "")


def _where(exc: yaml.YAMLError) -> str:
    mark = getattr(exc, "problem_mark", None) or getattr(exc, "context_mark", None)
    return f", line {mark.line + 1}" if mark is not None else ""


def twice(fields: Sequence[Field], values: Sequence[str]) -> Iterator[Field]:
    """The fields whose value an earlier one has."""
    for place, field in enumerate(fields):
        if values[place] in values[:place]:
            yield field
