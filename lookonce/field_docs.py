"""What a settings class says of each of its fields, for --help: its own words, written once where the field is."""

import inspect
import re
import sys

FIELD = re.compile(r"(\w+)\s*:\s")
ATTRIBUTE = re.compile(r"    (\w+): (.*)")


def field_docs(settings_type: type) -> dict[str, str]:
    """Field → its words: the comment above it, or its line in the docstring's `Attributes:`. Absent where it has none.

    Without the source (a frozen application) only docstrings are read.
    """
    return _comments(_source(settings_type)) | _attributes(inspect.getdoc(settings_type) or "")


def _source(settings_type: type) -> str:
    """The lines of a class of a module. `inspect` finds them by parsing the whole file anew for each class."""
    try:
        module = inspect.getsource(sys.modules[settings_type.__module__])
    except (OSError, TypeError, KeyError):
        return ""
    found = re.search(rf"^class {settings_type.__name__}\b.*\n((?:[ \t].*)?\n)*", module, flags=re.MULTILINE)
    return found[0] if found else ""


def _comments(source: str) -> dict[str, str]:
    docs: dict[str, str] = {}
    words: list[str] = []
    for line in map(str.strip, source.splitlines()):
        field = FIELD.match(line)
        if line.startswith("#"):
            words.append(line.lstrip("# "))
            continue
        if field and words:
            docs[field[1]] = " ".join(words)
        words = []
    return docs


def _attributes(docstring: str) -> dict[str, str]:
    docs: dict[str, str] = {}
    name = ""
    for line in docstring.partition("Attributes:\n")[2].splitlines():
        attribute = ATTRIBUTE.fullmatch(line)
        if attribute:
            name = attribute[1]
            docs[name] = attribute[2]
        elif name and line.startswith(" " * 8):
            docs[name] += f" {line.strip()}"
    return docs
