"""The downloads of the clients, as the clients report them: a pure core.

A client that ends without a last message is noticed because it becomes silent. A download belongs to the key, or
without keys to the address, from which its first message came: the same session number from another client is another
download. The broker cannot verify what a client reports. Keeps no history: see ``broker/status/access_log.py``.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Hashable, Mapping
from itertools import count

from msgspec import Struct
from msgspec.structs import replace

from msd.broker.status.requested_selections import RequestedSelections
from msd.wire.protocol.messages import DownloadProgress, DownloadStatus, RequestedSelection
from msd.wire.protocol.states import DownloadState
from msd.wire.support.core import Core, Stalled, TimePassed
from msd.wire.support.presentable_names import shortened

#: The maximum number of downloads, and of bytes of their texts: a report of all fits into the header of a message.
MAX_DOWNLOADS = 1024
MAX_SELECTION_BYTES, MAX_NAME_BYTES = 256, 64
#: Seconds without a message after which a download is broken: as many as for a session. Clients send one every two
#: seconds, but none while they compute a checksum or sync the disk.
EXPIRY_S = {DownloadState.DOWNLOADING: 30.0, DownloadState.FINISHING: 3600.0}
#: Seconds without a message after which the last rate is stale: three messages are missing.
SILENT_S = 6.0
#: Seconds of which the rate of a download is the mean, the least time for which it is computed, and the maximum number
#: of messages for which the broker does so. The rates that clients report are those of two seconds: they jump.
RATE_WINDOW_S, MIN_SPAN_S, MAX_RATED = 6.0, 2.0, 8
#: Seconds for which a download that has ended is still reported.
ENDED_KEPT_S = 30.0
#: Seconds between two searches for expired downloads.
CHECK_INTERVAL_S = 1.0
#: Seconds for which operators see the same lists: each has a line for each client, and each operator asks every second.
LISTS_S = 0.5
#: The states after which no message of a download counts.
ENDED = (DownloadState.DONE, DownloadState.BROKEN)


class ProgressReceived(Struct, frozen=True):
    """A client has sent ``progress``. ``sender`` tells clients apart: a key, or the address of a client without one.
    ``key_name`` is the name of its key, empty if it has none; ``host`` is its address.
    """

    progress: DownloadProgress
    sender: Hashable
    key_name: str
    host: str


DownloadsEvent = ProgressReceived | Stalled | TimePassed


class DownloadEnded(Struct, frozen=True):
    """A download is done or broken; ``is_silent`` is True if its client did not say so."""

    download: DownloadStatus
    is_silent: bool = False


class DownloadTotals(Struct, frozen=True):
    """Totals of a broker: downloads that have ended, bytes that clients have received over the network; and at present
    the number of downloads in each state, and of ``receivers`` that pass on what they have.
    """

    done: int = 0
    broken: int = 0
    received_bytes: int = 0
    peer_bytes: int = 0
    states: dict[DownloadState, int] = {}
    receivers: int = 0


class Downloads(Core[DownloadsEvent, DownloadEnded]):
    """The downloads of all clients. Pass ``TimePassed`` often: it ends the downloads of silent clients."""

    def __init__(self) -> None:
        super().__init__()
        #: The downloads of each sender, by session, in the order of their last messages; no sender has none.
        self._downloads: defaultdict[Hashable, OrderedDict[int, _Download]] = defaultdict(OrderedDict)
        #: The ordinals of the running downloads, by the names of their clients; no name has none.
        self._ordinals: defaultdict[str, set[int]] = defaultdict(set)
        self._requested = RequestedSelections()
        #: What ``lists`` has returned last, and until when.
        self._lists: tuple[list[DownloadStatus], list[RequestedSelection]] = ([], [])
        self._lists_until = 0.0
        self._count = 0
        self._last_number = 0
        self._next_check = 0.0
        self._done = self._broken = self._received_bytes = self._peer_bytes = 0

    def next_deadline(self, now: float) -> float | None:  # noqa: ARG002
        return self._next_check if self._count else None

    def statuses(self, now: float) -> list[DownloadStatus]:
        """Returns all downloads: those that have ended last, the others in descending order of their rates."""
        statuses = [d.status(now) for downloads in self._downloads.values() for d in downloads.values()]
        return sorted(statuses, key=lambda status: (status.state in ENDED, -status.rate, status.number))

    def lists(self, now: float) -> tuple[list[DownloadStatus], list[RequestedSelection]]:
        """Returns what operators see: the ``statuses``, and what clients have asked for, the newest first. Both are up
        to ``LISTS_S`` old, but contain each download that has begun or ended.
        """
        if now >= self._lists_until:
            self._lists = self.statuses(now), self._requested.latest()
            self._lists_until = now + LISTS_S
        return self._lists

    @property
    def names(self) -> Mapping[int, str]:
        """The names of the clients, by session."""
        return {session: d.client for downloads in self._downloads.values() for session, d in downloads.items()}

    def client_of(self, sender: Hashable) -> str:
        """Returns the name of the client that ``sender`` is; empty if it is not known, or if there are several at the
        same address.
        """
        names = {download.name for download in self._downloads.get(sender, {}).values()}
        return names.pop() if len(names) == 1 else ""

    @property
    def totals(self) -> DownloadTotals:
        states = dict.fromkeys(DownloadState, 0)
        for downloads in self._downloads.values():
            for download in downloads.values():
                states[download.progress.state] += 1
        running = {state: count for state, count in states.items() if state not in ENDED}
        return DownloadTotals(self._done, self._broken, self._received_bytes, self._peer_bytes, running)

    def _decide(self, event: DownloadsEvent, now: float) -> list[DownloadEnded]:
        match event:
            case ProgressReceived():
                return self._on_progress(event, now)
            case Stalled(seconds):
                # Messages that arrived during a stall of the broker are not read yet.
                for downloads in self._downloads.values():
                    for download in downloads.values():
                        download.heard_at += seconds
            case TimePassed() if now >= self._next_check:
                self._next_check = now + CHECK_INTERVAL_S
                return self._end_silent(now)
        return []

    def _assert_invariants(self) -> None:
        assert all(self._downloads.values())
        assert self._count == sum(map(len, self._downloads.values())) <= MAX_DOWNLOADS
        all_downloads = [d for downloads in self._downloads.values() for d in downloads.values()]
        running = sorted((d.name, d.ordinal) for d in all_downloads if d.is_running)
        assert running == sorted((name, each) for name, taken in self._ordinals.items() for each in taken)
        assert all(self._ordinals.values())
        for download in all_downloads:
            assert len(download.progress.selection.encode()) <= MAX_SELECTION_BYTES
            assert len(download.client.encode()) <= MAX_NAME_BYTES
            assert 0 < download.number <= self._last_number

    def _on_progress(self, event: ProgressReceived, now: float) -> list[DownloadEnded]:
        progress, downloads = event.progress, self._downloads[event.sender]
        download = downloads.get(progress.session)
        if download is None:
            self._count += 1
            self._last_number += 1
            self._lists_until = 0.0
            name = shortened(event.key_name or progress.name or event.host, MAX_NAME_BYTES)
            download = downloads[progress.session] = _Download(
                self._last_number, name, self._take_ordinal(name), event, now
            )
            self._requested.on_download(download.progress.selection)
            more = progress.received
            self._forget_excess()
        elif download.progress.state in ENDED:
            return []
        else:
            more = max(0, progress.received - download.progress.received)
            self._received_bytes -= min(download.progress.received, progress.received)
            self._peer_bytes -= min(download.progress.peer_bytes, progress.peer_bytes)
            download.update(progress, now)
            downloads.move_to_end(progress.session)
        self._requested.on_received(download.progress.selection, more)
        self._received_bytes += progress.received
        self._peer_bytes += progress.peer_bytes
        return [self._end(download, now)] if progress.state in ENDED else []

    def _take_ordinal(self, name: str) -> int:
        """Takes the least number that no running download of a client with this name has."""
        taken = self._ordinals[name]
        ordinal = next(ordinal for ordinal in count(1) if ordinal not in taken)
        taken.add(ordinal)
        return ordinal

    def _release_ordinal(self, download: _Download) -> None:
        self._ordinals[download.name].remove(download.ordinal)
        if not self._ordinals[download.name]:
            del self._ordinals[download.name]

    def _end(self, download: _Download, now: float, *, is_silent: bool = False) -> DownloadEnded:
        self._lists_until = 0.0
        self._release_ordinal(download)
        if download.progress.state is DownloadState.DONE:
            self._done += 1
        else:
            self._broken += 1
        return DownloadEnded(download.status(now), is_silent)

    def _end_silent(self, now: float) -> list[DownloadEnded]:
        """Forgets the downloads of which nothing was heard for too long."""
        ended = []
        for sender, downloads in [*self._downloads.items()]:
            for session, download in [*downloads.items()]:
                state = download.progress.state
                if now - download.heard_at < EXPIRY_S.get(state, ENDED_KEPT_S):
                    continue
                if state not in ENDED:
                    download.update(replace(download.progress, state=DownloadState.BROKEN), download.heard_at)
                    ended.append(self._end(download, now, is_silent=True))
                self._forget(sender, session)
        return ended

    def _forget_excess(self) -> None:
        """If there is a download too many, forgets one of the client with most downloads."""
        if self._count > MAX_DOWNLOADS:
            sender, downloads = max(self._downloads.items(), key=lambda item: (len(item[1]), -_first(item[1]).heard_at))
            self._forget(sender, next(iter(downloads)))

    def _forget(self, sender: Hashable, session: int) -> None:
        downloads = self._downloads[sender]
        download = downloads.pop(session)
        if download.is_running:
            self._release_ordinal(download)
        self._count -= 1
        if not downloads:
            del self._downloads[sender]


class _Download:
    """A download: its number, its client, the last message, and when that arrived. ``ordinal`` tells running downloads
    of clients with the same ``name`` apart: clients that use the same link have the same key.
    """

    __slots__ = ("_received", "client", "heard_at", "host", "name", "number", "ordinal", "progress", "rate")

    def __init__(self, number: int, name: str, ordinal: int, event: ProgressReceived, now: float) -> None:
        self.number = number
        self.name = name
        self.ordinal = ordinal
        suffix = f"#{ordinal}" if ordinal > 1 else ""
        self.client = shortened(name, MAX_NAME_BYTES - len(suffix)) + suffix
        self.host = event.host
        #: The seconds and the bytes received in the last messages, by the client's own clock: a stall of the broker
        #: does not matter. The first entry is where the window begins.
        self._received: deque[tuple[float, int]] = deque(maxlen=MAX_RATED)
        if event.progress.seconds <= RATE_WINDOW_S:
            self._received.append((0.0, 0))
        self.update(event.progress, now)

    @property
    def is_running(self) -> bool:
        return self.progress.state not in ENDED

    def update(self, progress: DownloadProgress, now: float) -> None:
        selection = shortened(progress.selection, MAX_SELECTION_BYTES)
        self.progress = progress if selection == progress.selection else replace(progress, selection=selection)
        self.heard_at = now
        self.rate = self._new_rate()

    def _new_rate(self) -> float:
        """Returns the rate after a message: what the client says if the broker knows too little."""
        progress, received = self.progress, self._received
        if received and (progress.seconds < received[-1][0] or progress.received < received[-1][1]):
            received.clear()
        received.append((progress.seconds, progress.received))
        while len(received) > 2 and received[1][0] <= progress.seconds - RATE_WINDOW_S:
            received.popleft()
        (start, first), (end, last) = received[0], received[-1]
        # In its last message a client reports the mean of the whole download. Some clients report no time or no bytes.
        if progress.state in ENDED or end == start or not last:
            return progress.rate
        return (last - first) / max(end - start, MIN_SPAN_S)

    def status(self, now: float) -> DownloadStatus:
        # Named one by one: this takes a quarter of the time of a copy through a dictionary, for each client and report.
        progress = self.progress
        silent_seconds = max(0.0, now - self.heard_at)
        is_stale = silent_seconds >= SILENT_S and progress.state not in ENDED
        return DownloadStatus(
            number=self.number,
            client=self.client,
            host=self.host,
            state=progress.state,
            selection=progress.selection,
            bytes=progress.bytes,
            total=progress.total,
            received=progress.received,
            files=progress.files,
            rate=0.0 if is_stale else self.rate,
            seconds=progress.seconds,
            workers=progress.workers,
            peers=progress.peers,
            peer_bytes=progress.peer_bytes,
            passes_on=progress.passes_on,
            exit_code=progress.exit_code,
            silent_seconds=silent_seconds,
        )


def _first(downloads: OrderedDict[int, _Download]) -> _Download:
    return next(iter(downloads.values()))
