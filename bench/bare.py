"""The least that a verified transfer can be in Python: what our own code is measured against.

``serve FILE`` prints its port and answers each number of a segment with its bytes: ROUTER, ``pread``.
``fetch FILE SIZE WINDOW PORT …`` keeps so many requests outstanding with each server, hashes what comes, writes
it, and prints the seconds from the first request to the last write: DEALER, BLAKE3, ``pwrite``. Nothing is
checked, timed out, counted, retried or told, nobody else may come, and the servers take turns: all wait for the
slowest.
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
        for asked in range(min(outstanding, segments)):
            dealers[asked % len(dealers)].send(b"%d" % asked)
        for asked in range(outstanding, segments + outstanding):
            dealer = dealers[asked % len(dealers)]
            number, data = dealer.recv_multipart(copy=False)
            if asked < segments:
                dealer.send(b"%d" % asked)
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
