"""The words of a settings class's fields."""

from dataclasses import dataclass

import pytest

from gateway.settings import GatewaySettings
from lm_server.settings import LanguageSettings
from lookonce.field_docs import field_docs
from vision_server.settings import VisionSettings


@dataclass(frozen=True)
class Commented:
    """One sentence: not a field."""

    # What a is, in words that
    # take two lines.
    a: int
    b: int = 2
    # Of c.
    c: str = "x: y"


@dataclass(frozen=True)
class Listed:
    """A class.

    Attributes:
        a: What a is, in words that
            take two lines.
        b: Of b.
    """

    a: int
    b: int


def test_comments_above_fields_are_their_words() -> None:
    """A comment belongs to the field below it; a field without one has no words."""
    assert field_docs(Commented) == {"a": "What a is, in words that take two lines.", "c": "Of c."}


def test_listed_attributes_are_their_words() -> None:
    """A docstring's list of attributes is read, with lines that go on."""
    assert field_docs(Listed) == {"a": "What a is, in words that take two lines.", "b": "Of b."}


@pytest.mark.parametrize("settings_type", [VisionSettings, LanguageSettings, GatewaySettings])
def test_the_processes_settings_have_words(settings_type: type) -> None:
    """Each process's settings are explained where they are declared."""
    assert len(field_docs(settings_type)) >= 5
