"""Channels to other parts of lookonce."""

import grpc.aio

from rpc.peers import PLAIN, Identity
from rpc.server import MESSAGE_SLACK_BYTES


def channel(
    address: str, *, max_message_bytes: int, identity: Identity = PLAIN, name: str | None = None
) -> grpc.aio.Channel:
    """A channel to `host:port` that reconnects within a second or so and notices a peer that went silent.

    `name` is what the peer's certificate must be for where that is not its host. Raises `rpc.peers.PeersUnusable`.
    """
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", max_message_bytes + MESSAGE_SLACK_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]
    if name is not None:
        options.append(("grpc.ssl_target_name_override", name))
    credentials = identity.channel_credentials
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)
