"""`python -m benchmarks.hosts.sending HOST:PORT BYTES`: sends zeros as fast as they are taken."""

import socket
import sys

PIECE = bytes(1 << 20)


def main(there: str, num_bytes: int) -> None:
    """Sends so many bytes there."""
    host, _, port = there.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        for start in range(0, num_bytes, len(PIECE)):
            connection.sendall(PIECE[: num_bytes - start])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
