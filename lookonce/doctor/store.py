"""The store: what its server says of itself, and whether entries are well kept there."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import redis

from cache.address import parse_address
from cache.errors import InvalidStoreUrl
from lookonce.doctor.clocks import Reading, judge_clocks
from lookonce.doctor.findings import Finding, fail, ok, warn
from lookonce.kinds import show_size

TIMEOUT_S = 5.0
# An entry that takes more than this part of the memory pushes many others out.
CROWDING_PART = 4
NO_EVICTION = "noeviction"
CONFIG_NAMES = ("proto-max-bulk-len", "save", "appendonly")


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What a Redis server says of itself.

    Attributes:
        software: Its name and version.
        max_bytes: maxmemory; 0: no limit.
        policy: maxmemory-policy.
        used_bytes: Memory in use.
        is_replica: It takes no writes of ours.
        max_value_bytes: proto-max-bulk-len; None where it does not let us ask.
        save: The schedule of snapshots; "" for none, None likewise.
        append_only: Every write goes to a file; None likewise.
        clock: What its clock said.
    """

    software: str
    max_bytes: int
    policy: str
    used_bytes: int
    is_replica: bool
    max_value_bytes: int | None
    save: str | None
    append_only: bool | None
    clock: Reading | None = None


def examine_store(url: str, largest_entry_bytes: int | None) -> list[Finding]:
    """What is right and wrong about the store at `url`. `largest_entry_bytes` is None where nobody told it."""
    try:
        address = parse_address(url)
    except InvalidStoreUrl as exc:
        return [fail("store", str(exc), "correct --cache")]
    subject = f"store {address}"
    if address.scheme == "memory":
        return [ok(subject, "kept by each vision worker; nothing to examine")]
    try:
        facts = read_store(url)
    except redis.exceptions.NoPermissionError:
        return [warn(subject, "its user may not ask what is examined here", "give the doctor a user with +info +time")]
    except redis.AuthenticationError:
        return [fail(subject, "it refuses the password", "give redis://user:password@host in --cache")]
    except (redis.RedisError, OSError) as exc:
        return [fail(subject, f"it does not answer ({type(exc).__name__})", "start it, or correct --cache")]
    return [ok(subject, f"{facts.software} answers"), *judge_store(subject, facts, largest_entry_bytes)]


def read_store(url: str) -> StoreFacts:
    """Asks the server. Raises `redis.RedisError`, OSError."""
    with redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S) as client:
        asked = time.time()
        seconds, microseconds = cast(tuple[int, int], client.time())
        clock = Reading("store", seconds + microseconds / 1e6, asked, time.time())
        info = cast(dict[str, Any], client.info())
        config = _config(client)
    name = "Valkey" if "valkey_version" in info else "Redis"
    bulk, save, append_only = (config.get(name) for name in CONFIG_NAMES)
    return StoreFacts(
        software=f"{name} {info.get('valkey_version', info.get('redis_version', ''))}",
        max_bytes=int(info.get("maxmemory", 0)),
        policy=str(info.get("maxmemory_policy", "")),
        used_bytes=int(info.get("used_memory", 0)),
        is_replica=info.get("role") == "slave",
        max_value_bytes=None if bulk is None else int(bulk),
        save=save,
        append_only=None if append_only is None else append_only == "yes",
        clock=clock,
    )


def _config(client: redis.Redis) -> dict[str, str]:
    """CONFIG GET; nothing where the server does not let us."""
    try:
        found = cast(dict[Any, Any], client.config_get(*CONFIG_NAMES))
    except redis.ResponseError:
        return {}
    return {_text(name): _text(value) for name, value in found.items()}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def judge_store(subject: str, facts: StoreFacts, largest_entry_bytes: int | None) -> Iterator[Finding]:
    """What is right and wrong about these facts."""
    if facts.is_replica:
        yield fail(subject, "it is a read-only replica", "give the primary's address in --cache")
    yield _memory(subject, facts)
    yield _policy(subject, facts)
    yield from _values(subject, facts)
    if largest_entry_bytes is not None:
        yield from _largest_entry(subject, facts, largest_entry_bytes)
    yield from _persistence(subject, facts)
    if facts.clock is not None:
        yield from judge_clocks([replace(facts.clock, subject=subject)])


def _memory(subject: str, facts: StoreFacts) -> Finding:
    if facts.max_bytes:
        return ok(subject, f"maxmemory is {show_size(facts.max_bytes)}")
    return warn(
        subject,
        "it has no maxmemory: it grows until the host has no memory left",
        "CONFIG SET maxmemory 4gb (for example)",
    )


def _policy(subject: str, facts: StoreFacts) -> Finding:
    if facts.policy != NO_EVICTION:
        return ok(subject, f"maxmemory-policy is {facts.policy}")
    return warn(
        subject,
        "maxmemory-policy is noeviction: once it is full, new images are encoded again for every question",
        "CONFIG SET maxmemory-policy allkeys-lru",
    )


def _values(subject: str, facts: StoreFacts) -> Iterator[Finding]:
    largest = facts.max_value_bytes
    if largest is None:
        yield warn(subject, "it does not allow CONFIG GET, so its limits are not known", "allow +config|get")
    elif facts.max_bytes and largest > facts.max_bytes:
        yield warn(
            subject,
            f"proto-max-bulk-len ({show_size(largest)}) is above maxmemory: one oversized SET evicts every key",
            f"CONFIG SET proto-max-bulk-len {facts.max_bytes // CROWDING_PART}",
        )
    else:
        yield ok(subject, f"proto-max-bulk-len is {show_size(largest)}")


def _largest_entry(subject: str, facts: StoreFacts, largest: int) -> Iterator[Finding]:
    size = show_size(largest)
    if facts.max_value_bytes is not None and largest > facts.max_value_bytes:
        yield warn(
            subject,
            f"the largest image's entry ({size}) is above proto-max-bulk-len: such images are not kept",
            f"CONFIG SET proto-max-bulk-len {largest}, or lower --max-image-tokens",
        )
    if facts.max_bytes and largest > facts.max_bytes:
        yield fail(
            subject,
            f"the largest image's entry ({size}) is above maxmemory: it would evict every key and then not fit",
            "raise maxmemory, or lower --max-image-tokens of the vision worker",
        )
    elif facts.max_bytes and largest * CROWDING_PART > facts.max_bytes:
        part = f"1/{CROWDING_PART} of maxmemory"
        yield warn(
            subject,
            f"the largest image's entry ({size}) takes more than {part}",
            "raise maxmemory, or lower --max-image-tokens",
        )
    else:
        yield ok(subject, f"the largest image's entry is {size}")


def _persistence(subject: str, facts: StoreFacts) -> Iterator[Finding]:
    if facts.save:
        yield warn(subject, "it writes snapshots, and each forks, which may double its memory", 'CONFIG SET save ""')
    if facts.append_only:
        yield warn(subject, "it writes an append-only file: every entry goes to disk", "CONFIG SET appendonly no")
    if facts.save == "" and facts.append_only is False:
        yield ok(subject, "it writes nothing to disk")
