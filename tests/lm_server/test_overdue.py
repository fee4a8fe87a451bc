"""Questions that have waited too long, refused before anything of them is computed."""

import pytest

from lm_server.tickets import Delta
from rpc.errors import Overloaded
from tests.lm_server.workshop import MIXED, Workshop, ask

TOKENS = 12


def test_what_has_waited_too_long_is_refused(workshop: Workshop) -> None:
    """Where nothing may wait at all, every question is refused with a time to try again, and nothing stays behind."""
    with workshop.engine(max_wait_s=1e-9) as bench:
        for told in bench.ask(MIXED[:3], TOKENS):
            with pytest.raises(Overloaded) as caught:
                told.end()
            assert caught.value.retry_after_s is not None
        assert bench.scheduler.is_idle
        assert bench.engine.num_waiting == bench.engine.num_running == 0


def test_what_is_begun_is_finished(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that streams, however old, gets the whole model's tokens; one that waits behind it is refused."""
    with workshop.engine(max_running=1, max_wait_s=1e9) as bench:
        (first,) = bench.ask([MIXED[0]], 24)
        assert isinstance(first.next(), Delta)
        (second,) = bench.ask([ask("And this?", 1)], TOKENS)
        monkeypatch.setattr(bench.engine, "_max_wait_s", 1e-9)
        with pytest.raises(Overloaded):
            second.end()
        first.end()
        assert first.tokens == workshop.expected(MIXED[0], 24).tokens
