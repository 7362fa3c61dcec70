"""The rate of a download from an object store through four workers, compared with bare loops over obstore.

The store is SeaweedFS on this machine; ``make test-stores`` installs it. The bare loops read segments in threads and
hash each. "obstore" drops it then. It has 8 or 16 threads, and the faster of both counts; "in runs" it reads four
segments with a request, as msd's workers do. "obstore, passed on" does what workers and a client have to do: four
processes read and hash with 8 threads each, and send to a receiver (``bench/bare.py``) that hashes and writes, as msd
does. The cache of the workers is too small for the next round. The times exclude start-up; the processor time covers
the store and all processes with their start-up.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zmq
from blake3 import blake3

from bench import ours
from bench.bare import SEGMENT
from bench.bounds import Bound, conclude, ratios
from bench.copying import run_rounds
from bench.measuring import ROUNDS, SIZE, memory_folder, paired_ratio, warn_if_noisy
from bench.peers import Side
from msd.client.scheduling.worker_pace import STORE_RUN_UNITS
from tests.processes import MIB, MSD
from tests.stores.servers import BUCKET, CREDENTIALS, SeaweedFs

GIB = 1 << 30
#: SeaweedFS, too, keeps the object in memory here.
BYTES = min(SIZE, 512 * MIB)
THREADS = (8, 16)
BARE = [f"obstore, {threads} threads" for threads in THREADS]
IN_RUNS = "obstore, 8 threads, in runs"
CACHE = '[store]\ncache = "8MiB"\n'


def run() -> None:
    with memory_folder() as folder:
        try:
            server = SeaweedFs(folder / "seaweedfs")
        except pytest.skip.Exception as reason:
            print(reason)
            return
        with server:
            _run(folder, server)


def _run(folder: Path, server: SeaweedFs) -> None:
    # Random data: nothing on the way can compress it.
    part = os.urandom(16 * MIB)
    import obstore

    obstore.put(server.client(), "film.bin", part * (BYTES // len(part)))
    os.environ |= {**CREDENTIALS, "AWS_ENDPOINT_URL": server.url}
    bare = [sys.executable, "-m", "bench.stores"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with ExitStack() as stack:
        servers = stack.enter_context(
            ours.serving(f"s3://{BUCKET}/film.bin", folder / "home", settings=CACHE),
        )
        senders = [stack.enter_context(_sender(bare, server.url)) for _ in range(4)]
        ports = [port for _, port in senders]
        download = [*MSD, "download", *servers.server_flags, "--json", "--force", "-o", "copy"]
        receive = [sys.executable, "-m", "bench.bare", "fetch", "copy", str(BYTES), "8", *ports]
        store, pids = server.pid, [pid for pid, _ in senders]
        sides = [
            Side("msd", download, folder, [store, *servers.pids], parse_seconds=_seconds_of),
            Side("obstore, passed on", receive, folder, [store, *pids], env, float),
            *(
                Side(name, [*bare, "fetch", server.url, str(n), str(run)], folder, [store], env, float)
                for name, n, run in [*zip(BARE, THREADS, (1, 1), strict=True), (IN_RUNS, 8, STORE_RUN_UNITS)]
            ),
        ]
        samples = run_rounds(sides, ROUNDS)
    times = {name: [sample.transfer for sample in values] for name, values in samples.items()}
    print(f"{BYTES / GIB:g} GiB, {ROUNDS} rounds, medians\n{'':28} MiB/s  CPU s/GiB")
    for name, seconds in times.items():
        cpu = statistics.median(sample.cpu for sample in samples[name]) / (BYTES / GIB)
        print(f"{name:28} {BYTES / statistics.median(seconds) / MIB:5.0f} {cpu:10.2f}")
    print(f"rate of msd / rate of {IN_RUNS}: {paired_ratio(times[IN_RUNS], times['msd'])}")
    faster = min(BARE, key=lambda name: statistics.median(times[name]))
    warn_if_noisy(faster, times[faster])
    bounds = [
        Bound(f"rate of msd / rate of {faster}", ratios(times[faster], times["msd"]), 0.8),
        Bound("rate of msd / rate of obstore, passed on", ratios(times["obstore, passed on"], times["msd"]), 0.8),
    ]
    conclude("stores", {"bytes": BYTES, "seconds": times}, bounds)


def _seconds_of(output: str) -> float:
    return float(json.loads(output.splitlines()[-1])["seconds"])


@contextmanager
def _sender(bare: list[str], url: str) -> Iterator[tuple[int, str]]:
    """Starts a process that passes on what it reads; yields its pid and its port."""
    with subprocess.Popen([*bare, "send", url], stdout=subprocess.PIPE, text=True) as sender:
        try:
            assert sender.stdout is not None
            yield sender.pid, sender.stdout.readline().strip()
        finally:
            sender.kill()


def fetch(endpoint: str, threads: int, run: int) -> float:
    """Reads ``run`` segments at a time, hashes each of them, and returns the seconds that it took."""
    read = _reader(endpoint, run)
    with ThreadPoolExecutor(threads) as pool:
        read(0)
        began = time.perf_counter()
        assert sum(map(len, pool.map(read, range(BYTES // SEGMENT // run)))) == BYTES
        return time.perf_counter() - began


def send(endpoint: str) -> None:
    """Prints a port, and answers each number of a segment there with the segment, once it is hashed."""
    read = _reader(endpoint, 1)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, ThreadPoolExecutor(8) as pool:
        print(router.bind_to_random_port("tcp://127.0.0.1"), flush=True)
        done = os.eventfd(0)
        answers: list[tuple[bytes, bytes, Future[bytes]]] = []
        poller = zmq.Poller()
        poller.register(router, zmq.POLLIN)
        poller.register(done, zmq.POLLIN)
        while True:
            for socket, _ in poller.poll():
                if socket is router:
                    client, number = router.recv_multipart()
                    future = pool.submit(read, int(number))
                    answers.append((client, number, future))
                    future.add_done_callback(lambda _: os.eventfd_write(done, 1))
                else:
                    os.eventfd_read(done)
            for answer in [answer for answer in answers if answer[2].done()]:
                answers.remove(answer)
                router.send_multipart([*answer[:2], answer[2].result()], copy=False)


def _reader(endpoint: str, run: int) -> Callable[[int], bytes]:
    """Returns a function that reads and hashes the run of segments with a number."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        BUCKET,
        endpoint=endpoint,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    def read(number: int) -> bytes:
        size = run * SEGMENT
        data = obstore.get_range(store, "film.bin", start=number * size, length=size).to_bytes()
        for start in range(0, size, SEGMENT):
            blake3(memoryview(data)[start : start + SEGMENT]).digest()
        return data

    return read


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["fetch", endpoint, threads, length]:
            print(fetch(endpoint, int(threads), int(length)))
        case ["send", endpoint]:
            send(endpoint)
