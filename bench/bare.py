"""The least that a verified transfer from one server can be in Python: what our own code is measured against.

``serve FILE`` prints its port and answers each number of a segment with its bytes: ROUTER, ``pread``.
``fetch PORT FILE SIZE WINDOW`` keeps so many requests outstanding, hashes what comes, writes it, and prints
the seconds from the first request to the last write: DEALER, BLAKE3, ``pwrite``. Nothing is checked, timed
out, counted, retried or told, and nobody else may come.
"""

from __future__ import annotations

import os
import sys
import time

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


def fetch(port: str, path: str, size: int, window: int) -> float:
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, size)
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.connect(f"tcp://127.0.0.1:{port}")
        began = time.monotonic()
        segments = -(-size // SEGMENT)
        for asked in range(min(window, segments)):
            dealer.send(b"%d" % asked)
        for asked in range(window, segments + window):
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
        case ["fetch", port, path, size, window]:
            print(fetch(port, path, int(size), int(window)))
