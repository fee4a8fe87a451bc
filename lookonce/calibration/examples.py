"""Labelled examples: an image or a text, a policy, and whether it is to be flagged; from JSONL or CSV."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.policies.policy import Policy, PolicySet
from lookonce.errors import LookonceError

FIELDS = ("image", "text", "policy", "label")
TRUE, FALSE = frozenset({"true", "1"}), frozenset({"false", "0"})


class BadExamples(LookonceError):
    """Examples that cannot be used; the message names the line and the field."""


@dataclass(frozen=True, slots=True)
class Example:
    """One input, held against one policy by a person.

    Attributes:
        image: A file, an image's id or a URL; "" for none.
        text: "" for none.
        policy: The policy's name.
        flagged: What the person says.
    """

    image: str
    text: str
    policy: str
    flagged: bool


def read_examples(path: Path, policies: PolicySet) -> list[Example]:
    """The examples of a file, JSONL or CSV by its ending. Paths of images are relative to the file's folder.

    `label` is one of the policy's labels, or true or false: to be flagged or not.

    Raises:
        BadExamples: the file or a line is no good.
    """
    by_name = {policy.name: policy for policy in policies.policies}
    found = [_example(record, where, path.parent, by_name) for where, record in _records(path)]
    if not found:
        raise BadExamples(f"there is no example in {path}")
    return found


def _records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix not in (".jsonl", ".csv"):
        raise BadExamples(f"{path}: examples are read from .jsonl or .csv")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _csv(path, file) if path.suffix == ".csv" else _jsonl(path, file)
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not CSV or JSONL in UTF-8"
        raise BadExamples(f"cannot read the examples in {path}: {why}") from exc


def _jsonl(path: Path, file: Iterator[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise BadExamples(f"{where}: this is not a JSON object")
        yield where, record


def _csv(path: Path, file: Iterator[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    reader = csv.DictReader(file)
    for record in reader:
        where = f"{path}, line {reader.line_num}"
        if None in record or None in record.values():
            raise BadExamples(f"{where}: it has other columns than the first line")
        yield where, record


def _example(record: Mapping[str, Any], where: str, folder: Path, policies: Mapping[str, Policy]) -> Example:
    unknown = [name for name in record if name not in FIELDS]
    if unknown:
        raise BadExamples(f"{where}: there is no field {unknown[0]!r:.60}; there are {', '.join(FIELDS)}")
    image, text, name = (_text(record, field, where) for field in ("image", "text", "policy"))
    if name not in policies:
        raise BadExamples(f"{where}: policy: {name!r:.60} is not in the policies file")
    if not image and not text:
        raise BadExamples(f"{where}: there is neither an image nor a text")
    policy = policies[name]
    lacking = [kind for kind, given in (("image", image), ("text", text)) if given and kind not in policy.inputs]
    if lacking:
        raise BadExamples(f"{where}: {lacking[0]}: the policy {name} is not for these")
    flagged = _flagged(record.get("label"), policy, where)
    return Example(_place(image, folder), text, name, flagged)


def _text(record: Mapping[str, Any], field: str, where: str) -> str:
    value = record.get(field, "")
    if not isinstance(value, str):
        raise BadExamples(f"{where}: {field}: write a text")
    return value


def _place(image: str, folder: Path) -> str:
    """A file's path from here; ids and URLs as they are."""
    beside = folder / image
    return str(beside) if image and (beside.exists() or (":" not in image and not image.startswith("img_"))) else image


def _flagged(label: Any, policy: Policy, where: str) -> bool:
    if isinstance(label, bool):
        return label
    word = str(label) if isinstance(label, str | int) else ""
    if word in policy.labels:
        return word in policy.flagged
    if word.lower() in TRUE | FALSE:
        return word.lower() in TRUE
    raise BadExamples(f"{where}: label: write true, false, or a label of {policy.name}: {', '.join(policy.labels)}")
