"""What the doctor says of stores."""

import dataclasses
from pathlib import Path

import pytest

from lookonce.doctor.findings import Finding, Level
from lookonce.doctor.store import StoreFacts, examine_store, judge_store
from tests.deployment import free_port, redis_server

MIB = 1 << 20
SOUND = StoreFacts(
    software="Redis 7",
    max_bytes=1024 * MIB,
    policy="allkeys-lru",
    used_bytes=0,
    is_replica=False,
    max_value_bytes=256 * MIB,
    save="",
    append_only=False,
)


def problems(largest: int | None = 10 * MIB, **facts: object) -> list[Finding]:
    """What is not ok about a sound store with other facts."""
    changed = dataclasses.replace(SOUND, **facts)  # type: ignore[arg-type]
    return [finding for finding in judge_store("store", changed, largest) if finding.level is not Level.OK]


def test_a_sound_store_has_no_problem() -> None:
    """Nothing is invented."""
    assert problems() == []


@pytest.mark.parametrize(
    ("facts", "level", "message", "remedy"),
    [
        ({"max_bytes": 0}, Level.WARN, "no maxmemory", "CONFIG SET maxmemory "),
        ({"policy": "noeviction"}, Level.WARN, "noeviction", "CONFIG SET maxmemory-policy allkeys-lru"),
        ({"is_replica": True}, Level.FAIL, "replica", "primary"),
        ({"max_value_bytes": 2048 * MIB}, Level.WARN, "proto-max-bulk-len", f"proto-max-bulk-len {256 * MIB}"),
        ({"max_value_bytes": MIB}, Level.WARN, "such images are not kept", f"proto-max-bulk-len {10 * MIB}"),
        ({"max_value_bytes": None}, Level.WARN, "CONFIG GET", "+config|get"),
        ({"max_bytes": 32 * MIB, "max_value_bytes": 16 * MIB}, Level.WARN, "more than 1/4 of maxmemory", "raise"),
        ({"max_bytes": 8 * MIB, "max_value_bytes": 8 * MIB}, Level.FAIL, "evict every key", "raise maxmemory"),
        ({"save": "3600 1"}, Level.WARN, "snapshots", 'CONFIG SET save ""'),
        ({"append_only": True}, Level.WARN, "append-only", "CONFIG SET appendonly no"),
    ],
)
def test_each_problem_is_told_with_what_mends_it(
    facts: dict[str, object], level: Level, message: str, remedy: str
) -> None:
    """Every fault of a store's setup has a message and a remedy."""
    assert any(
        (finding.level, message in finding.message, remedy in finding.remedy) == (level, True, True)
        for finding in problems(**facts)  # type: ignore[arg-type]
    )


def test_the_largest_entry_is_not_judged_where_nobody_knows_it() -> None:
    """Without a vision worker nothing is said about entries."""
    assert not any("largest" in finding.message for finding in judge_store("store", SOUND, None))


def test_a_real_server_is_read(tmp_path: Path) -> None:
    """A stock server without limits is told so; one that is set up well has no problem."""
    with redis_server(tmp_path / "stock") as server:
        stock = examine_store(server.url, 1000)
        assert stock[0].level is Level.OK
        assert any("no maxmemory" in finding.message for finding in stock)
        server.client.config_set("maxmemory", "1gb")
        server.client.config_set("maxmemory-policy", "allkeys-lru")
        assert {finding.level for finding in examine_store(server.url, 1000)} == {Level.OK}
        server.client.config_set("requirepass", "secret")
        assert [finding.level for finding in examine_store(server.url, 1000)] == [Level.FAIL]
        with_password = server.url.replace("//", "//:secret@")
        findings = examine_store(with_password, 1000)
        assert findings[0].level is Level.OK
        assert not any("secret" in f"{finding.subject}{finding.message}" for finding in findings)


def test_a_store_that_does_not_answer_fails() -> None:
    """Nothing there is a failure; the URL's password is not shown."""
    [finding] = examine_store(f"redis://:secret@127.0.0.1:{free_port()}", None)
    assert finding.level is Level.FAIL
    assert "secret" not in f"{finding}"
    [finding] = examine_store("http://x", None)
    assert (finding.level, finding.remedy) == (Level.FAIL, "correct --cache")
    assert [finding.level for finding in examine_store("memory://", None)] == [Level.OK]
