"""New values into the text of a policies file; comments, order and everything else stay as they were. Pure."""

from collections.abc import Mapping
from dataclasses import replace

import yaml

from gateway.policies.policy import Calibration, Policy, PolicySet
from gateway.policies.reading import policies_of
from lookonce.errors import LookonceError


class NotEditable(LookonceError):
    """A policies file in which values cannot be changed one by one."""


def edited(text: str, tuned: Mapping[str, Policy]) -> str:
    """The text with these policies' thresholds and calibrations, found by name.

    Raises:
        NotEditable: a value is shared by several policies, by YAML's anchors.
        PolicyFileError: the text is no policies file.
    """
    before = policies_of(text)
    for name, policy in tuned.items():
        text = _with(text, name, policy)
    after = replace(before, policies=tuple(tuned.get(policy.name, policy) for policy in before.policies))
    if not _means(text, after):
        raise NotEditable(
            "the policies file shares values between policies (&anchor, *alias), so that they cannot be changed one by "
            "one: write each policy's own"
        )
    return text


def _means(text: str, policies: PolicySet) -> bool:
    try:
        return policies_of(text) == policies
    except ValueError:
        return False


def _with(text: str, name: str, policy: Policy) -> str:
    text = _set(text, name, "calibration", _shown(policy.calibration))
    return _set(text, name, "threshold", repr(policy.threshold))


def _shown(calibration: Calibration) -> str:
    return f"{{temperature: {calibration.temperature!r}, bias: {calibration.bias!r}}}"


def _set(text: str, name: str, field: str, value: str) -> str:
    """The text with one field of one policy replaced, or added below the policy's name."""
    policy = _policy(text, name)
    found = next(((key, old) for key, old in policy.value if key.value == field), None)
    if found is None:
        return _added(text, policy, f"{field}: {value}")
    key, old = found
    # The value may be on the lines below its name: the new one is put beside it.
    start = text.index(":", key.end_mark.index) + 1
    return f"{text[:start]} {value}{text[_end(old) :]}"


def _end(node: yaml.Node) -> int:
    """Where a value ends. A block mapping's own mark is where the next thing begins, comments and all."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return max(int(value.end_mark.index) for _, value in node.value)
    return int(node.end_mark.index)


def _added(text: str, policy: yaml.MappingNode, line: str) -> str:
    name = _value(policy, "name")
    assert name is not None  # noqa: S101 - it was found by its name
    place = int(name.end_mark.index)
    if policy.flow_style:
        return f"{text[:place]}, {line}{text[place:]}"
    newline = text.find("\n", place)
    place = len(text) if newline < 0 else newline
    if text[place - 1] == "\r":
        place -= 1
    return f"{text[:place]}\n{' ' * policy.value[0][0].start_mark.column}{line}{text[place:]}"


def _policy(text: str, name: str) -> yaml.MappingNode:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)  # noqa: S101 - the file was read before
    policies = _value(root, "policies")
    assert policies is not None  # noqa: S101
    for item in policies.value:
        found = _value(item, "name")
        if found is not None and found.value == name:
            assert isinstance(item, yaml.MappingNode)  # noqa: S101
            return item
    raise NotEditable(f"the policies file has no policy {name!r}")


def _value(mapping: yaml.Node, field: str) -> yaml.Node | None:
    return next((value for key, value in mapping.value if key.value == field), None)
