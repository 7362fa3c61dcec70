"""``OperatorClient`` sends orders to a fake broker and receives its snapshots."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
import zmq

from msd.broker.operator import operator_client
from msd.broker.operator.operator_client import REQUEST_TIMEOUT_S, OperatorClient
from msd.wire.config.servers import Servers
from msd.wire.errors import MsdError, NoAnswerError, NotAllowedError, UsageError
from msd.wire.net import poll_loop
from msd.wire.net.contacts import PROBE_DELAY_S, PROBE_TIMEOUT_S
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.codec import STATUS_TOPIC, decode, encode
from msd.wire.protocol.messages import (
    PROTOCOL_VERSION,
    ControlRequest,
    Message,
    Rejected,
    Status,
    StatusReport,
    StatusRequest,
    Toggle,
    Toggled,
)
from msd.wire.protocol.states import WorkerState

LOOPBACK = "127.0.0.1"


class Clock:
    """A clock that advances only when the test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class FakeBroker:
    """Replies to each request with the result of ``answer`` (None: no reply), and publishes the statuses passed to
    ``publish``. ``control_port`` replaces the port of its control socket in its snapshots.
    """

    def __init__(self, control_port: int | None = None) -> None:
        self.answer: Callable[[Message], Message | None] = lambda request: None
        self._context = zmq.Context()
        self._publisher = self._context.socket(zmq.XPUB)
        self._control = self._context.socket(zmq.ROUTER)
        ports = [source.bind_to_random_port(f"tcp://{LOOPBACK}") for source in (self._publisher, self._control)]
        self._control_url = f"tcp://{LOOPBACK}:{control_port or ports[1]}"
        self.servers = Servers(Endpoint(LOOPBACK, ports[0]), {}, pinned=False)
        self._commands = self._context.socket(zmq.PULL)
        self._commands.bind("inproc://commands")
        self._push = self._context.socket(zmq.PUSH)
        self._push.connect("inproc://commands")
        self._publisher.setsockopt(zmq.XPUB_WELCOME_MSG, self._snapshot(self.status(10)))
        self._subscribed = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def status(self, seq: int, epoch: int = 1, version: int = PROTOCOL_VERSION) -> Status:
        return Status(
            version=version,
            epoch=epoch,
            seq=seq,
            interval=2.0,
            control=self._control_url,
            catalogue=b"",
            files=1,
            workers=[],
        )

    def publish(self, *statuses: Status) -> None:
        # ZeroMQ drops messages until the subscription is registered; the welcome message may arrive before that.
        assert self._subscribed.wait(10)
        for status in statuses:
            self._push.send(self._snapshot(status))

    def close(self) -> None:
        self._push.send(b"")
        self._thread.join()
        self._context.destroy(0)

    def _snapshot(self, status: Status) -> bytes:
        return STATUS_TOPIC + encode(status)

    def _run(self) -> None:
        poller = zmq.Poller()
        for source in (self._publisher, self._control, self._commands):
            poller.register(source, zmq.POLLIN)
        while True:
            for source, _ in poller.poll():
                frames = source.recv_multipart()
                if source is self._commands:
                    if not frames[0]:
                        return
                    self._publisher.send(frames[0])
                elif source is self._publisher:
                    self._subscribed.set()
                elif source is self._control:
                    reply = self.answer(decode(frames[1], ControlRequest))
                    if reply is not None:
                        self._control.send_multipart([frames[0], encode(reply)])


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    fake_broker = FakeBroker()
    yield fake_broker
    fake_broker.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake_clock = Clock()
    for module in (operator_client, poll_loop):
        monkeypatch.setattr(module, "time", fake_clock)
    return fake_clock


def test_each_order_has_its_own_timeout(broker: FakeBroker, clock: Clock) -> None:
    """Toggling a frozen worker takes 3 s, so four toggles take longer than the timeout of a single order."""

    def reply_late(request: Message) -> Message:
        assert isinstance(request, Toggle)
        clock.now += 3
        return Toggled(rid=request.rid, number=request.number, state=WorkerState.SILENT, reached=False)

    with OperatorClient(broker.servers) as operator:
        broker.answer = reply_late
        started_at = clock.now
        assert [operator.toggle(number, None).number for number in (1, 2, 3, 4)] == [1, 2, 3, 4]
        assert clock.now - started_at > REQUEST_TIMEOUT_S


