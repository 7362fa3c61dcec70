"""Fixtures for all tests: what a test leaves behind fails it, and the seed is printed."""

from __future__ import annotations

import gc
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.system import Serve, Source, System, make_file

#: Seconds a test's threads and processes have to go away.
GRACE = 5.0


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts a command in the background has it ignore SIGINT; what the tests start
    # would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seed = int(os.environ.get("MSD_SEED") or random.SystemRandom().randrange(2**32))
    # For those who run tests beside this process.
    os.environ["MSD_SEED"] = str(seed)
    config.stash[SEED] = seed
    random.seed(seed)


SEED = pytest.StashKey[int]()


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: MSD_SEED={config.stash[SEED]}"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers that the printed seed repeats, different for each test."""
    return random.Random(f"{request.config.stash[SEED]} {request.node.nodeid}")


@pytest.fixture(scope="session", autouse=True)
def _zero_copy_thread() -> None:
    """Starts pyzmq's own thread for zero-copy sends, which lives as long as the process."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as other:
        one.bind("inproc://warm-up")
        other.connect("inproc://warm-up")
        one.send(bytes(1 << 20), copy=False)
        other.recv()
    # Its threads (an I/O thread and a reaper) count from when they have their names.
    deadline = time.monotonic() + GRACE
    while _held()["ZeroMQ threads"] != 2:
        assert time.monotonic() < deadline


@pytest.fixture(autouse=True)
def _nothing_left_behind(_zero_copy_thread: None) -> Iterator[None]:
    """Fails a test that leaks a process, a thread (ZeroMQ's included) or a socket."""
    before = _held()
    yield
    deadline = time.monotonic() + GRACE
    while leaked := _held() - before:
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {dict(leaked)}")
        gc.collect()
        time.sleep(0.01)  # Not for the test's sake: what ends by itself is given its time.


def _held() -> Counter[str]:
    """What this process holds, by kind."""
    held: Counter[str] = Counter()
    for task in Path("/proc/self/task").iterdir():
        try:
            children = (task / "children").read_text().split()
            name = (task / "comm").read_text().strip()
        except OSError:
            continue
        held["processes"] += len(children)
        held["ZeroMQ threads"] += name.startswith("ZMQ")
    held["threads"] = threading.active_count()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            held["sockets"] += os.readlink(fd).startswith("socket:")
        except OSError:
            continue
    return held


@pytest.fixture
def serve(runtime_folder: Path) -> Iterator[Serve]:
    """Starts servers for a path and waits until they are ready; ends them after the test."""
    with ExitStack() as stack:

        def start(path: Path, *arguments: str, **options: Any) -> System:
            return stack.enter_context(System(path, *arguments, **options)).wait_until_ready()

        yield start


@pytest.fixture
def source(tmp_path: Path, rng: random.Random) -> Source:
    """Makes a file of so many bytes of noise to be shared."""
    return lambda size: make_file(tmp_path / "shared" / "film.bin", size, rng)


@pytest.fixture
def runtime_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Folders of its own for the broker and the cache; short, for the sake of Unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="msd-t-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield folder
    shutil.rmtree(folder)
