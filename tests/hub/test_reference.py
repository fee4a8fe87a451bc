"""Names of models."""

import pytest

from hub.reference import HubModel, parse


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("Qwen/Qwen2-VL-2B-Instruct", HubModel("Qwen/Qwen2-VL-2B-Instruct")),
        ("org/name@v1.0", HubModel("org/name", "v1.0")),
        ("org/name@refs/pr/1", HubModel("org/name", "refs/pr/1")),
        ("name", None),
        ("a/b/c", None),
        ("./org/name", None),
        ("org/../name", None),
        ("/org/name", None),
        ("org/name@", None),
        ("org/na me", None),
        ("-org/name", None),
    ],
)
def test_a_name_has_two_parts(text: str, model: HubModel | None) -> None:
    """And perhaps a revision; everything else is none, paths above all."""
    assert parse(text) == model


def test_the_main_branch_is_not_written() -> None:
    """Another revision is."""
    assert str(HubModel("org/name")) == "org/name"
    assert str(HubModel("org/name", "v1")) == "org/name@v1"
