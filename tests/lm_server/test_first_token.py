"""What is done for a first token."""

from types import SimpleNamespace
from typing import Any

import pytest

from lm_server import first_token as module
from lm_server.first_token import let_out


@pytest.mark.parametrize(("num_running", "num_tokens", "pauses"), [(1, 1, 1), (1, 2, 0), (1, 0, 0), (2, 1, 0)])
def test_a_lone_first_token_is_let_out(
    monkeypatch: pytest.MonkeyPatch, num_running: int, num_tokens: int, pauses: int
) -> None:
    """The engine pauses behind it, and neither behind a later one nor where others wait for the next step."""
    paused: list[float] = []
    monkeypatch.setattr(module.time, "sleep", paused.append)
    run: Any = SimpleNamespace(sequence=SimpleNamespace(output=[7] * num_tokens))
    let_out(num_running, [run])
    assert paused == [module.FIRST_TOKEN_PAUSE_S] * pauses
