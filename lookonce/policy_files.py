"""Policies for a command: from a file, or from a server that has some."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.policies.policy import PolicySet
from gateway.policies.reading import policies_of, read_text
from lookonce.errors import LookonceError, UnreadableFile

FIELDS = ("name", "question", "labels", "flagged", "threshold", "calibration", "inputs")


class NoPolicies(LookonceError):
    """A server has no policies, or none that can be read."""


def read_file(path: Path) -> tuple[str, PolicySet]:
    """A file's text and what it means. Raises `UnreadableFile`."""
    try:
        text = read_text(path.expanduser())
        return text, policies_of(text)
    except OSError as exc:
        raise UnreadableFile(f"cannot read the policies in {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise UnreadableFile(f"{path}: {exc}") from exc


def from_listed(listed: Mapping[str, Any]) -> PolicySet:
    """The policies that /v1/policies listed. Raises `NoPolicies`."""
    if not listed.get("data"):
        raise NoPolicies("this server was given no policies: give --policies FILE here, or to the gateway")
    try:
        policies = [{field: policy[field] for field in FIELDS} for policy in listed["data"]]
        system = {"system": listed["system"]} if listed["system"] else {}
        # JSON is YAML, so that they are checked as a file is.
        return policies_of(json.dumps({**system, "policies": policies}, ensure_ascii=False))
    except (KeyError, TypeError, ValueError) as exc:
        raise NoPolicies("the server's policies cannot be read: is it of another version?") from exc


def as_json(policies: PolicySet) -> dict[str, Any]:
    """What a journal keeps of policies: two that differ in anything differ here."""
    return {
        "system": policies.system,
        "policies": [
            {
                **{field: getattr(policy, field) for field in FIELDS if field != "calibration"},
                "calibration": [policy.calibration.temperature, policy.calibration.bias],
            }
            for policy in policies.policies
        ],
    }
