"""Server 5: the status socket, and the snapshot that it publishes.

Always the whole state, never a difference: a client that comes late, or lost a message, knows all
from the next one. Each new subscriber gets the latest snapshot at once (``XPUB_WELCOME_MSG``).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

import zmq

from broker.supervision import Supervisor
from wire.codec import STATUS_TOPIC, encode
from wire.config import Config
from wire.endpoints import Endpoint
from wire.messages import PROTOCOL_VERSION, Status, WorkerStatus
from wire.sockets import bind, receive, tune
from wire.states import State

#: Seconds over which a worker's rate is measured.
RATE_WINDOW = 1.0
#: Bytes of a reason that are told: with 64 workers a snapshot must fit the 64 KiB a client accepts.
MAX_REASON = 200
#: Subscriptions read in one turn of the loop, so that a flood cannot keep it from anything else.
READS_PER_TURN = 256
#: Bytes of subscriptions to what is not told here that a socket may have.
MAX_FOREIGN = 16384
#: How ZeroMQ hands over a subscription: this byte, and the topic.
SUBSCRIBE = b"\x01"


class Board:
    """Composes snapshots from what the supervisor knows."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._epoch = secrets.randbits(62)
        self._seq = 0
        self._meters = {number: _Meter() for number in range(1, len(config.workers) + 1)}
        self.catalogue = b""
        self.files = 0

    def measure(self, number: int, bytes_sent: int, now: float) -> None:
        """A heartbeat said that worker ``number`` has sent so many bytes in all."""
        self._meters[number].update(bytes_sent, now)

    def snapshot(self, supervisor: Supervisor, now: float, *, garbage: int = 0, refused: int = 0) -> Status:
        """The state, with the next sequence number. ``garbage`` counts messages to the broker that
        were none, ``refused`` connections that it did not let in.
        """
        self._seq += 1
        return Status(
            version=PROTOCOL_VERSION,
            epoch=self._epoch,
            seq=self._seq,
            interval=self._config.interval,
            control=self._config.control.url,
            catalogue=self.catalogue,
            files=self.files,
            clients=len(frozenset().union(*(worker.sessions for worker in supervisor.workers.values()))),
            garbage=garbage,
            refused=refused,
            workers=[
                WorkerStatus(
                    number=worker.number,
                    endpoint=self._config.workers[worker.number - 1].endpoint.url,
                    state=worker.state,
                    wanted=worker.wanted,
                    epoch=worker.epoch,
                    pid=worker.pid,
                    restarts=worker.restarts,
                    clients=worker.load.clients,
                    bytes_sent=worker.load.bytes_sent,
                    # Of one that is silent nothing is known; least of all that it serves.
                    rate=self._meters[worker.number].rate if worker.state is State.AWAKE else 0.0,
                    complaints=worker.complaints,
                    garbage=worker.load.garbage,
                    refused=worker.load.refused,
                    uptime=max(0.0, now - worker.started_at) if worker.pid else 0.0,
                    reason=worker.reason.encode("utf-8", "replace")[:MAX_REASON].decode("utf-8", "ignore"),
                )
                for worker in supervisor.workers.values()
            ],
        )


class Publisher:
    """The XPUB socket. Raises ``zmq.ZMQError`` where it cannot be bound."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: Endpoint,
        *,
        guard: Callable[[zmq.Socket[bytes]], None] = lambda socket: None,
        patience: float = 0.0,
    ) -> None:
        self.socket = context.socket(zmq.XPUB)
        tune(self.socket, ipv6=endpoint.is_ipv6)
        self.socket.xpub_verbose = 1
        self.socket.sndhwm = 4
        self.socket.linger = 0
        # Subscriptions are short. Not below 1024: the limit holds for CURVE handshakes, too.
        self.socket.maxmsgsize = 1024
        # ZeroMQ takes in whatever has arrived before it lets anybody look.
        self.socket.rcvhwm = 4
        self._foreign = 0
        guard(self.socket)
        try:
            bind(self.socket, endpoint.url, patience)
        except zmq.ZMQError:
            self.socket.close(0)
            raise

    def publish(self, status: Status) -> None:
        frame = STATUS_TOPIC + encode(status)
        self.socket.setsockopt(zmq.XPUB_WELCOME_MSG, frame)
        self.socket.send(frame, zmq.NOBLOCK)

    def drain(self) -> None:
        """Reads subscriptions, some of them: the welcome message is sent by reading them."""
        for _ in range(READS_PER_TURN):
            frames = receive(self.socket)
            if frames is None or self.is_crowded:
                return
            said = frames[0].bytes if frames else b""
            if said[:1] == SUBSCRIBE and not STATUS_TOPIC.startswith(said[1:]):
                self._foreign += len(said)

    @property
    def is_crowded(self) -> bool:
        """True if this socket is to be replaced: ZeroMQ keeps what it is subscribed to, at some 40 bytes for
        each byte of it, and lets nobody refuse.
        """
        return self._foreign > MAX_FOREIGN

    def close(self) -> None:
        self.socket.close(0)


class _Meter:
    """The rate (bytes a second) of a growing total, over the last ``RATE_WINDOW`` seconds."""

    def __init__(self) -> None:
        self._start = (0.0, 0)
        self.rate = 0.0

    def update(self, total: int, now: float) -> None:
        time, before = self._start
        if total < before or not time:
            self._start = (now, total)
            self.rate = 0.0
        elif now - time >= RATE_WINDOW:
            self.rate = (total - before) / (now - time)
            self._start = (now, total)


def as_json(status: Status) -> Mapping[str, object]:
    """The object that ``msd status --json`` prints."""
    keys = (
        *("endpoint", "state", "wanted", "pid", "epoch", "restarts", "clients", "bytes_sent", "rate", "complaints"),
        *("garbage", "refused", "uptime", "reason"),
    )
    return {
        "workers": [{"name": str(w.number), **{key: getattr(w, key) for key in keys}} for w in status.workers],
        "files": status.files,
        "catalogue": status.catalogue.hex(),
        "clients": status.clients,
        "garbage": status.garbage,
        "refused": status.refused,
    }
