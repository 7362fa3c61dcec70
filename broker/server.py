"""The broker: the event loop that connects the supervisor to processes, sockets and the console.

Converts messages, process exits, signals and orders to events of ``broker/supervision/supervisor.py``, and performs
the actions that it returns. Does not decide when a toggle is answered (see ``broker/supervision/pending_toggles.py``)
or when ``--until-done`` ends the servers (see ``broker/supervision/until_done.py``), and waits for no ports: see
``broker/start_up.py``.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress

import zmq
from msgspec.structs import replace

from msd.broker.network.control_socket import Route, Sender
from msd.broker.network.listeners import Listeners
from msd.broker.network.reach import Reaching
from msd.broker.status.access_log import AccessLog, access_line
from msd.broker.status.downloads import Downloads, DownloadsEvent, DownloadTotals, ProgressReceived
from msd.broker.status.event_log import SAMPLE_INTERVAL_S, EventLog
from msd.broker.status.snapshot import SnapshotBuilder
from msd.broker.supervision import supervisor_events
from msd.broker.supervision.complaints import rejection
from msd.broker.supervision.pending_toggles import PendingToggles, ToggleRequested
from msd.broker.supervision.processes import WorkerProcesses, reap_orphans
from msd.broker.supervision.registration import published_endpoint, register
from msd.broker.supervision.shared_files import SharedFiles
from msd.broker.supervision.supervisor import Supervisor
from msd.broker.supervision.until_done import (
    AwakeChanged,
    ClientDone,
    SessionsReported,
    SessionsServed,
    UntilDone,
    UntilDoneEvent,
)
from msd.broker.supervision.worker_record import WorkerRecord
from msd.broker.terminal.local_console import LocalConsole
from msd.broker.terminal.output_thread import OutputThread
from msd.broker.tracking.receivers import Receivers
from msd.wire.config.settings import Config
from msd.wire.errors import MsdError, UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.own_addresses import hosts_for_others
from msd.wire.net.poll_loop import PollLoop
from msd.wire.net.ports import check_address, hold_port
from msd.wire.protocol.child_messages import Indexed, ShareSettings
from msd.wire.protocol.messages import (
    Accepted,
    Announce,
    Complaint,
    ControlRequest,
    Done,
    DownloadProgress,
    Heartbeat,
    Join,
    Joined,
    JoinOrder,
    Order,
    Quit,
    QuitOrder,
    Reached,
    Rejected,
    ServedSession,
    Status,
    StatusRequest,
    SuspectSegment,
    Toggle,
    WorkerOrder,
)
from msd.wire.security.keys import SERVER, Role
from msd.wire.security.permissions import is_permitted
from msd.wire.sharing.runtime_folder import make_folder, remove_folder
from msd.wire.sharing.shared_paths import share_settings
from msd.wire.support.core import Stalled, TimePassed
from msd.wire.support.signal_fd import SignalDescriptor
from msd.wire.support.units import format_count, format_duration, format_size

#: Why a worker on the broker's own machine is not reachable for the clients of other machines.
ONLY_THIS_MACHINE = "only the machine of server 5 can reach it: give --join or --listen another address"
#: Seconds for which the event loop waits after it has read the progress of downloads and nothing but heartbeats beside:
#: it then reads several messages in one turn. Of 300 clients, 150 arrive in a second, and a turn costs more than a
#: message.
PROGRESS_PAUSE_S = 0.1
#: Longest wait of the event loop in seconds; short, so that a stall during a wait is detected.
MAX_WAIT_S = 0.5


class Broker:
    """A broker and its workers. Call ``run()``, then ``close()``.

    Raises ``MsdError`` if it cannot start.
    """

    def __init__(
        self, config: Config, output: OutputThread, *, until_done: bool = False, console: Sequence[str] | None = None
    ) -> None:
        #: None for a broker that starts no workers.
        share = share_settings(config) if config.workers else None
        if share is None and config.paths:
            raise UsageError("a broker without workers shares nothing: leave out the path, or start workers with -n")
        # Before keys are made: the address may be mistyped.
        check_address(config.status)
        _make_missing_keys(config, output)
        self._config = config
        self._output = output
        self._supervisor = Supervisor([worker.endpoint.url for worker in config.workers], config.hang_limit)
        self._snapshot_builder = SnapshotBuilder(config)
        self._token = secrets.token_bytes(16)
        #: None without ``--until-done``.
        self._until_done = UntilDone() if until_done else None
        self._toggles: PendingToggles[Route] = PendingToggles(self._supervisor)
        self._exit_code: int | None = None
        self._stop_cause = ""
        self._started_at = time.monotonic()
        self._next_publish = self._next_sample = 0.0
        #: The last published snapshot, for the metrics.
        self._last_status: Status | None = None
        self._event_log = EventLog(output.log, self._show_event)
        self._downloads = Downloads()
        #: The totals of the downloads when that snapshot was published.
        self._last_totals = DownloadTotals()
        #: True if the last requests were ``progress`` and nothing but heartbeats beside.
        self._may_pause = False
        #: None unless it is configured.
        self._access_log: AccessLog | None = None
        self._resources = ExitStack()
        try:
            self._start(config, share, console)
        except BaseException:
            self._resources.close()
            raise

    def run(self) -> int:
        """Serves until an operator orders a shutdown, a signal (SIGINT, SIGTERM, SIGHUP) arrives, or, with
        ``until_done``, the clients have finished. Returns the exit code.
        """
        while self._exit_code is None or not self._is_stopped:
            if self._may_pause:
                self._may_pause = False
                time.sleep(PROGRESS_PAUSE_S)
            # Report a stall before anything else, so that it does not make the workers look silent.
            self._on_stall(self._poll_loop.wait(self._deadlines()))
            self._on_stall(self._poll_loop.dispatch())
            now = self._poll_loop.now
            self._handle(TimePassed(), now)
            for answer in self._toggles.handle(TimePassed(), now):
                answer.peer.send(answer.reply)
            self._update_until_done(AwakeChanged(self._supervisor.any_awake), now)
            self._update_until_done(TimePassed(), now)
            self._handle_download(TimePassed(), now)
            if now >= self._next_publish:
                self._publish(now)
            if now >= self._next_sample:
                # Sample the rates every second, even if snapshots are published less often.
                self._next_sample = now + SAMPLE_INTERVAL_S
                sessions, names = self._supervisor.sessions, self._downloads.names
                self._event_log.sample(self._snapshot(), time.time(), sessions, names)
                self._restore_folder()
                if self._access_log is not None and (problem := self._access_log.new_problem()):
                    self._event_log.on_access_log(problem, time.time())
                if os.getpid() == 1:
                    reap_orphans({*self._processes.pids, *self._shared_files.pids, *self._local_console.pids})
            self._shared_files.pass_time(now)
            self._reaching.pass_time(now)
            self._receivers.pass_time(now)
            self._listeners.check_keys(now)
            self._local_console.check_foreground()
        self._output.announce(self._stopped_line())
        return self._exit_code

    def _stopped_line(self) -> str:
        duration = format_duration(time.monotonic() - self._started_at)
        sent = f"{format_size(self._snapshot_builder.bytes_sent)} sent{_downloads_text(self._downloads.totals)}"
        if not self._config.workers:
            return f"stopped {self._stop_cause}: server 5 ran for {duration}; {sent}"
        workers = format_count(len(self._config.workers), "worker")
        files = format_count(self._snapshot_builder.files, "file")
        line = f"stopped {self._stop_cause}: {workers} shared {files} for {duration}; {sent}"
        if abandoned := self._processes.abandoned:
            line += f"; killed, but waiting for a disk or a mount: process {', '.join(map(str, abandoned))}"
        return line

    def close(self) -> None:
        """Kills the remaining processes and frees all ports."""
        self._resources.close()

    # Starting.

    def _start(self, config: Config, share: ShareSettings | None, console: Sequence[str] | None) -> None:
        at_close = self._resources.callback
        context = zmq.Context()
        at_close(context.term)
        for number, worker in enumerate(config.workers, 1):
            at_close(hold_port(worker.endpoint, f"worker {number}").close)
        if config.metrics is not None:
            from msd.broker.status.metrics import Metrics

            at_close(Metrics(config.metrics, lambda: (self._last_status, self._last_totals)).close)
        if config.access_log is not None:
            self._access_log = AccessLog(config.access_log)
            at_close(self._access_log.close)
        self._poll_loop = PollLoop()
        self._listeners = Listeners(
            context,
            config,
            self._poll_loop,
            on_requests=self._on_requests_readable,
            on_misuse=lambda subscriber: self._event_log.on_misuse(subscriber, time.time()),
            on_admitted=self._on_keys_admitted,
            on_revoked=self._on_keys_revoked,
        )
        at_close(self._listeners.close)
        self._reaching = Reaching(context, self._listeners.keys, self._poll_loop, self._on_reach_tried)
        at_close(self._reaching.close)
        self._receivers = Receivers(
            context,
            self._listeners.keys,
            self._poll_loop,
            on_ban=self._on_receiver_banned,
        )
        at_close(self._receivers.close)
        self._folder = make_folder(config.control)
        at_close(remove_folder, self._folder)
        endpoint = self._listeners.open_local_control(self._folder)
        self._processes = WorkerProcesses(config, self._folder, endpoint, self._token, self._listeners.keys)
        at_close(self._processes.close)
        # Ctrl-C and a closed terminal shut the servers down, unless the parent ignores these signals: nohup ignores
        # SIGHUP, and a script ignores SIGINT for a background job.
        stops = [n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
        # If the console uses the terminal in the background, the terminal sends these signals to its process group.
        # They must stop the console only.
        terminal = (signal.SIGTTIN, signal.SIGTTOU)
        self._signals = SignalDescriptor(signal.SIGTERM, signal.SIGCHLD, *stops, *terminal)
        at_close(self._signals.close)
        self._is_stopped = False
        self._shared_files = SharedFiles(
            self._folder,
            share,
            self._poll_loop,
            note=self._output.note,
            on_edition=self._on_edition,
            on_left_out=lambda line: self._event_log.on_left_out(line, time.time()),
        )
        at_close(self._shared_files.close)
        self._poll_loop.register(self._signals.fileno(), self._on_signals)
        self._local_console = LocalConsole(
            config,
            self._output,
            console,
            self._poll_loop,
            toggle=lambda number: self._handle(
                supervisor_events.ToggleReceived(number, None, "an operator at the plain console"), time.monotonic()
            ),
            shut_down=self._shut_down,
        )
        at_close(self._local_console.close)

    # The supervisor's events and actions.

    def _handle(self, event: supervisor_events.Event, now: float) -> None:
        self._event_log.on_event(event)
        for action in self._supervisor.handle(event, now):
            self._perform(action, now)

    def _perform(self, action: supervisor_events.Action, now: float) -> None:
        match action:
            case supervisor_events.Spawn(number, wanted, edition):
                self._restore_folder()
                try:
                    pid = self._processes.spawn(number, wanted, edition)
                    event: supervisor_events.Event = supervisor_events.Spawned(number, pid)
                except OSError as error:
                    event = supervisor_events.Exited(number, 0, f"cannot start: {error.strerror}")
                self._handle(event, now)
            case supervisor_events.SendOrder(number, wanted, edition):
                self._send_order(number, Order(wanted=wanted, edition=edition))
            case supervisor_events.SendQuit(number):
                self._send_order(number, QuitOrder())
            case supervisor_events.Reach(number, epoch, url, key):
                advertised = Endpoint.parse(url)
                if advertised.is_loopback and not self._config.status.is_loopback:
                    self._on_reach_tried((number, epoch), ONLY_THIS_MACHINE)
                else:
                    host = self._supervisor.workers[number].host
                    endpoint = advertised.replace_wildcard(host)
                    self._reaching.start((number, epoch), endpoint, key, lambda welcome: welcome.epoch == epoch)
            case supervisor_events.Kill(number):
                self._processes.kill(number)
            case supervisor_events.Abandon(number):
                exited = self._processes.abandon(number)
                self._handle(supervisor_events.Exited(exited.number, exited.pid, exited.reason), now)
            case supervisor_events.StateChanged() | supervisor_events.ComplaintCounted():
                self._event_log.on_change(action, time.time())
            case supervisor_events.Forget(number):
                self._forget(number)
            case supervisor_events.Publish():
                self._publish(now)
            case supervisor_events.Stop():
                self._is_stopped = True

    def _update_until_done(self, event: UntilDoneEvent, now: float) -> None:
        if self._until_done is not None and self._until_done.handle(event, now):
            self._shut_down(0, "because a client has finished")

    def _send_order(self, number: int, order: WorkerOrder) -> None:
        # A worker that has not sent a heartbeat yet receives the order after its first one.
        route = self._supervisor.workers[number].route
        if isinstance(route, Route):
            route.send(order)

    def _publish(self, now: float) -> None:
        self._next_publish = now + self._config.interval
        status = self._last_status = self._snapshot()
        self._last_totals = replace(self._downloads.totals, receivers=self._receivers.count)
        self._listeners.publish(status)
        if not self._supervisor.quitting:
            self._local_console.show(status, self._listeners.keys.public if self._listeners.keys else None)

    def _show_event(self, text: str, is_failure: bool) -> None:
        self._local_console.show_event(text, is_failure=is_failure)

    def _snapshot(self) -> Status:
        now = time.monotonic()
        self._snapshot_builder.indexing = self._shared_files.progress
        return self._snapshot_builder.build(
            self._supervisor,
            now,
            malformed_messages=self._listeners.malformed_messages,
            rejected_connections=self._listeners.rejected_connections,
        )

    def _shut_down(self, code: int, cause: str) -> None:
        if self._supervisor.quitting:
            return
        self._exit_code, self._stop_cause = code, cause
        self._local_console.close()
        self._handle(supervisor_events.QuitReceived(), time.monotonic())

    # Messages, signals and exits.

    def _on_signals(self) -> None:
        for number in self._signals.read():
            if number == signal.SIGCHLD:
                now = time.monotonic()
                for exited in self._processes.reap():
                    self._handle(supervisor_events.Exited(exited.number, exited.pid, exited.reason), now)
                self._local_console.on_child_exit()
            elif number not in (signal.SIGTTIN, signal.SIGTTOU):
                self._shut_down(128 + number, f"by {signal.Signals(number).name}")

    def _restore_folder(self) -> None:
        """Restores the broker's folder if another program has removed it or a part of it."""
        # After an error the next call tries again, and a worker that cannot start reports why.
        with suppress(MsdError, OSError, zmq.ZMQError):
            is_restored = self._shared_files.restore()
            if (endpoint := self._listeners.restore_local_control()) is not None:
                self._processes.control = endpoint
            if is_restored or endpoint:
                self._output.note(f"{self._folder} was removed by another program: it is restored")

    def _on_edition(self, indexed: Indexed) -> None:
        if not self._supervisor.edition and not self._config.authority:
            self._vouch_for(bytes.fromhex(indexed.catalogue), indexed.files)
        self._handle(supervisor_events.CatalogueReady(indexed.edition), time.monotonic())

    def _vouch_for(self, catalogue: bytes, files: int) -> None:
        """Includes this catalogue in the snapshots from now on."""
        self._event_log.on_catalogue(files, time.time(), is_first=not self._snapshot_builder.catalogue)
        self._snapshot_builder.files = files
        self._snapshot_builder.catalogue = catalogue

    def _on_requests_readable(self) -> None:
        now = time.monotonic()
        kinds: set[type[ControlRequest]] = set()
        for peer, sender, request in self._listeners.requests():
            kinds.add(type(request))
            if not is_permitted(sender.role, request):
                if not isinstance(request, Heartbeat | DownloadProgress):
                    allowed = "only operators may give orders"
                    if isinstance(request, Join):
                        allowed = "admit it with --role worker to join"
                    elif sender.role is Role.WORKER:
                        allowed = "it may only join"
                    message = f"this key is admitted as {sender.role}: {allowed}"
                    peer.send(Rejected(rid=request.rid, message=message, denied=True))
                    if isinstance(request, Join):
                        reason = message.replace("this key", f"the key {sender.name}")
                        self._event_log.on_join_refused(request.name, sender.host, reason, time.time())
            elif isinstance(request, Join):
                self._on_join(peer, sender, request, now)
            elif isinstance(request, Heartbeat):
                self._on_heartbeat(peer, request, now)
            elif isinstance(request, DownloadProgress):
                self._on_progress(sender, request, now)
            else:
                self._on_request(peer, sender, request, now)
        if kinds:
            self._may_pause = DownloadProgress in kinds and kinds <= {DownloadProgress, Heartbeat}

    def _on_join(self, peer: Route, sender: Sender, join: Join, now: float) -> None:
        workers, join = self._supervisor.workers, self._supervisor.recall(join)
        number = register(join, workers, self._token, host=sender.host, admission=sender.key)
        if isinstance(number, int) and (number not in workers or workers[number].process is None):
            try:
                join = replace(join, endpoint=published_endpoint(join.endpoint, sender.host).url)
            except UsageError as error:
                number = str(error)
        if isinstance(number, str):
            peer.send(Rejected(rid=join.rid, message=number))
            self._event_log.on_join_refused(join.name, sender.host or "this machine", number, time.time())
            return
        if number in workers and workers[number].name != join.name:
            self._forget(number)
        self._handle(supervisor_events.WorkerJoined(number, join, peer, sender.host, sender.key), now)
        worker, edition = self._supervisor.workers[number], self._supervisor.edition
        peer.send(Joined(rid=join.rid, number=number, wanted=worker.wanted, edition=edition, host=sender.host))
        if worker.key:
            # Before it opens its port: otherwise it would refuse the broker, which tries to reach it at once.
            peer.send(self._listeners.admitted())

    def _forget(self, number: int) -> None:
        """Forgets what is known of worker ``number`` beside its record."""
        self._snapshot_builder.forget(number)
        self._event_log.forget(number)

    def _on_reach_tried(self, run: tuple[int, int], reason: str) -> None:
        number, epoch = run
        worker = self._supervisor.workers.get(number)
        if worker is None:
            return  # It has left meanwhile.
        if isinstance(worker.route, Route) and worker.epoch == epoch:
            worker.route.send(Reached(endpoint=worker.endpoint, reason=reason))
        text = f"at {worker.endpoint.removeprefix('tcp://')}: {reason}" if reason else ""
        self._handle(supervisor_events.ReachTried(number, epoch, text), time.monotonic())

    def _on_receiver_banned(self, name: str, host: str, port: int) -> None:
        known = name or self._downloads.client_of(host)
        self._event_log.on_receiver_banned(known, str(Endpoint(host, port)), time.time())

    def _on_keys_admitted(self) -> None:
        for worker in self._supervisor.workers.values():
            if worker.key and isinstance(worker.route, Route):
                worker.route.send(self._listeners.admitted())

    def _on_keys_revoked(self) -> None:
        for worker in [*self._supervisor.workers.values()]:
            if worker.admission and not self._listeners.is_admitted(worker.admission):
                self._handle(supervisor_events.KeyRevoked(worker.number), time.monotonic())

    def _on_heartbeat(self, peer: Route, heartbeat: Heartbeat, now: float) -> None:
        # Also those of a process that has exited since.
        self._update_until_done(SessionsServed(heartbeat.served), now)
        worker = self._supervisor.workers.get(heartbeat.number)
        if worker is None or (worker.epoch, worker.route) != (heartbeat.epoch, peer):
            peer.send(JoinOrder())
            return
        self._handle(supervisor_events.HeartbeatReceived(heartbeat, peer), now)
        self._snapshot_builder.on_bytes_sent(worker, heartbeat.load.bytes_sent, now)
        self._update_until_done(SessionsReported(heartbeat.sessions), now)
        # A worker that the broker did not start has an indexer of its own, and no folder of admitted keys.
        if worker.process is None:
            if worker.key and (admitted := self._listeners.admitted()).digest != heartbeat.admitted:
                peer.send(admitted)
        elif heartbeat.load.stale and self._serves_latest(heartbeat):
            self._shared_files.request_rescan(heartbeat.suspect)
        catalogue, files = self._right_catalogue(worker, heartbeat)
        if catalogue not in (b"", self._snapshot_builder.catalogue):
            self._vouch_for(catalogue, files)
            self._publish(now)

    def _on_progress(self, sender: Sender, progress: DownloadProgress, now: float) -> None:
        # The name of the broker's own key would not tell the users of this machine apart.
        key_name = sender.name if sender.key and sender.name != SERVER else ""
        self._handle_download(ProgressReceived(progress, sender.key or sender.host, key_name, sender.host), now)

    def _handle_download(self, event: DownloadsEvent, now: float) -> None:
        for ended in self._downloads.handle(event, now):
            if self._access_log is not None:
                self._access_log.write(access_line(ended, time.time()))

    def _right_catalogue(self, worker: WorkerRecord, heartbeat: Heartbeat) -> tuple[bytes, int]:
        """Returns the catalogue for which server 5 vouches from now on because this worker serves it, and the number of
        its files; an empty one if it is not for this worker to say.
        """
        if self._config.authority:
            is_authority = worker.name == self._config.authority
            return (heartbeat.catalogue, heartbeat.files) if is_authority else (b"", 0)
        # A new catalogue is published only once a worker serves it.
        latest = self._shared_files.latest
        if worker.process is not None and latest is not None and self._serves_latest(heartbeat):
            return bytes.fromhex(latest.catalogue), latest.files
        return b"", 0

    def _serves_latest(self, heartbeat: Heartbeat) -> bool:
        """True if a worker of the broker serves the latest edition of the catalogue."""
        return self._shared_files.latest is not None and heartbeat.edition == self._shared_files.latest.edition

    def _on_request(self, peer: Route, sender: Sender, request: ControlRequest, now: float) -> None:
        match request:
            case Toggle(number=number) | Complaint(number=number) if number not in self._supervisor.workers:
                numbers = ", ".join(map(str, self._supervisor.workers))
                message = f"no worker {number}: {f'the workers are {numbers}' if numbers else 'none has joined'}"
                peer.send(Rejected(rid=request.rid, message=message))
            case Toggle(rid=rid, number=number, wanted=wanted):
                self._toggles.handle(ToggleRequested(peer, rid, number), now)
                self._handle(supervisor_events.ToggleReceived(number, wanted, _operator(sender)), now)
            case StatusRequest(rid=rid):
                # What a client downloads is no concern of other clients.
                is_operator = sender.role in (Role.OPERATOR, Role.ANYONE)
                lists = self._downloads.lists(now) if is_operator else ()
                report = self._event_log.report(rid, self._snapshot(), time.time(), *lists, is_operator=is_operator)
                peer.send(replace(report, receivers=self._receivers.count))
            case Quit(rid=rid):
                peer.send(Accepted(rid=rid))
                self._shut_down(0, "by msd quit")
            case Announce(admitted=digest):
                peer.send(self._receivers.announce(request, sender, now))
                if digest and digest != (admitted := self._listeners.admitted_for(sender.key)).digest:
                    peer.send(admitted)
            case Done(rid=rid, session=session):
                peer.send(Accepted(rid=rid))
                self._update_until_done(ClientDone(ServedSession(session, sender.key)), now)
            case Complaint(rid=rid, number=number):
                # The broker knows the segments of its own files only.
                is_own = self._supervisor.workers[number].process is not None
                counts = self._shared_files.segment_counts(self._supervisor.edition)
                if is_own and (reason := rejection(request, counts)):
                    peer.send(Rejected(rid=rid, message=reason))
                    return
                peer.send(Accepted(rid=rid))
                # Without keys, clients are told apart by their addresses: they could change their names.
                name = self._downloads.client_of(sender.key or sender.host) or sender.name
                if self._snapshot_builder.complaints.is_new(sender.name, request, name):
                    self._handle(supervisor_events.ComplaintReceived(number, name), now)
                    if is_own:
                        self._shared_files.request_rescan(SuspectSegment(request.id, request.index))

    # Waiting and stalls.

    def _on_stall(self, stalled: float) -> None:
        """Reports a stall of this loop to the pure cores."""
        if stalled:
            event = Stalled(stalled)
            self._handle(event, self._poll_loop.now)
            self._update_until_done(event, self._poll_loop.now)
            self._handle_download(event, self._poll_loop.now)

    def _deadlines(self) -> list[float | None]:
        """The times at which the loop must wake up even if no source is readable."""
        now = time.monotonic()
        deadlines = [
            now + MAX_WAIT_S,
            self._next_publish,
            self._next_sample,
            self._shared_files.next_deadline(now),
            self._reaching.next_deadline(now),
            self._receivers.next_deadline(now),
            self._toggles.next_deadline(now),
            self._supervisor.next_deadline(now),
            self._downloads.next_deadline(now),
        ]
        if self._until_done is not None and not self._supervisor.quitting:
            deadlines.append(self._until_done.next_deadline(now))
        return deadlines


def _operator(sender: Sender) -> str:
    """Returns which operator has sent a request, for people."""
    if sender.key and sender.name not in (SERVER, sender.host):
        return f"the operator {sender.name}"
    # The console of msd serve, too, uses the broker's own key.
    is_here = Endpoint(sender.host, 0).is_loopback or sender.host in hosts_for_others("::")
    return f"an operator {'on this machine' if is_here else f'at {sender.host}'}"


def _downloads_text(totals: DownloadTotals) -> str:
    """Returns what is known of the downloads, as the end of a line."""
    counts = ((totals.done, "done"), (totals.broken, "broken"), (sum(totals.states.values()), "not finished"))
    texts = [f"{format_count(count, 'download')} {end}" for count, end in counts if count]
    return "".join(f", {text}" for text in texts)


def _make_missing_keys(config: Config, output: OutputThread) -> None:
    """Makes the servers' key pair if they need one and have none. Raises ``MsdError``."""
    folder = config.key_folder if config.uses_keys else None
    if folder is not None and folder.load(SERVER) is None:
        folder.init()
        output.note(f"made the servers' keys in {folder.path}: msd invite NAME makes a link for a client")
