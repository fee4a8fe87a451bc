"""redis-py's clients for each kind of address: one server, what sentinels watch, a cluster.

`RedisStore` is written to what they have in common; here is what sets them apart.
"""

import contextlib
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ConstantBackoff, NoBackoff
from redis.cluster import LoadBalancingStrategy
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisClusterException, RedisError

from cache.address import CLUSTER, SENTINEL, StoreAddress
from cache.store import StoreLimits
from cache.wire import (
    SentinelTcpConnection,
    SentinelTlsConnection,
    SocketConnection,
    TcpConnection,
    TlsConnection,
    ValueParser,
)

# While a cluster votes for a new primary its slots move: the next try finds them. The guard bounds all tries together.
CLUSTER_TRIES = 3
CLUSTER_PAUSE_S = 0.1
CLUSTER_CONNECTIONS = 512


@dataclass(frozen=True, slots=True)
class Clients:
    """What a store speaks through.

    Attributes:
        writer: Reaches primaries.
        reader: Reaches replicas where they are to be read from; else the writer.
        pinger: Tells whether the primaries live; never waits behind large values.
        ping_arguments: Of `pinger.ping`.
    """

    writer: Any
    reader: Any
    pinger: Any
    ping_arguments: dict[str, Any]

    async def close(self) -> None:
        """Closes every connection."""
        for client in dict.fromkeys((self.writer, self.reader, self.pinger)):
            with contextlib.suppress(RedisError, RedisClusterException, OSError):
                await client.aclose()


def open_clients(address: StoreAddress, limits: StoreLimits) -> Clients:
    """Clients of the servers at an address. Nothing is connected to yet."""
    # A ping must not wait behind large values.
    writer: Any
    reader: Any
    alone = replace(limits, max_connections=1)
    if address.scheme in CLUSTER:
        writer = _cluster(address, limits, from_replicas=False)
        reader = _cluster(address, limits, from_replicas=True) if address.read_replicas else writer
        return Clients(writer, reader, _cluster(address, alone, from_replicas=False), _PRIMARIES)
    if address.scheme in SENTINEL:
        writer = _watched(address, limits, is_master=True)
        reader = _watched(address, limits, is_master=False) if address.read_replicas else writer
        return Clients(writer, reader, _watched(address, alone, is_master=True), {})
    writer = Redis.from_pool(_pool(address, limits))
    return Clients(writer, writer, Redis.from_pool(_pool(address, alone)), {})


_PRIMARIES = {"target_nodes": RedisCluster.PRIMARIES}


def _common(address: StoreAddress, limits: StoreLimits) -> dict[str, Any]:
    """What every connection is told."""
    return {
        "socket_timeout": limits.timeout_s,
        "socket_connect_timeout": limits.connect_timeout_s,
        "protocol": 2,
        # Which library we are is nobody's business, and a user of few rights may not say it.
        "driver_info": None,
        "username": address.username,
        "password": address.password,
    }


def _tls(address: StoreAddress) -> dict[str, Any]:
    if not address.has_tls:
        return {}
    return {
        "ssl_ca_certs": address.ca_file,
        "ssl_certfile": address.certificate_file,
        "ssl_keyfile": address.key_file,
    }


def _once_more() -> Retry:
    """One retry, for a pooled connection that had gone stale."""
    return Retry(NoBackoff(), 1, supported_errors=(NoConnection,))


def _pool(address: StoreAddress, limits: StoreLimits) -> BlockingConnectionPool:
    return BlockingConnectionPool(
        max_connections=limits.max_connections,
        timeout=limits.timeout_s,
        retry=_once_more(),
        parser_class=ValueParser,
        db=address.db,
        **_common(address, limits),
        **_transport(address),
    )


def _transport(address: StoreAddress) -> dict[str, Any]:
    if address.scheme == "unix":
        return {"connection_class": SocketConnection, "path": address.path}
    [(host, port)] = address.nodes
    kind = TlsConnection if address.has_tls else TcpConnection
    return {"connection_class": kind, "host": host, "port": port, "socket_keepalive": True, **_tls(address)}


class _WatchedPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the primary, or the replicas, that sentinels name; who wants one more than there are waits."""


def _watched(address: StoreAddress, limits: StoreLimits, *, is_master: bool) -> Redis:
    asking = {
        **_common(address, limits),
        **_tls(address),
        "username": address.sentinel_username,
        "password": address.sentinel_password,
        "ssl": address.has_tls,
    }
    sentinels = Sentinel(address.nodes, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]  # redis-py
    pool = _WatchedPool(  # type: ignore[no-untyped-call]  # redis-py
        address.service,
        sentinels,
        is_master=is_master,
        connection_class=SentinelTlsConnection if address.has_tls else SentinelTcpConnection,
        max_connections=limits.max_connections,
        timeout=limits.timeout_s,
        retry=_once_more(),
        parser_class=ValueParser,
        db=address.db,
        socket_keepalive=True,
        **_common(address, limits),
        **_tls(address),
    )
    return _WatchedRedis.from_pool(pool)


class _WatchedRedis(Redis):
    """A client whose sentinels' connections are closed with it."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        pool: Any = self.connection_pool
        await super().aclose(close_connection_pool)
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


class _LargeValueCluster(RedisCluster):
    """A cluster's client whose nodes are connected to by our connections; redis-py has no parameter for that."""

    def __init__(self, nodes: list[ClusterNode], connection: dict[str, Any], **arguments: Any) -> None:
        super().__init__(startup_nodes=nodes, **arguments)
        # The very dictionary that nodes are made from once the cluster has told of them.
        self.connection_kwargs.update(connection)


def _cluster(address: StoreAddress, limits: StoreLimits, *, from_replicas: bool) -> RedisCluster:
    connection = {
        "connection_class": TlsConnection if address.has_tls else TcpConnection,
        "parser_class": ValueParser,
    }
    return _LargeValueCluster(
        [ClusterNode(host, port) for host, port in address.nodes],
        connection,
        # Slots that nobody serves concern their own keys alone.
        require_full_coverage=False,
        load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN if from_replicas else None,
        # A node's client refuses who wants one more than there are, where the other stores have him wait.
        max_connections=CLUSTER_CONNECTIONS,
        retry=Retry(ConstantBackoff(CLUSTER_PAUSE_S), CLUSTER_TRIES),
        ssl=address.has_tls,
        **_common(address, limits),
        **_tls(address),
    )
