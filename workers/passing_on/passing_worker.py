"""``python -m msd.workers pass-on``: serves what a download has verified so far, until the download ends.

The download is the parent process. ``workers/serving/worker.py`` serves the files, as for any worker; the catalogue is
that of the files that the download receives.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import sys
import tempfile
from pathlib import Path

import msgspec
import zmq

from msd.wire.net.poll_loop import PollLoop
from msd.wire.net.sockets import raise_descriptor_limit
from msd.wire.protocol.child_messages import PassedFile, PassOnSettings, WorkerSettings
from msd.wire.support.malloc import keep_freed_memory
from msd.wire.support.signal_fd import SignalDescriptor
from msd.workers.indexing.edition_writer import EditionWriter
from msd.workers.passing_on.client_connection import ClientConnection
from msd.workers.passing_on.holdings import Holdings
from msd.workers.passing_on.part_files import PartFiles
from msd.workers.serving.worker import Worker
from msd.workers.source.catalogue import SharedFile, Version


def run(settings: PassOnSettings) -> None:
    """Serves until standard input ends or SIGTERM arrives. Raises ``MsdError`` and ``OSError``."""
    source = PartFiles({file.name: file.fd for file in settings.files})
    # Unit N of a plan that consists of segments.
    units = [(file.name, index) for file in settings.files for index in range(_shared(file).segments)]
    raise_descriptor_limit()
    keep_freed_memory()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    poll_loop = PollLoop()

    def on_held(numbers: list[int]) -> None:
        for number in numbers:
            source.add(*units[number])
            holdings.add(number)

    holdings = Holdings(settings.plan)
    connection = ClientConnection(0, 1, on_held, lambda: worker.stop())  # noqa: PLW0108
    folder = Path(tempfile.mkdtemp(prefix="msd-pass-on-"))
    try:
        _write_edition(folder, settings.files)
        worker = Worker(
            context,
            WorkerSettings(
                name="receiver",
                number=None,
                parent=0,
                bind=settings.bind,
                token=b"",
                catalogue=str(folder),
                edition=1,
                rate=settings.rate,
                wanted=None,
                endpoint=settings.bind,
                secret=settings.secret,
            ),
            connection,
            poll_loop,
            source=source,
            holdings=holdings,
        )
    finally:
        # The catalogue is in memory now, and its files are open.
        shutil.rmtree(folder, ignore_errors=True)
    signals = SignalDescriptor(signal.SIGTERM)
    poll_loop.register(signals.fileno(), worker.stop)
    worker.run()
    context.term()
    worker.close()


def read_settings() -> PassOnSettings:
    """Reads the settings from standard input."""
    (length,) = struct.unpack("!I", _read(4))
    return msgspec.msgpack.decode(_read(length), type=PassOnSettings)


def _read(length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = os.read(0, length - len(data))
        if not more:
            sys.exit(1)
        data += more
    return data


def _write_edition(folder: Path, files: list[PassedFile]) -> None:
    (folder / "1").mkdir()
    with EditionWriter(folder / "1") as writer:
        for file in sorted(files, key=lambda file: file.name):
            shared = _shared(file)
            writer.add(file.name, shared.record, b"" if shared.is_small else file.digests)
        writer.finish()


def _shared(file: PassedFile) -> SharedFile:
    return SharedFile(file.name, Version(0, 0, file.size, file.mtime_ns, 0, file.mode), file.id)
