"""A replica's port, without a cluster."""

import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

pytest.importorskip("ray", reason="Ray is tested by `make test-ray` alone, in its own environment")
from lookonce.ray.replica import address_of, hold_port


def test_a_replicas_port_is_its_workers_alone() -> None:
    """While its worker starts nobody else is given the port or can take it, and the worker listens on it."""
    with hold_port("127.0.0.1") as held:
        place = held.getsockname()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(place)
        server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
        assert server.add_insecure_port(address_of(held)) == place[1]
        server.start()
        with socket.create_connection(place):
            pass
        server.stop(None).wait()
