"""The servers behind a store's URL: the one that it names, or those that sentinels or a cluster tell of."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.cluster import ClusterNode
from redis.sentinel import Sentinel

from cache.address import CLUSTER, SENTINEL, StoreAddress

TIMEOUT_S = 5.0


@contextmanager
def primaries(address: StoreAddress) -> Iterator[dict[str, redis.Redis]]:
    """A client of each server that takes writes, by the server's name; "" for the one that the URL names itself.

    Raises:
        redis.RedisError, OSError: nobody answers who could tell.
    """
    found = dict(_clients(address))
    try:
        yield found
    finally:
        for client in found.values():
            client.close()


def _clients(address: StoreAddress) -> Iterator[tuple[str, redis.Redis]]:
    if address.scheme == "unix":
        yield "", redis.Redis(unix_socket_path=address.path, db=address.db, **_arguments(address))
    elif address.scheme in CLUSTER:
        yield from _of_cluster(address)
    elif address.scheme in SENTINEL:
        yield _of_sentinels(address)
    else:
        [(host, port)] = address.nodes
        yield "", _client(address, host, port)


def _of_cluster(address: StoreAddress) -> Iterator[tuple[str, redis.Redis]]:
    nodes = [ClusterNode(host, port) for host, port in address.nodes]  # type: ignore[no-untyped-call]  # redis-py
    arguments = _arguments(address) | _tls(address)
    with redis.RedisCluster(startup_nodes=nodes, require_full_coverage=False, **arguments) as cluster:
        for node in cluster.get_primaries():
            yield f" {node.name}", _client(address, node.host, node.port)


def _of_sentinels(address: StoreAddress) -> tuple[str, redis.Redis]:
    asking = _arguments(address) | _tls(address)
    asking |= {"username": address.sentinel_username, "password": address.sentinel_password}
    sentinels: Any = Sentinel(address.nodes, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]  # redis-py
    try:
        host, port = sentinels.discover_master(address.service)
    finally:
        for sentinel in sentinels.sentinels:
            sentinel.close()
    return f" {host}:{port}", _client(address, host, port)


def _client(address: StoreAddress, host: str, port: int) -> redis.Redis:
    return redis.Redis(host=host, port=port, db=address.db, **_arguments(address), **_tls(address))


def _arguments(address: StoreAddress) -> dict[str, Any]:
    return {
        "username": address.username,
        "password": address.password,
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
    }


def _tls(address: StoreAddress) -> dict[str, Any]:
    if not address.has_tls:
        return {}
    files = {"ssl_ca_certs": address.ca_file, "ssl_certfile": address.certificate_file, "ssl_keyfile": address.key_file}
    return {"ssl": True, **files}
