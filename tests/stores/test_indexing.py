"""How stores are indexed: once, and after an interruption only what is left."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.processes import MIB, Serve, System, wait_for
from tests.stores.conftest import Bucket
from tests.stores.failing_proxy import Answer, Forward, Request
from tests.stores.test_downloads import descendants

pytestmark = pytest.mark.stores


def test_a_second_start_reads_nothing(bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    bucket.put("film.bin", rng.randbytes(3 * MIB))
    bucket.put("text", b"text")
    with System(bucket.url()) as first:
        first.wait_until_ready()
    assert bucket.proxy.bytes_of_objects == 3 * MIB + 4
    bucket.proxy.exchanges.clear()
    system = serve(bucket.url())
    assert bucket.proxy.bytes_of_objects == 0
    with system.download("film.bin", "-o", str(tmp_path / "copy")) as download:
        download.wait_until_done()


def test_an_object_that_is_new_or_replaced_is_read_alone(
    bucket: Bucket, serve: Serve, runtime_folder: Path, rng: random.Random
) -> None:
    for name in "abc":
        bucket.put(name, rng.randbytes(MIB))
    with System(bucket.url()) as first:
        first.wait_until_ready()
    bucket.put("b", rng.randbytes(2 * MIB))
    bucket.put("d", rng.randbytes(MIB // 2))
    bucket.proxy.exchanges.clear()
    system = serve(bucket.url())
    assert system.shared() == {"a": MIB, "b": 2 * MIB, "c": MIB, "d": MIB // 2}
    assert bucket.proxy.bytes_of_objects == 2 * MIB + MIB // 2


def test_after_kill_only_what_was_not_indexed_is_read(
    bucket: Bucket, runtime_folder: Path, serve: Serve, rng: random.Random
) -> None:
    """The digests of objects are kept every two seconds."""
    bucket.put_all({f"{n:04}": rng.randbytes(2000) for n in range(600)})
    early = 0

    def slow(request: Request, forward: Forward) -> Answer:
        time.sleep(0.3)
        return forward(request)

    bucket.proxy.fault = slow
    with System(bucket.url()) as first:
        wait_for("a batch of reads", lambda: len(bucket.proxy.reads()) > 150)
        early, until = len(bucket.proxy.reads()), time.monotonic() + 3.0
        wait_for("three seconds", lambda: time.monotonic() > until)
        pids = descendants(first)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    wait_for("the end of all processes", lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    bucket.proxy.release()
    before = len(bucket.proxy.reads())
    assert before < 600
    system = serve(bucket.url())
    assert len(system.shared()) == 600
    # Reads that had begun early may have ended later.
    assert len(bucket.proxy.reads()) - before <= 600 - early + 32
