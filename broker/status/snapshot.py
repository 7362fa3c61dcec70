"""Composes the snapshots that server 5 publishes, and prints them as JSON.

Does not send them: that is ``broker/network/publisher.py``.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import msgspec

from msd.broker.supervision.supervisor import Supervisor
from msd.wire.config.settings import Config
from msd.wire.protocol.messages import PROTOCOL_VERSION, Status, WorkerStatus
from msd.wire.protocol.states import WorkerState

#: Seconds over which a worker's rate is measured.
RATE_WINDOW = 1.0
#: Bytes of a reason that are told: with 64 workers a snapshot must fit the 64 KiB a client accepts.
MAX_REASON = 200


class SnapshotBuilder:
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

    def snapshot(
        self, supervisor: Supervisor, now: float, *, malformed_messages: int = 0, rejected_connections: int = 0
    ) -> Status:
        """The state, with the next sequence number. ``malformed_messages`` counts messages to the broker that
        were none, ``rejected_connections`` connections that it did not let in.
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
            malformed_messages=malformed_messages,
            rejected_connections=rejected_connections,
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
                    rate=self._meters[worker.number].rate if worker.state is WorkerState.AWAKE else 0.0,
                    complaints=worker.complaints,
                    malformed_messages=worker.load.malformed_messages,
                    rejected_connections=worker.load.rejected_connections,
                    uptime=max(0.0, now - worker.started_at) if worker.pid else 0.0,
                    reason=worker.reason.encode("utf-8", "replace")[:MAX_REASON].decode("utf-8", "ignore"),
                )
                for worker in supervisor.workers.values()
            ],
        )


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
    workers = [msgspec.to_builtins(worker) for worker in status.workers]
    return {
        "workers": [{"name": str(w["number"]), **{key: w[key] for key in keys}} for w in workers],
        "files": status.files,
        "catalogue": status.catalogue.hex(),
        "clients": status.clients,
        "garbage": status.malformed_messages,
        "refused": status.rejected_connections,
    }
