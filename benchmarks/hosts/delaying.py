"""`python -m benchmarks.hosts.delaying LISTEN TARGET SECONDS`: passes TCP on, every byte so much later, both ways.

For links with a delay where the kernel has no netem. Bytes are held and not slowed: the rate stays the link's.
"""

import asyncio
import sys
from collections.abc import Sequence

CHUNK_BYTES = 1 << 16
HELD_CHUNKS = 1024


async def serve(listen: str, target: str, delay_s: float) -> None:
    """Passes on what comes to `listen`, until it is cancelled."""
    host, port = _split(listen)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*_split(target))
        except OSError:
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_pass(reader, far_writer, delay_s), _pass(far_reader, writer, delay_s))
        except OSError:
            pass
        finally:
            for end in (writer, far_writer):
                end.transport.abort()

    async with await asyncio.start_server(accept, host, port) as server:
        await server.serve_forever()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Reads at once, and writes what was read when its delay is over."""
    held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_CHUNKS)
    clock = asyncio.get_running_loop().time
    writing = asyncio.create_task(_write(held, writer))
    try:
        while data := await reader.read(CHUNK_BYTES):
            await held.put((clock() + delay_s, data))
        await held.put((clock() + delay_s, b""))
        await writing
    finally:
        writing.cancel()


async def _write(held: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        due, data = await held.get()
        await asyncio.sleep(max(due - clock(), 0))
        if not data:
            writer.write_eof()
            return
        writer.write(data)
        await writer.drain()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def main(arguments: Sequence[str]) -> None:
    """Serves until a signal."""
    listen, target, delay = arguments
    asyncio.run(serve(listen, target, float(delay)))


if __name__ == "__main__":
    main(sys.argv[1:])
