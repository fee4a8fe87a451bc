"""Policies from a file or from a server's list."""

from pathlib import Path

import pytest

from gateway.moderations import policy_body
from gateway.policies.reading import policies_of
from lookonce.errors import UnreadableFile
from lookonce.policy_files import NoPolicies, as_json, from_listed, read_file

TEXT = """\
system: "Judge: yes or no"
policies:
  - {name: a, question: "é \\"q\\": 'x' # y", labels: [yes, "no", null], threshold: 0.1, inputs: [image]}
  - {name: b, question: q, calibration: {temperature: 2, bias: -1.5e-3}}
"""


def test_a_servers_list_means_what_its_file_means() -> None:
    """Policies that went through /v1/policies are those of the file, whatever is in their texts."""
    policies = policies_of(TEXT)
    data = [policy_body(policy).model_dump() for policy in policies.policies]
    assert from_listed({"object": "list", "data": data, "system": policies.system}) == policies


@pytest.mark.parametrize(
    "listed", [{"data": [{}], "system": ""}, {"data": [3], "system": ""}, {"data": 3, "system": ""}]
)
def test_a_strange_list_is_refused(listed: dict[str, object]) -> None:
    """What is no list of policies is told as such."""
    with pytest.raises(NoPolicies, match="cannot be read"):
        from_listed(listed)


def test_no_policies_say_where_to_give_them() -> None:
    """A server without policies is told of, with the option."""
    with pytest.raises(NoPolicies, match="--policies FILE"):
        from_listed({"data": [], "system": ""})


def test_policies_that_differ_in_anything_differ_in_a_journal() -> None:
    """Whatever is changed in a file, a journal of the other one does not agree."""
    for before, after in (
        ("Judge", "Say"),
        ("name: b", "name: c"),
        ("0.1", "0.2"),
        ("2,", "3,"),
        ("[image]", "[text]"),
    ):
        assert as_json(policies_of(TEXT.replace(before, after, 1))) != as_json(policies_of(TEXT))


def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    """No file, and a fault in one, name the file and the reason."""
    with pytest.raises(UnreadableFile, match=r"none\.yaml: No such file"):
        read_file(tmp_path / "none.yaml")
    (tmp_path / "p.yaml").write_text("policies: []")
    with pytest.raises(UnreadableFile, match=r"p\.yaml: policies file, line 1: policies: there is no policy"):
        read_file(tmp_path / "p.yaml")
