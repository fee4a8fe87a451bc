"""A policies file: what it may say, and every fault told by line and field."""

from pathlib import Path

import pytest

from gateway.policies.nodes import PolicyFileError
from gateway.policies.policy import Calibration
from gateway.policies.reading import MAX_FILE_BYTES, policies_of, read_policies

FULL = """\
system: You judge pictures.
policies:
  - name: weapons/guns
    question: Is there a gun?
    labels: [yes, no, unclear]
    flagged: [yes, unclear]
    threshold: 0.25
    calibration: {temperature: 2.5, bias: -0.5}
    inputs: [image]
  - {name: b, question: "Is it sad?"}
"""


def test_every_field_is_read() -> None:
    """A policy has what its file says; words that YAML takes for booleans stay words."""
    found = policies_of(FULL)
    assert found.system == "You judge pictures."
    guns = found.policies[0]
    assert (guns.name, guns.question, guns.threshold) == ("weapons/guns", "Is there a gun?", 0.25)
    assert (guns.labels, guns.flagged) == (("yes", "no", "unclear"), ("yes", "unclear"))
    assert (guns.calibration, guns.inputs) == (Calibration(2.5, -0.5), ("image",))


def test_what_is_left_out_has_a_default() -> None:
    """Yes or no, of which yes is flagged from one half on, uncalibrated, of texts and images."""
    sad = policies_of(FULL).policies[1]
    assert (sad.labels, sad.flagged, sad.threshold) == (("yes", "no"), ("yes",), 0.5)
    assert (sad.calibration, sad.inputs) == (Calibration(1.0, 0.0), ("text", "image"))


def one(fields: str) -> str:
    return f"policies:\n  - name: a\n    question: b?\n    {fields}\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "policies file: it is empty"),
        ("policies: [", "line 1: this is not YAML"),
        ("- a", "line 1: write fields here: system, policies"),
        ("policy: []", "line 1: there is no field 'policy'; there are system, policies"),
        ("system: a", "line 1: the field 'policies' is missing"),
        ("policies: a", "line 1: policies: write a list here"),
        ("policies: []", "line 1: policies: there is no policy"),
        ("policies:\n  - question: a?", "line 2: policies[0]: the field 'name' is missing"),
        ("policies:\n  - name: a", "line 2: policies[0]: the field 'question' is missing"),
        ("policies:\n  - name: a b\n    question: c", "line 2: policies[0].name: 'a b' is not a name"),
        ("policies:\n  - name: a\n    question: ''", "line 3: policies[0].question: it is empty"),
        ("policies:\n  - name: a\n    question:", "line 3: policies[0].question: it is empty"),
        ("policies:\n  - name: a\n    question: [b]", "line 3: policies[0].question: write a text here"),
        (one("treshold: 1"), "line 4: policies[0]: there is no field 'treshold'"),
        (one("? [x]\n    : 1"), "line 4: policies[0]: there is no field '?'"),
        (one("name: c"), "line 4: policies[0]: the field 'name' is there twice"),
        (one("threshold: 1.5"), "line 4: policies[0].threshold: '1.5' is not a number from 0 to 1"),
        (one("threshold: .nan"), "line 4: policies[0].threshold: '.nan' is not a number"),
        (one("threshold: nan"), "line 4: policies[0].threshold: 'nan' is not a number"),
        (one("labels: yes"), "line 4: policies[0].labels: write a list here"),
        (one("labels: [yes]"), "line 4: policies[0].labels: 1 labels; write 2 to 64"),
        (one("labels: [a, b, a]"), "line 4: policies[0].labels[2]: this label is there twice"),
        (one("labels: [a, ' ']"), "line 4: policies[0].labels[1]: it is empty"),
        (one("flagged: [maybe]"), "line 4: policies[0].flagged[0]: 'maybe' is not one of the labels"),
        (one("flagged: [yes, yes]"), "line 4: policies[0].flagged[1]: this label is there twice"),
        (one("flagged: [yes, no]"), "line 4: policies[0].flagged: at least one label has to be flagged, and one not"),
        (one("flagged: []"), "line 4: policies[0].flagged: at least one label has to be flagged, and one not"),
        (one("calibration: 2"), "line 4: policies[0].calibration: write fields here: temperature, bias"),
        (
            one("calibration:\n      temperature: 0"),
            "line 5: policies[0].calibration.temperature: '0' is not a number from 0.01 to 100",
        ),
        (one("calibration: {bias: inf}"), "policies[0].calibration.bias: 'inf' is not a number from -100 to 100"),
        (one("inputs: []"), "line 4: policies[0].inputs: write image, text or both"),
        (one("inputs: [video]"), "line 4: policies[0].inputs[0]: 'video' is neither 'image' nor 'text'"),
        (one("threshold: 1\n  - {name: a, question: c}"), "line 5: policies[1]: an earlier policy has the same name"),
        ("policies: !!python/object/apply:os.getcwd []", "line 1: policies: there is no policy"),
        ("policies: &a [*a]", "line 1: policies[0]: write fields here"),
        ("policies: " + "[" * 5000, "policies file"),
    ],
)
def test_faults_are_named(text: str, told: str) -> None:
    """Whatever is wrong, the error names the line and the field, and what would be right."""
    with pytest.raises(PolicyFileError) as caught:
        policies_of(text)
    assert told in str(caught.value)


def test_too_much_is_refused(tmp_path: Path) -> None:
    """A file over its size, too many policies, too long a question and what is not UTF-8 are refused."""
    file = tmp_path / "p.yaml"
    file.write_text("#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(PolicyFileError, match="over 1048576 bytes"):
        read_policies(file)
    file.write_bytes(b"policies: \xff")
    with pytest.raises(PolicyFileError, match="not UTF-8"):
        read_policies(file)
    many = "".join(f"  - {{name: p{place}, question: a}}\n" for place in range(257))
    with pytest.raises(PolicyFileError, match="257 policies; at most 256"):
        policies_of("policies:\n" + many)
    with pytest.raises(PolicyFileError, match="10001 characters; at most 10000"):
        policies_of(f"policies:\n  - name: a\n    question: {'a' * 10_001}")
