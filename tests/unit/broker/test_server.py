"""The broker's event loop with fake processes and sockets. Real servers are tested in tests/integration."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from msd.broker import server
from msd.broker.network.control_socket import Route, Sender
from msd.broker.server import Broker
from msd.broker.supervision import shared_files, until_done
from msd.broker.supervision.supervisor import FORGET_AFTER_S
from msd.broker.supervision.supervisor_events import Event, Exited, QuitReceived
from msd.broker.terminal.output_thread import OutputThread
from msd.wire.config.settings import Config, WorkerConfig
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.child_messages import Indexed
from msd.wire.protocol.messages import (
    Accepted,
    Admitted,
    Complaint,
    ControlRequest,
    Done,
    DownloadProgress,
    Heartbeat,
    Join,
    Joined,
    JoinOrder,
    Load,
    Message,
    Order,
    Quit,
    QuitOrder,
    Reached,
    Rejected,
    ServedSession,
    Status,
    StatusReport,
    StatusRequest,
    SuspectSegment,
    Toggle,
)
from msd.wire.protocol.states import DownloadState, ReportedState, WantedState, WorkerState
from msd.wire.security.keys import SERVER, Role
from msd.wire.support.core import Stalled, TimePassed
from tests.processes import free_ports, is_free

OPERATOR, CLIENT, WORKER = (Sender(role, b"", "127.0.0.1") for role in (Role.OPERATOR, Role.CLIENT, Role.WORKER))


class FakeListeners:
    """Yields the requests in ``inbox``; records the published snapshots and the messages sent to each peer."""

    def __init__(self, context: object, config: Config, poll_loop: PollLoop, **callbacks: object) -> None:
        self.keys = None
        self.malformed_messages = self.rejected_connections = 0
        self.inbox: list[tuple[bytes, Sender, ControlRequest]] = []
        self.sent: list[tuple[bytes, Message]] = []
        self.published: list[Status] = []
        self.is_closed = False

    def open_local_control(self, folder: Path) -> str:
        return f"ipc://{folder}/control"

    def restore_local_control(self) -> None: ...

    def requests(self) -> Iterator[tuple[Route, Sender, ControlRequest]]:
        while self.inbox:
            ident, sender, request = self.inbox.pop(0)
            socket: Any = self
            yield Route(socket, ident), sender, request

    def send(self, ident: bytes, message: Message) -> None:
        self.sent.append((ident, message))

    def publish(self, status: Status) -> None:
        self.published.append(status)

    def check_keys(self, now: float) -> None: ...

    def admitted(self) -> Admitted:
        return Admitted(digest=b"1", keys=[])

    def close(self) -> None:
        self.is_closed = True


class FakeReaching:
    """Records the attempts to reach a worker."""

    def __init__(self, *_: object) -> None:
        self.attempts: list[tuple[object, Endpoint, bytes]] = []

    def start(self, name: object, endpoint: Endpoint, key: bytes, is_right: object) -> None:
        self.attempts.append((name, endpoint, key))

    def pass_time(self, now: float) -> None: ...

    def next_deadline(self, now: float) -> None: ...

    def close(self) -> None: ...


class FakeProcesses:
    """Pretends to start worker N with the pid 100 + N, or raises ``error`` if it is set."""

    def __init__(self, config: Config, folder: Path, control: str, token: bytes, keys: object) -> None:
        self.token = token
        self.spawned: list[tuple[int, WantedState, int]] = []
        self.error: OSError | None = None
        self.abandoned: list[int] = []

    def spawn(self, number: int, wanted: WantedState, edition: int) -> int:
        self.spawned.append((number, wanted, edition))
        if self.error is not None:
            raise self.error
        return 100 + number

    def kill(self, number: int) -> None: ...

    def close(self) -> None: ...


class FakeIndexer:
    """Completes an edition when the test calls ``complete``."""

    def __init__(
        self, folder: Path, poll_loop: PollLoop, *, on_edition: Callable[[Indexed], None], **_: object
    ) -> None:
        self.latest = Indexed(files=0, size=0, hashed=0, catalogue="")
        self.progress: int | None = None
        #: The suspect segment of each requested scan.
        self.rescans: list[SuspectSegment | None] = []
        self._on_edition = on_edition

    def complete(self, indexed: Indexed) -> None:
        self.latest = indexed
        self._on_edition(indexed)

    def request_rescan(self, suspect: SuspectSegment | None) -> None:
        self.rescans.append(suspect)

    def pass_time(self, now: float) -> None: ...

    def next_deadline(self, now: float) -> float | None:
        return None

    def close(self) -> None: ...


class FakeConsole:
    def __init__(self, *_: object, **callbacks: object) -> None:
        self.shown: list[Status] = []

    def show(self, status: Status, key: bytes | None) -> None:
        self.shown.append(status)

    def show_event(self, text: str, *, is_failure: bool) -> None: ...

    def on_child_exit(self) -> None: ...

    def check_foreground(self) -> None: ...

    def close(self) -> None: ...


class Harness:
    """A broker with two workers, and its fake listeners, processes and indexer."""

    def __init__(self, config: Config, output: OutputThread, *, until_done: bool = False) -> None:
        self.broker = Broker(config, output, until_done=until_done)
        fakes: Any = self.broker
        self.listeners: FakeListeners = fakes._listeners
        self.processes: FakeProcesses = fakes._processes
        self.indexer: FakeIndexer = fakes._shared_files._indexer
        self.reaching: FakeReaching = fakes._reaching

    def complete_edition(self, edition: int = 1, files: int = 1) -> None:
        self.indexer.complete(Indexed(files=files, size=9, hashed=9, catalogue=f"{edition:02}" * 32, edition=edition))

    def receive(self, request: ControlRequest, ident: bytes = b"peer", sender: Sender = OPERATOR) -> list[Message]:
        """Handles a request; returns the messages sent to its sender."""
        self.listeners.sent.clear()
        self.listeners.inbox.append((ident, sender, request))
        self.broker._on_requests_readable()
        return [message for peer, message in self.listeners.sent if peer == ident]

    def heartbeat(
        self,
        number: int,
        state: ReportedState = ReportedState.AWAKE,
        *,
        edition: int = 1,
        stale: bool = False,
        suspect: SuspectSegment | None = None,
        sessions: Sequence[int] = (),
        served: Sequence[ServedSession] = (),
    ) -> list[Message]:
        """Handles a worker's heartbeat; returns the orders sent to the worker."""
        heartbeat = Heartbeat(
            number=number,
            epoch=7,
            state=state,
            edition=edition,
            load=Load(stale=stale),
            suspect=suspect,
            sessions=[*sessions],
            served=[*served],
        )
        return self.receive(heartbeat, b"worker %d" % number, WORKER)

    def join(self, number: int, *, token: bytes | None = None) -> list[Message]:
        """Handles the join of a worker's process; returns the replies."""
        join = Join(
            rid=5, name=str(number), epoch=7, token=self.processes.token if token is None else token, pid=100 + number
        )
        return self.receive(join, b"worker %d" % number, WORKER)

    def start(self) -> None:
        """Completes edition 1; both workers join, send a heartbeat and are awake, with edition 1."""
        self.complete_edition()
        for number in (1, 2):
            self.join(number)
            self.heartbeat(number)

    @property
    def status(self) -> Status:
        """The status that an operator receives."""
        (report,) = self.receive(StatusRequest(rid=1))
        assert isinstance(report, StatusReport)
        return report.status


