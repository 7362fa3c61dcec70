"""``python -m msd.workers pass-on``: serves what a download has verified so far, until the download ends.

The download is the parent process. ``workers/serving/worker.py`` serves the files, as for any worker; the catalogue is
that of the files that the download receives.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import zmq

from msd.wire.net.poll_loop import PollLoop
from msd.wire.net.sockets import raise_descriptor_limit
from msd.wire.protocol.child_messages import FileReceived, FilesListed, PassOnSettings, WorkerSettings
from msd.wire.protocol.messages import Entry
from msd.wire.support.malloc import keep_freed_memory
from msd.wire.support.signal_fd import SignalDescriptor
from msd.workers.indexing.edition_writer import EditionWriter
from msd.workers.passing_on.client_connection import ClientConnection
from msd.workers.passing_on.frames import FrameReader
from msd.workers.passing_on.holdings import Holdings
from msd.workers.passing_on.received_files import ReceivedFiles
from msd.workers.serving.worker import Worker
from msd.workers.source.catalogue import SharedFile, Version


def run(settings: PassOnSettings, reader: FrameReader) -> None:
    """Serves until ``reader`` ends or SIGTERM arrives. Raises ``MsdError`` and ``OSError``."""
    entries = [*_read_entries(reader)]
    raise_descriptor_limit()
    keep_freed_memory()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    poll_loop = PollLoop()
    holdings = Holdings(settings.plan)
    source = ReceivedFiles(settings.folder, holdings.has)

    def on_file(file: FileReceived, descriptors: list[int]) -> None:
        source.add(file.name, file.first_unit, file.digests, descriptors)

    def on_held(units: list[int]) -> None:
        for unit in units:
            holdings.add(unit)

    connection = ClientConnection(
        reader,
        1,
        on_file=on_file,
        on_held=on_held,
        on_end=lambda: worker.stop(),  # noqa: PLW0108
    )
    folder = Path(tempfile.mkdtemp(prefix="msd-pass-on-"))
    try:
        _write_edition(folder, entries)
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


def read_settings(reader: FrameReader) -> PassOnSettings:
    """Returns the settings, the first frame. Ends this process if the download ends before."""
    return msgspec.msgpack.decode(_next_frame(reader), type=PassOnSettings)


def _read_entries(reader: FrameReader) -> Iterator[Entry]:
    more = True
    while more:
        listed = msgspec.msgpack.decode(_next_frame(reader), type=FilesListed)
        yield from listed.entries
        more = listed.more


def _next_frame(reader: FrameReader) -> bytes:
    while (frame := next(reader.frames(), None)) is None:
        if not reader.read():
            sys.exit(1)
    return frame


def _write_edition(folder: Path, entries: list[Entry]) -> None:
    (folder / "1").mkdir()
    with EditionWriter(folder / "1") as writer:
        for entry in sorted(entries, key=lambda entry: entry.name):
            version = Version(0, 0, entry.size, entry.mtime_ns, 0, entry.mode)
            # The source has the digests of the segments.
            writer.add(entry.name, SharedFile(entry.name, version, entry.id or b"").record)
        writer.finish()
