"""A minimal transfer in Python, the baseline for the overhead of msd's own code.

``serve FILE`` prints its port and replies to each segment number with the segment's bytes (ROUTER, ``pread``).
``fetch FILE SIZE WINDOW PORT …`` keeps WINDOW requests in flight with each server, hashes and writes each segment, and
prints the seconds from the first request to the last write (DEALER, BLAKE3, ``pwrite``).

The digests are computed but not compared. There are no timeouts, retries, counters or progress messages. A server
serves one client. Requests go to the servers in strict rotation, so the slowest server sets the pace.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack

import zmq
from blake3 import blake3

SEGMENT = 1 << 20


def serve(path: str) -> None:
    file = os.open(path, os.O_RDONLY)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        print(router.bind_to_random_port("tcp://127.0.0.1"), flush=True)
        while True:
            client, number = router.recv_multipart()
            data = os.pread(file, SEGMENT, int(number) * SEGMENT)
            router.send_multipart([client, number, data], copy=False)


def fetch(path: str, size: int, window: int, ports: list[str]) -> float:
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, size)
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        dealers = [stack.enter_context(context.socket(zmq.DEALER)) for _ in ports]
        for dealer, port in zip(dealers, ports, strict=True):
            dealer.connect(f"tcp://127.0.0.1:{port}")
        outstanding = window * len(dealers)
        began = time.monotonic()
        segments = -(-size // SEGMENT)
        for requested in range(min(outstanding, segments)):
            dealers[requested % len(dealers)].send(b"%d" % requested)
        for requested in range(outstanding, segments + outstanding):
            dealer = dealers[requested % len(dealers)]
            number, data = dealer.recv_multipart(copy=False)
            if requested < segments:
                dealer.send(b"%d" % requested)
            index = int(number.bytes)
            blake3(data.buffer).digest()
            os.pwrite(file, data.buffer, index * SEGMENT)
        return time.monotonic() - began


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", path]:
            serve(path)
        case ["fetch", path, size, window, *ports]:
            print(fetch(path, int(size), int(window), ports))
