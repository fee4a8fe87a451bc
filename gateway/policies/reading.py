"""A policies file, from its text to policies. Every fault is told by line and field."""

import re
from pathlib import Path

from gateway.policies.nodes import Field, PolicyFileError, parse, twice
from gateway.policies.policy import INPUT_TYPES, UNCALIBRATED, Calibration, InputType, Policy, PolicySet

MAX_FILE_BYTES = 1024 * 1024
MAX_POLICIES = 256
MAX_LABELS = 64
QUESTION_CHARS = 10_000
LABEL_CHARS = 256
SYSTEM_CHARS = 100_000
# Wide enough for any model, narrow enough that no score overflows.
TEMPERATURES = (0.01, 100.0)
MAX_BIAS = 100.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,63}")

POLICY_FIELDS = ("name", "question", "labels", "flagged", "threshold", "calibration", "inputs")
YES_NO = ("yes", "no")


def read_policies(path: str | Path) -> PolicySet:
    """The policies of a file.

    Raises:
        PolicyFileError: it is no good.
        OSError: it cannot be read.
    """
    return policies_of(read_text(path))


def read_text(path: str | Path) -> str:
    """The text of a policies file, line ends as they are.

    Raises what `read_policies` raises.
    """
    with Path(path).open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise PolicyFileError(f"policies file: it is over {MAX_FILE_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise PolicyFileError("policies file: it is not UTF-8") from exc


def policies_of(text: str) -> PolicySet:
    """The policies of a file's text. Raises `PolicyFileError`."""
    root = parse(text)
    fields = root.mapping(("system", "policies"))
    items = root.need(fields, "policies").items()
    if not items:
        raise fields["policies"].fault("there is no policy")
    if len(items) > MAX_POLICIES:
        raise fields["policies"].fault(f"{len(items)} policies; at most {MAX_POLICIES} are allowed")
    policies = tuple(_policy(item) for item in items)
    for item in twice(items, [policy.name for policy in policies]):
        raise item.fault("an earlier policy has the same name")
    system = fields["system"].text(SYSTEM_CHARS) if "system" in fields else ""
    return PolicySet(policies, system)


def _policy(field: Field) -> Policy:
    fields = field.mapping(POLICY_FIELDS)
    labels = _labels(fields["labels"]) if "labels" in fields else YES_NO
    return Policy(
        name=_name(field.need(fields, "name")),
        question=field.need(fields, "question").text(QUESTION_CHARS),
        labels=labels,
        flagged=_flagged(fields["flagged"], labels) if "flagged" in fields else labels[:1],
        threshold=fields["threshold"].number(0, 1) if "threshold" in fields else 0.5,
        calibration=_calibration(fields["calibration"]) if "calibration" in fields else UNCALIBRATED,
        inputs=_inputs(fields["inputs"]) if "inputs" in fields else INPUT_TYPES,
    )


def _name(field: Field) -> str:
    name = field.text(64)
    if not NAME.fullmatch(name):
        raise field.fault(f"{name!r} is not a name: write A-Z a-z 0-9 _ - . / and begin with a letter or digit")
    return name


def _labels(field: Field) -> tuple[str, ...]:
    items = field.items()
    if not 2 <= len(items) <= MAX_LABELS:
        raise field.fault(f"{len(items)} labels; write 2 to {MAX_LABELS}")
    labels = tuple(item.text(LABEL_CHARS) for item in items)
    for item in twice(items, labels):
        raise item.fault("this label is there twice")
    return labels


def _flagged(field: Field, labels: tuple[str, ...]) -> tuple[str, ...]:
    items = field.items()
    flagged = tuple(item.text(LABEL_CHARS) for item in items)
    for item, label in zip(items, flagged, strict=True):
        if label not in labels:
            raise item.fault(f"{label!r:.60} is not one of the labels")
    for item in twice(items, flagged):
        raise item.fault("this label is there twice")
    if not 0 < len(flagged) < len(labels):
        raise field.fault("at least one label has to be flagged, and one not")
    return flagged


def _calibration(field: Field) -> Calibration:
    fields = field.mapping(("temperature", "bias"))
    return Calibration(
        temperature=fields["temperature"].number(*TEMPERATURES) if "temperature" in fields else 1.0,
        bias=fields["bias"].number(-MAX_BIAS, MAX_BIAS) if "bias" in fields else 0.0,
    )


def _inputs(field: Field) -> tuple[InputType, ...]:
    items = field.items()
    words = [item.text(20) for item in items]
    for item, word in zip(items, words, strict=True):
        if word not in INPUT_TYPES:
            raise item.fault(f"{word!r} is neither 'image' nor 'text'")
    found = tuple(each for each in INPUT_TYPES if each in words)
    if not found:
        raise field.fault("write image, text or both")
    return found
