"""``python -m msd.workers``: the entry point of the processes that the broker starts.

``index FOLDER`` reads from FOLDER what is shared, keeps a catalogue of it in FOLDER up to date until standard input is
closed, and prints its progress, one JSON object per line. ``serve`` reads its settings from standard input and serves
until standard input is closed. ``pass-on`` does so for a download that passes on what it receives. If an error occurs,
all print one line to standard error and exit with a code from ``wire/errors.py``.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from pathlib import Path

import msgspec

from msd.wire.errors import DiskError, MsdError
from msd.wire.protocol.child_messages import IndexLine, IndexNote, WorkerSettings
from msd.wire.protocol.codec import decode

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["index", folder]:
                _index(Path(folder))
            case ["serve"]:
                _serve()
            case ["pass-on"]:
                _pass_on()
            case _:
                print("workers: internal command: run msd serve instead", file=sys.stderr)
                return 2
    except MsdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _index(folder: Path) -> None:
    from msd.workers.indexing.digest_cache import DigestCache
    from msd.workers.indexing.indexer import keep_indexed
    from msd.workers.source.share import Share

    _die_with_parent(os.getppid())

    def print_line(line: IndexLine) -> None:
        os.write(1, msgspec.json.encode(line) + b"\n")

    try:
        share = Share.read(folder)
    except OSError as error:
        raise DiskError(f"{folder}: cannot read what is shared: {error.strerror}: start msd serve again") from None
    cache = DigestCache(cache_path(folder).absolute(), lambda text: print_line(IndexNote(text=text)))
    _leave_current_folder()
    keep_indexed(share, folder, cache, print_line)


def cache_path(folder: Path) -> Path:
    """Returns the path of the database that caches digests between runs.

    If the user has no home folder (a container with an arbitrary uid), it is inside the catalogue's ``folder``, which
    is deleted at the end of the run.
    """
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home, "msd", "digests.sqlite")
    try:
        return Path.home() / ".cache" / "msd" / "digests.sqlite"
    except RuntimeError:
        return folder / "digests.sqlite"


def _serve() -> None:
    import zmq

    from msd.wire.net.poll_loop import PollLoop
    from msd.wire.net.sockets import raise_descriptor_limit
    from msd.wire.support.malloc import keep_freed_memory
    from msd.wire.support.signal_fd import SignalDescriptor
    from msd.workers.serving.broker_connection import LocalBroker
    from msd.workers.serving.worker import Worker

    (length,) = struct.unpack("!I", os.read(0, 4))
    settings = decode(os.read(0, length), WorkerSettings)
    _leave_current_folder()
    _die_with_parent(settings.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_descriptor_limit()
    keep_freed_memory()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    poll_loop = PollLoop()
    worker = Worker(context, settings, LocalBroker(context, settings.control), poll_loop)
    # Standard input becomes readable when the broker exits.
    poll_loop.register(sys.stdin.fileno(), worker.stop)
    signals = SignalDescriptor(signal.SIGTERM)
    poll_loop.register(signals.fileno(), worker.stop)
    worker.run()
    context.term()
    worker.close()


def _pass_on() -> None:
    from msd.workers.passing_on.frames import FrameReader
    from msd.workers.passing_on.passing_worker import read_settings, run

    reader = FrameReader(sys.stdin.fileno())
    settings = read_settings(reader)
    _leave_current_folder()
    _die_with_parent(settings.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run(settings, reader)


def _leave_current_folder() -> None:
    """The current folder of a process keeps its file system mounted."""
    os.chdir("/")


def _die_with_parent(parent: int) -> None:
    """Makes the kernel kill this process when the broker exits for any reason. Uses SIGKILL because a suspended process
    does not react to any other signal.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