@pytest.fixture
def config(tmp_path: Path, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    for name, fake in (
        ("Listeners", FakeListeners),
        ("Reaching", FakeReaching),
        ("WorkerProcesses", FakeProcesses),
        ("LocalConsole", FakeConsole),
    ):
        monkeypatch.setattr(server, name, fake)
    monkeypatch.setattr(shared_files, "IndexerSupervisor", FakeIndexer)
    *ports, status, control = free_ports()
    workers = tuple(WorkerConfig(Endpoint("127.0.0.1", port)) for port in ports[:2])
    return Config(paths=(tmp_path,), status_port=status, control_port=control, workers=workers)


@pytest.fixture
def output() -> Iterator[OutputThread]:
    with Path(os.devnull).open("wb") as null, closing(OutputThread(null.fileno())) as output:
        yield output


@pytest.fixture
def harness(config: Config, output: OutputThread) -> Iterator[Harness]:
    harness = Harness(config, output)
    yield harness
    harness.broker.close()


def states(harness: Harness) -> list[WorkerState]:
    return [worker.state for worker in harness.status.workers]


# Starting.


def test_a_broker_without_a_path_to_share_is_not_started(config: Config, output: OutputThread) -> None:
    with pytest.raises(UsageError, match="nothing to share"):
        Broker(replace(config, paths=()), output)


def test_a_broker_whose_path_does_not_exist_is_not_started(
    config: Config, output: OutputThread, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no such file or folder to share"):
        Broker(replace(config, paths=(tmp_path / "missing",)), output)


def test_a_start_that_fails_releases_everything(
    config: Config, output: OutputThread, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> FakeIndexer:
        raise OSError(12, "Cannot allocate memory")

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(shared_files, "IndexerSupervisor", fail)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        Broker(config, output)
    assert [*runtime_folder.iterdir()] == []
    assert signal.getsignal(signal.SIGTERM) == handler
    assert all(is_free(worker.endpoint.port) for worker in config.workers)


def test_the_first_edition_is_published_and_spawns_the_workers(harness: Harness) -> None:
    harness.complete_edition(files=3)
    assert harness.processes.spawned == [(number, WantedState.AWAKE, 1) for number in (1, 2)]
    assert (harness.status.files, harness.status.catalogue) == (3, bytes.fromhex("01" * 32))


def test_the_progress_of_the_indexer_is_published(harness: Harness) -> None:
    assert harness.status.indexing is None
    harness.indexer.progress = 7
    assert harness.status.indexing == 7


def test_a_worker_that_cannot_be_started_is_dead(harness: Harness) -> None:
    harness.processes.error = OSError(12, "Cannot allocate memory")
    harness.complete_edition()
    assert {(worker.state, worker.reason) for worker in harness.status.workers} == {
        (WorkerState.DEAD, "cannot start: Cannot allocate memory")
    }


# Heartbeats.


def test_a_heartbeat_changes_the_state_and_is_published(harness: Harness) -> None:
    harness.complete_edition()
    harness.join(2)
    harness.heartbeat(2)
    assert states(harness) == [WorkerState.STARTING, WorkerState.AWAKE]
    assert harness.listeners.published[-1].workers[1].state is WorkerState.AWAKE


def test_a_process_that_joins_receives_its_number_and_its_order(harness: Harness) -> None:
    harness.complete_edition()
    assert harness.join(2) == [Joined(rid=5, number=2, wanted=WantedState.AWAKE, edition=1)]


def test_a_process_that_joins_with_a_wrong_token_is_rejected(harness: Harness) -> None:
    harness.complete_edition()
    (reply,) = harness.join(1, token=b"wrong".ljust(16))
    assert isinstance(reply, Rejected)
    assert harness.heartbeat(1) == [JoinOrder()]
    assert states(harness) == [WorkerState.STARTING] * 2


def test_the_sender_of_an_unknown_heartbeat_is_told_to_join(harness: Harness) -> None:
    harness.start()
    harness.broker._handle(Exited(1, 101, "killed"), time.monotonic())
    assert harness.heartbeat(1) == [JoinOrder()]
    assert states(harness) == [WorkerState.DEAD, WorkerState.AWAKE]


def test_an_operator_may_not_join(harness: Harness) -> None:
    join = Join(rid=5, name="other", epoch=9, token=bytes(16), endpoint="tcp://127.0.0.1:9")
    assert harness.receive(join) == [
        Rejected(rid=5, message="this key is admitted as operator: admit it with --role worker to join", denied=True)
    ]


def test_a_refused_join_is_an_event(harness: Harness) -> None:
    harness.start()
    join = Join(rid=5, name="attic", epoch=9, token=bytes(16), endpoint="tcp://192.0.2.7:21018")
    harness.receive(join, b"laptop", Sender(Role.CLIENT, b"key", "laptop", "192.0.2.7"))
    harness.receive(replace(join, name="1"), b"attic", Sender(Role.ANYONE, b"", "192.0.2.8", "192.0.2.8"))
    (report,) = harness.receive(StatusRequest(rid=6))
    assert isinstance(report, StatusReport)
    assert [event.text for event in report.events[:2]] == [
        "refused worker 1 from 192.0.2.8: the name 1 is that of a worker of the broker itself",
        "refused worker attic from 192.0.2.7: the key laptop is admitted as client:"
        " admit it with --role worker to join",
    ]


def test_a_worker_that_the_broker_did_not_start_is_published_and_serves_its_own_edition(harness: Harness) -> None:
    harness.start()
    elsewhere = Sender(Role.ANYONE, b"", "hosts", "192.0.2.7")
    join = Join(rid=5, name="attic", epoch=9, token=bytes(16), endpoint="tcp://192.0.2.7:21018")
    reply = Joined(rid=5, number=3, wanted=WantedState.AWAKE, edition=1, host="192.0.2.7")
    assert harness.receive(join, b"attic", elsewhere) == [reply]
    heartbeat = Heartbeat(number=3, epoch=9, state=ReportedState.AWAKE, edition=40, load=Load(stale=True), sessions=[])
    assert harness.receive(heartbeat, b"attic", elsewhere) == []
    assert harness.reaching.attempts == [((3, 9), Endpoint("192.0.2.7", 21018), b"")]
    harness.broker._on_reach_tried((3, 9), "")
    assert harness.listeners.sent == [(b"attic", Reached(endpoint="tcp://192.0.2.7:21018"))]
    harness.listeners.sent.clear()
    assert harness.receive(heartbeat, b"impostor", elsewhere) == [JoinOrder()]
    worker = harness.listeners.published[-1].workers[2]
    assert (worker.name, worker.host, worker.endpoint) == ("attic", "192.0.2.7", "tcp://192.0.2.7:21018")
    assert (worker.state, worker.pid, worker.restarts) == (WorkerState.AWAKE, 0, 0)
    assert 0.0 < worker.uptime < 60.0
    assert not harness.indexer.rescans
    harness.receive(Toggle(rid=6, number=3))
    assert harness.listeners.sent == [(b"attic", Order(wanted=WantedState.ASLEEP, edition=40))]


def test_workers_of_other_hosts_learn_of_other_admitted_keys_at_once(harness: Harness) -> None:
    harness.start()
    elsewhere = Sender(Role.ANYONE, b"", "hosts", "192.0.2.7")
    for name, key in (("attic", bytes(32)), ("keyless", b"")):
        join = Join(rid=5, name=name, epoch=9, token=bytes(16), endpoint="tcp://192.0.2.7:21018", key=key)
        harness.receive(join, name.encode(), elsewhere)
    harness.listeners.sent.clear()
    harness.broker._on_keys_admitted()
    assert harness.listeners.sent == [(b"attic", Admitted(digest=b"1", keys=[]))]


def test_a_worker_that_left_long_ago_is_not_listed_any_more(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.start()
    elsewhere = Sender(Role.ANYONE, b"", "hosts", "192.0.2.7")
    join = Join(rid=5, name="attic", epoch=9, token=bytes(16), endpoint="tcp://192.0.2.7:21018")
    harness.receive(join, b"attic", elsewhere)
    harness.receive(Toggle(rid=6, number=3))
    leaving = Heartbeat(number=3, epoch=9, state=ReportedState.LEAVING, edition=1, load=Load(), sessions=[])
    harness.receive(leaving, b"attic", elsewhere)
    harness.broker._handle(TimePassed(), time.monotonic() + FORGET_AFTER_S)
    assert [worker.number for worker in harness.listeners.published[-1].workers] == [1, 2]
    harness.broker._on_reach_tried((3, 9), "late")
    join = replace(join, epoch=10)
    reply = Joined(rid=5, number=3, wanted=WantedState.ASLEEP, edition=1, host="192.0.2.7")
    assert harness.receive(join, b"attic", elsewhere) == [reply]


def test_missing_keys_are_made_where_they_are_needed(config: Config, output: OutputThread, tmp_path: Path) -> None:
    exposed = replace(config, host="192.0.2.7", keys=tmp_path / "keys")
    server._make_missing_keys(exposed, output)
    pair = exposed.key_folder.load(SERVER)
    assert pair is not None
    server._make_missing_keys(exposed, output)
    assert exposed.key_folder.load(SERVER) == pair
    on_loopback = replace(config, keys=None)
    assert not on_loopback.uses_keys
    server._make_missing_keys(on_loopback, output)


def test_a_process_of_this_user_that_the_broker_did_not_start_needs_an_address(harness: Harness) -> None:
    """It reaches the Unix socket of the workers, but has no token."""
    harness.start()
    join = Join(rid=5, name="attic", epoch=9, token=bytes(16))
    (reply,) = harness.receive(join, b"attic", Sender(Role.WORKER))
    assert isinstance(reply, Rejected)
    assert len(harness.status.workers) == 2


def test_a_loopback_address_is_of_no_use_to_the_clients_of_other_machines(config: Config, output: OutputThread) -> None:
    exposed = replace(config, host="*", security="none")
    harness = Harness(exposed, output)
    with closing(harness.broker):
        harness.start()
        local = Sender(Role.ANYONE, b"", "127.0.0.1", "127.0.0.1")
        join = Join(rid=5, name="attic", epoch=9, token=bytes(16), endpoint="tcp://127.0.0.1:21018")
        harness.receive(join, b"attic", local)
        heartbeat = Heartbeat(number=3, epoch=9, state=ReportedState.AWAKE, edition=1, load=Load(), sessions=[])
        (reached,) = harness.receive(heartbeat, b"attic", local)
        assert isinstance(reached, Reached)
        assert reached.reason == server.ONLY_THIS_MACHINE
        assert not harness.reaching.attempts
        worker = harness.status.workers[2]
        assert (worker.state, worker.reason) == (WorkerState.UNREACHABLE, f"at 127.0.0.1:21018: {reached.reason}")


def test_a_later_edition_is_published_once_a_worker_serves_it(harness: Harness) -> None:
    harness.start()
    harness.complete_edition(2, files=5)
    assert harness.status.files == 1
    assert harness.heartbeat(1) == [Order(wanted=WantedState.AWAKE, edition=2)]
    assert harness.status.files == 1
    assert harness.heartbeat(1, edition=2) == []
    assert harness.listeners.published[-1].files == 5


def test_a_worker_that_finds_a_stale_file_causes_a_rescan(harness: Harness) -> None:
    harness.start()
    harness.heartbeat(1, edition=0, stale=True)
    assert not harness.indexer.rescans, "an unnecessary rescan: the worker serves an old edition"
    harness.heartbeat(1, stale=True)
    suspect = SuspectSegment(bytes(32), 3)
    harness.heartbeat(1, stale=True, suspect=suspect)
    assert harness.indexer.rescans == [None, suspect]


# Requests.


def test_an_operator_toggles_a_worker(harness: Harness) -> None:
    harness.start()
    assert harness.receive(Toggle(rid=5, number=2)) == []
    assert harness.listeners.sent == [(b"worker 2", Order(wanted=WantedState.ASLEEP, edition=1))]


def test_each_download_that_ends_is_a_line_of_the_access_log(
    config: Config, output: OutputThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[str] = []
    monkeypatch.setattr(output, "announce", announced.append)
    log = tmp_path / "access.log"
    harness = Harness(replace(config, access_log=log), output)
    with closing(harness.broker):
        harness.start()
        for session, state in enumerate((DownloadState.DONE, DownloadState.BROKEN, DownloadState.DOWNLOADING), 1):
            message = DownloadProgress(session=session, state=state, selection=state.value, bytes=1, total=2)
            harness.receive(message, sender=Sender(Role.CLIENT, b"", "127.0.0.1", "127.0.0.1"))
        harness.receive(Quit(rid=1))
        for number in (1, 2):
            harness.broker._handle(Exited(number, 100 + number, ""), time.monotonic())
        harness.broker.run()
    assert [re.findall(r"client=(\S+) .*what=(\S+)", line) for line in log.read_text().splitlines()] == [
        [("127.0.0.1", "done")],
        [("127.0.0.1", "broken")],
    ]
    counts = "0 B sent, 1 download done, 1 download broken, 1 download not finished"
    (last,) = announced
    assert re.sub(r"0:\d\d", "0:00", last) == f"stopped by msd quit: 2 workers shared 1 file for 0:00; {counts}"


def test_the_loop_pauses_only_after_the_progress_of_downloads(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def end(_: object) -> float:
        harness.broker._exit_code, harness.broker._is_stopped = 0, True
        return 0.0

    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(harness.broker._poll_loop, "wait", end)
    message = DownloadProgress(session=5, state=DownloadState.DOWNLOADING, selection="x", bytes=1, total=2)
    requests: list[tuple[ControlRequest, int]] = [(StatusRequest(rid=1), 0), (message, 1), (StatusRequest(rid=1), 1)]
    for request, count in requests:
        harness.receive(request)
        harness.broker._exit_code = None
        harness.broker.run()
        assert len(pauses) == count


def test_only_operators_see_what_the_clients_download(harness: Harness) -> None:
    message = DownloadProgress(
        session=5, state=DownloadState.DOWNLOADING, selection="film.mkv", bytes=1, total=2, name="eve@pc"
    )
    keys = {"laptop": b"k" * 32, SERVER: b"s" * 32, "127.0.0.1": b""}
    for name, key in keys.items():
        assert harness.receive(message, sender=Sender(Role.CLIENT, key, name, "127.0.0.1")) == []
    # A worker's key does not download.
    assert harness.receive(message, sender=WORKER) == []
    for sender, clients in ((OPERATOR, ["laptop", "eve@pc", "eve@pc#2"]), (CLIENT, [])):
        (report,) = harness.receive(StatusRequest(rid=1), sender=sender)
        assert isinstance(report, StatusReport)
        assert [download.client for download in report.downloads] == clients


def texts(harness: Harness, sender: Sender = OPERATOR) -> list[str]:
    """The events that the sender sees, newest first."""
    (report,) = harness.receive(StatusRequest(rid=1), sender=sender)
    assert isinstance(report, StatusReport)
    return [event.text for event in report.events]


@pytest.mark.parametrize(
    ("sender", "operator"),
    [
        (Sender(Role.OPERATOR, b"k" * 32, "anna", "192.0.2.7"), "the operator anna"),
        (Sender(Role.OPERATOR, b"s" * 32, SERVER, "127.0.0.1"), "an operator on this machine"),
        (Sender(Role.OPERATOR, b"s" * 32, SERVER, "192.0.2.1"), "an operator on this machine"),
        (Sender(Role.ANYONE, b"", "192.0.2.7", "192.0.2.7"), "an operator at 192.0.2.7"),
        (Sender(Role.ANYONE, b"", "::1", "::1"), "an operator on this machine"),
    ],
)
def test_operators_see_who_has_put_a_worker_to_sleep(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, sender: Sender, operator: str
) -> None:
    monkeypatch.setattr(server, "hosts_for_others", lambda _: ["192.0.2.1"])
    harness.start()
    harness.receive(Toggle(rid=5, number=2), sender=sender)
    harness.heartbeat(2, ReportedState.ASLEEP)
    assert texts(harness)[0] == f"worker 2 was put to sleep by {operator}"
    assert texts(harness, CLIENT)[0] == "worker 2 was put to sleep by an operator"


def test_operators_see_the_names_of_clients_that_connect_and_complain(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_files, "read_segment_counts", lambda edition: {bytes(32): 4})
    harness.start()
    harness.heartbeat(1, sessions=[5])
    client = Sender(Role.CLIENT, b"", "192.0.2.7", "192.0.2.7")
    message = DownloadProgress(
        session=5, state=DownloadState.DOWNLOADING, selection="film.mkv", bytes=1, total=2, name="eve@pc"
    )
    harness.receive(message, sender=client)

    def end(_: object) -> float:
        harness.broker._exit_code, harness.broker._is_stopped = 0, True
        return 0.0

    monkeypatch.setattr(harness.broker._poll_loop, "wait", end)
    harness.broker.run()
    assert texts(harness)[0] == "client eve@pc connected: now serving 1"
    harness.receive(Complaint(rid=5, number=2, id=bytes(32), index=0), sender=client)
    assert texts(harness)[0] == "worker 2 sent a corrupt segment (reported by eve@pc, 1 so far)"
    assert harness.status.workers[1].complainants == ["eve@pc"]
    harness.broker._on_receiver_banned("", "192.0.2.7", 24018)
    assert texts(harness)[0].startswith("receiver eve@pc at 192.0.2.7:24018 has sent wrong data")


@pytest.mark.parametrize("request_", [Toggle(rid=5, number=3), Complaint(rid=5, number=3, id=bytes(32), index=0)])
def test_a_request_about_an_unknown_worker_is_rejected(harness: Harness, request_: ControlRequest) -> None:
    message = "no worker 3: the workers are 1, 2"
    assert harness.receive(request_) == [Rejected(rid=5, message=message)]


@pytest.mark.parametrize("request_", [Toggle(rid=5, number=1), Quit(rid=5)])
@pytest.mark.parametrize("sender", [CLIENT, WORKER])
def test_orders_from_a_peer_that_is_not_an_operator_are_denied(
    harness: Harness, request_: ControlRequest, sender: Sender
) -> None:
    harness.start()
    (reply,) = harness.receive(request_, sender=sender)
    assert isinstance(reply, Rejected)
    assert (reply.rid, reply.denied) == (5, True)
    assert len(harness.listeners.sent) == 1, "an order was sent to a worker"
    assert {worker.wanted for worker in harness.status.workers} == {WantedState.AWAKE}


def test_valid_complaints_are_counted_once(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_files, "read_segment_counts", lambda edition: {bytes(32): 4})
    harness.start()
    for number in (2, 2):
        complaint = Complaint(rid=5, number=number, id=bytes(32), index=0)
        assert harness.receive(complaint, sender=CLIENT) == [Accepted(rid=5)]
    for invalid in (replace(complaint, number=9), replace(complaint, id=b"x" * 32), replace(complaint, index=4)):
        (reply,) = harness.receive(invalid, sender=CLIENT)
        assert isinstance(reply, Rejected)
    assert [worker.complaints for worker in harness.status.workers] == [0, 1]
    assert harness.indexer.rescans == [SuspectSegment(bytes(32), 0)]
    assert [worker.complainants for worker in harness.status.workers] == [[], ["127.0.0.1"]]


def test_without_a_readable_catalogue_complaints_are_rejected(harness: Harness) -> None:
    harness.start()
    (reply,) = harness.receive(Complaint(rid=5, number=1, id=bytes(32), index=0), sender=CLIENT)
    assert reply == Rejected(rid=5, message="no shared file has this id")


# Exiting.


def test_quit_orders_all_workers_to_exit(harness: Harness) -> None:
    harness.start()
    assert harness.receive(Quit(rid=5)) == [Accepted(rid=5)]
    assert harness.listeners.sent[1:] == [(b"worker 1", QuitOrder()), (b"worker 2", QuitOrder())]


def test_the_exit_code_after_quit_is_0(harness: Harness) -> None:
    harness.receive(Quit(rid=5))
    assert harness.broker.run() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_exit_code_after_a_signal_is_128_plus_its_number(harness: Harness, number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    assert harness.broker.run() == 128 + number


def test_with_until_done_the_broker_exits_once_a_client_is_done(
    config: Config, output: OutputThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(until_done, "SETTLE_TIME_S", 0.01)
    harness = Harness(config, output, until_done=True)
    with closing(harness.broker):
        harness.heartbeat(1, served=[ServedSession(1, b"key")])
        client = Sender(Role.CLIENT, b"key", "alice")
        assert harness.receive(Done(rid=5, session=1), sender=client) == [Accepted(rid=5)]
        assert harness.broker.run() == 0


def test_a_stall_is_reported_before_messages_and_time(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    handle = harness.broker._handle

    def record(event: Event, now: float) -> None:
        events.append(event)
        handle(event, now)

    def dispatch() -> float:
        harness.receive(Quit(rid=5))
        return 2.0

    monkeypatch.setattr(harness.broker, "_handle", record)
    monkeypatch.setattr(harness.broker._poll_loop, "wait", lambda deadlines: 1.0)
    monkeypatch.setattr(harness.broker._poll_loop, "dispatch", dispatch)
    harness.broker.run()
    assert events == [Stalled(1.0), QuitReceived(), Stalled(2.0), TimePassed()]


def test_the_last_line_says_why_the_servers_stopped_and_what_they_did(
    config: Config, output: OutputThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[str] = []
    monkeypatch.setattr(output, "announce", announced.append)
    harness = Harness(config, output)
    harness.broker._shut_down(0, "by msd quit")
    assert harness.broker.run() == 0
    harness.broker.close()
    (last,) = announced
    assert re.sub(r"0:\d\d", "0:00", last) == "stopped by msd quit: 2 workers shared 0 files for 0:00; 0 B sent"
