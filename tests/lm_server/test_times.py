"""A question's times as the histograms have them."""

from prometheus_client import REGISTRY

from lm_server.times import QuestionTimes

NAMES = {
    "queue": "lookonce_request_queue_time_seconds",
    "first": "lookonce_time_to_first_token_seconds",
    "between": "lookonce_inter_token_latency_seconds",
    "all": "lookonce_e2e_request_latency_seconds",
}


def observed() -> dict[str, tuple[float, float]]:
    """Count and sum of each histogram."""
    return {
        short: (REGISTRY.get_sample_value(f"{name}_count") or 0.0, REGISTRY.get_sample_value(f"{name}_sum") or 0.0)
        for short, name in NAMES.items()
    }


def test_each_time_is_counted_where_it_belongs() -> None:
    """Two seconds waiting, one of prefill, tokens half a second apart; steps before the first token count once."""
    now = [100.0]
    before = observed()
    times = QuestionTimes(lambda: now[0])
    now[0] = 102.0
    times.begun()
    now[0] = 103.0
    times.begun()
    times.tokens()
    for _ in range(4):
        now[0] += 0.5
        times.tokens()
    times.finished()
    after = observed()
    rises = {short: (after[short][0] - before[short][0], after[short][1] - before[short][1]) for short in NAMES}
    assert rises == {"queue": (1, 2.0), "first": (1, 3.0), "between": (4, 2.0), "all": (1, 5.0)}
    assert times.first_token_s == 3.0
