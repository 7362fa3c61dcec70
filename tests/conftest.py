"""Fixtures for all tests: leak detection, a printed random seed, servers, files, folders."""

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
from hypothesis import settings

from tests.processes import Serve, Source, System, make_file, port_slot
from tests.terminal import OnTerminal, Terminal

#: Seconds that a test's threads and processes may take to end before they count as leaked.
LEAK_TIMEOUT = 5.0


def pytest_configure(config: pytest.Config) -> None:
    # Shells start background jobs with SIGINT ignored, and the processes that the tests start would inherit this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seed = int(os.environ.get("MSD_SEED") or random.SystemRandom().randrange(2**32))
    # pytest-xdist workers inherit the seed.
    os.environ["MSD_SEED"] = str(seed)
    config.stash[SEED] = seed
    random.seed(seed)
    # An example takes longer on a busy machine.
    settings.register_profile("msd", deadline=None)
    settings.load_profile("msd")


def pytest_collection_finish() -> None:
    # The tests live until the end: the collector need not look at them again and again.
    gc.collect()
    gc.freeze()


SEED = pytest.StashKey[int]()


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: MSD_SEED={config.stash[SEED]}"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """A random generator derived from the printed seed, different for each test."""
    return random.Random(f"{request.config.stash[SEED]} {request.node.nodeid}")


@pytest.fixture(scope="session", autouse=True)
def _zero_copy_thread() -> None:
    """Starts pyzmq's zero-copy thread now, because it runs until the process exits and must not count as a leak."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as sender, context.socket(zmq.PAIR) as receiver:
        sender.bind("inproc://warm-up")
        receiver.connect("inproc://warm-up")
        sender.send(bytes(1 << 20), copy=False)
        receiver.recv()
    # ``_resources`` recognizes ZeroMQ threads by name. Wait until pyzmq has named both of its threads.
    deadline = time.monotonic() + LEAK_TIMEOUT
    while _resources()["ZeroMQ threads"] != 2:
        assert time.monotonic() < deadline


@pytest.fixture(scope="session", autouse=True)
def _port_slot() -> None:
    """Opens the socket that claims a range of ports now, because it stays open and must not count as a leak."""
    port_slot()


@pytest.fixture(autouse=True)
def _no_leaks(_zero_copy_thread: None, _port_slot: None) -> Iterator[None]:
    """Fails a test that leaks a process, a thread (including ZeroMQ's), a socket or the watch of a part file."""
    before = _resources()
    yield
    deadline = time.monotonic() + LEAK_TIMEOUT
    while leaked := _resources() - before:
        if time.monotonic() > deadline:
            pytest.fail(f"leaked: {dict(leaked)}")
        gc.collect()
        time.sleep(0.01)  # Threads and processes may still be ending.


def _resources() -> Counter[str]:
    """Counts the child processes, threads, ZeroMQ threads, sockets and watched files of this process."""
    counts: Counter[str] = Counter()
    for task in Path("/proc/self/task").iterdir():
        try:
            children = (task / "children").read_text().split()
            name = (task / "comm").read_text().strip()
        except OSError:
            continue
        counts["processes"] += len(children)
        counts["ZeroMQ threads"] += name.startswith("ZMQ")
    counts["threads"] = threading.active_count()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(fd)
        except OSError:
            continue
        counts["sockets"] += target.startswith("socket:")
        counts["watched files"] += target == "anon_inode:inotify"
    return counts


@pytest.fixture
def serve(runtime_folder: Path) -> Iterator[Serve]:
    """A function that starts servers for a path and waits until they are ready. Stops them after the test."""
    with ExitStack() as stack:

        def start(path: Path, *arguments: str, **options: Any) -> System:
            return stack.enter_context(System(path, *arguments, **options)).wait_until_ready()

        yield start


@pytest.fixture
def on_terminal(runtime_folder: Path) -> Iterator[OnTerminal]:
    """A function that starts a command on a terminal. The commands are ended after the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(Terminal(*arguments, **options))


@pytest.fixture
def source(tmp_path: Path, rng: random.Random) -> Source:
    """A function that creates a shared file of ``size`` random bytes."""
    return lambda size: make_file(tmp_path / "shared" / "film.bin", size, rng)


@pytest.fixture
def runtime_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Private runtime and cache folders. The runtime folder has a short path, because Unix socket paths have a
    length limit.
    """
    folder = Path(tempfile.mkdtemp(prefix="msd-t-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield folder
    shutil.rmtree(folder)
