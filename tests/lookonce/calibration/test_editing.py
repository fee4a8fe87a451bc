"""New values in the text of a policies file."""

from dataclasses import replace

import pytest

from gateway.policies.policy import Calibration
from gateway.policies.reading import policies_of
from lookonce.calibration.editing import NotEditable, edited

TEXT = """\
# Ours.
system: Judge.   # short

policies:
  - question: A?  # first the question
    name: a   # then the name
    labels:
      - "yes"
      - "no"
    threshold: 0.9  # by guess

  # The second one.
  - name: b
    threshold: 0.1
    calibration:   # so far: nothing
      temperature: 1
      # a remark

    question: |
      B
      C?
  - {name: c, question: "D: d?"}
  - name: d
    calibration: {bias: 1}   # one-sided
    question: E?"""


def test_only_the_new_values_change() -> None:
    """Values are replaced where they stand, added below the name, and every comment beside them stays."""
    before = policies_of(TEXT)
    new = {
        policy.name: replace(policy, threshold=0.1 + place / 7, calibration=Calibration(1.5 + place, -0.25 * place))
        for place, policy in enumerate(before.policies)
    }
    text = edited(TEXT, new)
    assert policies_of(text) == replace(before, policies=tuple(new.values()))
    for kept in ("# Ours.", "# short", "# first the question", "# then the name", "# by guess", "# The second one."):
        assert kept in text
    assert "# one-sided" in text
    assert "threshold: 0.1  # by guess" in text
    assert "    name: a   # then the name\n    calibration: {temperature: 1.5, bias: -0.0}\n" in text
    assert f"{{name: c, threshold: {0.1 + 2 / 7!r}, calibration: {{temperature: 3.5, bias: -0.5}}, question:" in text


def test_policies_that_are_not_named_stay() -> None:
    """With nothing new the text is the same, character for character; line ends too."""
    assert edited(TEXT, {}) == TEXT
    windows = TEXT.replace("\n", "\r\n")
    b = policies_of(windows).policies[2]
    text = edited(windows, {"c": replace(b, threshold=0.25)})
    assert text.replace("\n", "").count("\r") == windows.count("\r")


def test_shared_values_are_not_changed_behind_ones_back() -> None:
    """A value that two policies share by an anchor is not changed for both: it is an error that says what to do."""
    text = "policies:\n- {name: a, question: q, threshold: &t 0.5}\n- {name: b, question: q, threshold: *t}\n"
    policy = replace(policies_of(text).policies[0], threshold=0.25)
    with pytest.raises(NotEditable, match="share"):
        edited(text, {"a": policy})
