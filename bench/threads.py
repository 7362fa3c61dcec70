"""Receives, hashes and writes in several threads, each with connections of its own: a bare loop, which is not msd.

Four senders send one buffer repeatedly, which costs next to nothing beside the kernel's copy. The receiver verifies
nothing and schedules nothing. The question is what threads gain where all but the interpreter's work is outside of its
lock; ``docs/decisions.md`` has the answer. The processor time covers the receiver and the senders.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Thread

import zmq
from blake3 import blake3

from bench.bare import SEGMENT
from bench.bounds import conclude
from bench.measuring import ROUNDS, SIZE, memory_folder, paired_ratio, warn_if_noisy
from bench.peers import Sample, Side

SENDERS, WINDOW = 4, 4
THREADS = (1, 2)
GIB = 1 << 30


def run() -> None:
    command = [sys.executable, "-m", "bench.threads"]
    with memory_folder() as folder, ExitStack() as stack:
        senders, ports = [], []
        for _ in range(SENDERS):
            sender = stack.enter_context(subprocess.Popen([*command, "send"], stdout=subprocess.PIPE, text=True))
            stack.callback(sender.kill)
            assert sender.stdout is not None
            senders.append(sender.pid)
            ports.append(sender.stdout.readline().strip())
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        sides = [
            Side(f"{n} threads", [*command, "receive", "copy", str(SIZE), str(n), *ports], folder, senders, env, float)
            for n in THREADS
        ]
        samples: dict[int, list[Sample]] = {n: [] for n in THREADS}
        for number in range(ROUNDS + 1):
            for n, side in zip(THREADS, sides, strict=True):
                sample = side.run()
                if number:  # The first round warms up.
                    samples[n].append(sample)
    seconds = {n: [sample.transfer for sample in values] for n, values in samples.items()}
    print(f"{SIZE / GIB:g} GiB, {ROUNDS} rounds, medians\nthreads   GiB/s  CPU s/GiB")
    for n, values in samples.items():
        cpu = statistics.median(sample.cpu for sample in values) / (SIZE / GIB)
        print(f"{n:7} {SIZE / statistics.median(seconds[n]) / GIB:7.2f} {cpu:10.2f}")
    warn_if_noisy("one thread", seconds[1])
    print(f"rate of two threads / rate of one: {paired_ratio(seconds[1], seconds[2])}")
    conclude("threads", {"bytes": SIZE, "seconds": seconds}, [])


def send() -> None:
    data = os.urandom(SEGMENT)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        print(router.bind_to_random_port("tcp://127.0.0.1"), flush=True)
        while True:
            client, number = router.recv_multipart()
            router.send_multipart([client, number, data], copy=False)


def receive(path: str, size: int, threads: int, ports: Sequence[str]) -> float:
    """Returns the seconds from the first request to the last write."""
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, size)
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        dealers = []
        for port in ports:
            dealer = stack.enter_context(context.socket(zmq.DEALER))
            dealer.connect(f"tcp://127.0.0.1:{port}")
            dealers.append(dealer)
        segments = range(size // SEGMENT)
        loops = [partial(_receive, file, dealers[n::threads], segments[n::threads]) for n in range(threads)]
        others = [Thread(target=loop) for loop in loops[1:]]
        began = time.monotonic()
        for thread in others:
            thread.start()
        loops[0]()
        for thread in others:
            thread.join()
        return time.monotonic() - began


def _receive(file: int, dealers: Sequence[zmq.Socket[bytes]], segments: Sequence[int]) -> None:
    outstanding = WINDOW * len(dealers)
    for requested in range(len(segments) + outstanding):
        dealer = dealers[requested % len(dealers)]
        if requested >= outstanding:
            number, data = dealer.recv_multipart(copy=False)
            blake3(data.buffer).digest()
            os.pwrite(file, data.buffer, int(number.bytes) * SEGMENT)
        if requested < len(segments):
            dealer.send(b"%d" % segments[requested])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["send"]:
            send()
        case ["receive", path, size, threads, *ports]:
            print(receive(path, int(size), int(threads), ports))
