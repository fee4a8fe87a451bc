"""Labelled examples, and every fault of them by line and field."""

from pathlib import Path

import pytest

from gateway.policies.reading import policies_of
from lookonce.calibration.examples import BadExamples, Example, read_examples

POLICIES = policies_of(
    """\
policies:
  - {name: a, question: q}
  - {name: n, question: q, labels: ["0", "1", "2"], flagged: ["0"], inputs: [image]}
"""
)


def read(tmp_path: Path, text: str, name: str = "e.jsonl") -> list[Example]:
    (tmp_path / name).write_text(text)
    return read_examples(tmp_path / name, POLICIES)


def test_labels_are_the_policys_or_true_and_false(tmp_path: Path) -> None:
    """A policy's own label goes before 0 and 1; booleans and their words, in JSON and CSV, mean flagged or not."""
    lines = '{"image": "x.png", "policy": "n", "label": %s}\n'
    found = read(tmp_path, "".join(lines % label for label in ("true", "0", '"1"', '"false"', '"2"')))
    assert [each.flagged for each in found] == [True, True, False, False, False]
    rows = "image,text,policy,label\nx.png,,a,yes\n,words,a,no\nx.png,words,a,TRUE\n"
    found = read(tmp_path, rows, "e.csv")
    assert [each.flagged for each in found] == [True, False, True]
    assert [(each.image, each.text) for each in found][1] == ("", "words")


def test_paths_are_beside_the_file_and_ids_stay(tmp_path: Path) -> None:
    """A file's path begins at the examples; an image's id, or a URL, is as it was written."""
    line = '{"image": "%s", "policy": "a", "label": true}\n'
    found = read(tmp_path, "".join(line % image for image in ("x.png", "img_ab", "https://e.org/x.png")))
    assert [each.image for each in found] == [str(tmp_path / "x.png"), "img_ab", "https://e.org/x.png"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 1: this is not a JSON object"),
        ("[]", "line 1: this is not a JSON object"),
        ('{"image": "x", "policy": "a", "lable": true}', "line 1: there is no field 'lable'"),
        ('{"image": "x", "policy": "b", "label": true}', "line 1: policy: 'b' is not in the policies file"),
        ('{"image": 3, "policy": "a", "label": true}', "line 1: image: write a text"),
        ('{"policy": "a", "label": true}', "line 1: there is neither an image nor a text"),
        ('{"text": "x", "policy": "n", "label": true}', "line 1: text: the policy n is not for these"),
        ('{"image": "x", "policy": "n", "label": "3"}', "line 1: label: write true, false, or a label of n: 0, 1, 2"),
        ('{"image": "x", "policy": "a"}', "line 1: label: write true, false, or a label of a: yes, no"),
        ("", "there is no example"),
    ],
)
def test_faults_are_named(tmp_path: Path, line: str, told: str) -> None:
    """The error says the line, the field and what would be right."""
    with pytest.raises(BadExamples) as caught:
        read(tmp_path, line)
    assert told in str(caught.value)


def test_files_that_are_no_examples_are_refused(tmp_path: Path) -> None:
    """Another ending, no file, bytes that are not UTF-8, and a row with other columns are one clear line each."""
    with pytest.raises(BadExamples, match=r"are read from \.jsonl or \.csv"):
        read(tmp_path, "", "e.txt")
    with pytest.raises(BadExamples, match="No such file"):
        read_examples(tmp_path / "none.csv", POLICIES)
    (tmp_path / "bad.csv").write_bytes(b"image\n\xff\n")
    with pytest.raises(BadExamples, match="not CSV or JSONL in UTF-8"):
        read_examples(tmp_path / "bad.csv", POLICIES)
    with pytest.raises(BadExamples, match="line 2: it has other columns"):
        read(tmp_path, "image,policy,label\nx.png,a\n", "e.csv")