def test_an_order_without_a_reply_ends_after_the_timeout(broker: FakeBroker, clock: Clock) -> None:
    def reply_to_another_request(request: Message) -> Message:
        clock.now += REQUEST_TIMEOUT_S
        return Toggled(rid=0, number=1, state=WorkerState.AWAKE, reached=True)

    with OperatorClient(broker.servers) as operator:
        broker.answer = reply_to_another_request
        with pytest.raises(NoAnswerError, match="does not answer: is msd serve running there"):
            operator.toggle(1, None)


def test_a_snapshot_older_than_the_last_report_is_skipped(broker: FakeBroker, clock: Clock) -> None:
    def report(request: Message) -> Message:
        assert isinstance(request, StatusRequest)
        return StatusReport(rid=request.rid, status=broker.status(20), time=0.0)

    with OperatorClient(broker.servers) as operator:
        broker.answer = report
        assert operator.status().seq == 20
        broker.publish(*map(broker.status, (19, 20, 21)))
        assert operator.next_snapshot().seq == 21


def test_snapshots_of_a_restarted_broker_are_returned(broker: FakeBroker, clock: Clock) -> None:
    with OperatorClient(broker.servers) as operator:
        for seq in (1, 2):
            broker.publish(broker.status(seq, epoch=2))
            status = operator.next_snapshot()
            assert (status.epoch, status.seq) == (2, seq)


def test_a_broker_that_stops_publishing_no_longer_answers(broker: FakeBroker, clock: Clock) -> None:
    """The client waits 7 s: three status intervals of 2 s plus 1 s. The clock advances by 4 s each time it is read."""

    class RunningClock(Clock):
        def monotonic(self) -> float:
            self.now += 4
            return self.now

    with OperatorClient(broker.servers) as operator, pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator_client, "time", RunningClock())
        broker.publish(broker.status(9), broker.status(8), broker.status(7))
        with pytest.raises(NoAnswerError, match="does not answer: is msd serve running there"):
            operator.next_snapshot()


@pytest.mark.parametrize(("denied", "kind"), [(True, NotAllowedError), (False, UsageError)])
def test_a_rejected_order_raises_an_error_with_the_reason(
    broker: FakeBroker, denied: bool, kind: type[MsdError]
) -> None:
    def reject(request: Message) -> Message:
        assert isinstance(request, Toggle)
        return Rejected(rid=request.rid, message="because", denied=denied)

    with OperatorClient(broker.servers) as operator:
        broker.answer = reject
        with pytest.raises(kind, match=r"^because$"):
            operator.toggle(1, None)


def test_a_broker_with_another_protocol_version_is_rejected(broker: FakeBroker) -> None:
    with OperatorClient(broker.servers) as operator:
        broker.publish(broker.status(11, version=PROTOCOL_VERSION + 1))
        with pytest.raises(
            NotAllowedError, match=f"uses protocol version {PROTOCOL_VERSION + 1}, .* update the older side"
        ):
            operator.next_snapshot()


def test_an_error_names_the_control_port_if_only_that_port_does_not_answer() -> None:
    with closing(socket.socket()) as listener, ExitStack() as stack:
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        # Connections beyond the backlog are dropped, as by a firewall.
        for _ in range(2):
            waiting = stack.enter_context(closing(socket.socket()))
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        control = listener.getsockname()[1]
        broker = FakeBroker(control)
        stack.callback(broker.close)
        operator = stack.enter_context(OperatorClient(broker.servers, PROBE_DELAY_S + PROBE_TIMEOUT_S + 0.1))
        with pytest.raises(NoAnswerError) as caught:
            operator.quit()
        status = f"server 5 at {broker.servers.status} answers"
        expected = f"{status}; control port of server 5 at {LOOPBACK}:{control} does not answer: check the address,"
        assert str(caught.value).startswith(expected)
