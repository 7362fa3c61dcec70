"""Builds the snapshots that server 5 publishes, and converts them to JSON.

Does not send them: see ``broker/network/publisher.py``.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Mapping

import msgspec

from msd.broker.status.steady_rate import SteadyRate
from msd.broker.supervision.complaints import Complaints
from msd.broker.supervision.supervisor import Supervisor
from msd.broker.supervision.worker_record import WorkerRecord
from msd.wire.config.settings import Config
from msd.wire.protocol.messages import PROGRESS_FEATURE, PROTOCOL_VERSION, Status, WorkerStatus
from msd.wire.protocol.states import WorkerState
from msd.wire.support.presentable_names import shortened

#: Longer reasons are truncated: a snapshot of 64 workers must fit into the 64 KiB that a client accepts.
MAX_REASON_BYTES = 200


class SnapshotBuilder:
    """Builds snapshots from the supervisor's records. ``catalogue`` and ``files`` describe the published edition,
    ``indexing`` is the progress of the next one in percent.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._limits = {number: worker.rate for number, worker in enumerate(config.workers, 1)}
        self._epoch = secrets.randbits(62)
        self._seq = 0
        self._meters: defaultdict[int, SteadyRate] = defaultdict(SteadyRate)
        self.catalogue = b""
        self.files = 0
        self.indexing: int | None = None
        self.complaints = Complaints()
        #: The bytes that all workers have sent since the broker started, and the epoch and the last total of each
        #: worker's process.
        self.bytes_sent = 0
        self._last_sent: dict[int, tuple[int, int]] = {}

    def on_bytes_sent(self, worker: WorkerRecord, bytes_sent: int, now: float) -> None:
        """Updates the rate of ``worker``; ``bytes_sent`` is the total of its process."""
        epoch, before = self._last_sent.get(worker.number, (0, 0))
        if epoch != worker.epoch:
            # A worker that has joined may have run longer than this broker.
            before = 0 if worker.process is not None else bytes_sent
        if epoch != worker.epoch or worker.state is not WorkerState.AWAKE:
            # The time without service is no part of the rate.
            self._meters.pop(worker.number, None)
        # A worker that has joined may report anything.
        self.bytes_sent += max(0, bytes_sent - before)
        self._last_sent[worker.number] = (worker.epoch, bytes_sent)
        self._meters[worker.number].update(bytes_sent, now)

    def forget(self, number: int) -> None:
        """Forgets what is known of worker ``number``: another worker has taken its number."""
        self._meters.pop(number, None)
        self._last_sent.pop(number, None)
        self.complaints.forget(number)

    def build(
        self, supervisor: Supervisor, now: float, *, malformed_messages: int = 0, rejected_connections: int = 0
    ) -> Status:
        """The current state, with the next sequence number. ``malformed_messages`` and ``rejected_connections``
        are the broker's own totals.
        """
        self._seq += 1
        heartbeats = [worker.heartbeat for worker in supervisor.workers.values()]
        return Status(
            version=PROTOCOL_VERSION,
            features=[PROGRESS_FEATURE],
            epoch=self._epoch,
            seq=self._seq,
            interval=self._config.interval,
            control=self._config.control.url,
            catalogue=self.catalogue,
            # Without a published catalogue, each worker has its own.
            files=self.files if self.catalogue else max((h.files for h in heartbeats), default=0),
            indexing=self.indexing,
            # A heartbeat counts all clients, but lists a limited number of sessions.
            clients=max([len(supervisor.sessions), *(h.load.clients for h in heartbeats)]),
            malformed_messages=malformed_messages,
            rejected_connections=rejected_connections,
            workers=[
                WorkerStatus(
                    number=worker.number,
                    name=worker.name,
                    host=worker.host,
                    endpoint=worker.endpoint,
                    key=worker.key,
                    catalogue=worker.heartbeat.catalogue,
                    files=worker.heartbeat.files,
                    state=worker.state,
                    wanted=worker.wanted,
                    epoch=worker.heartbeat.epoch,
                    pid=worker.pid,
                    restarts=worker.process.restarts if worker.process is not None else 0,
                    clients=worker.heartbeat.load.clients,
                    bytes_sent=worker.heartbeat.load.bytes_sent,
                    # The last rate of a silent worker is stale.
                    rate=self._meters[worker.number].rate if worker.state is WorkerState.AWAKE else 0.0,
                    limit=self._limits.get(worker.number, 0) if worker.process is not None else 0,
                    complaints=worker.complaints,
                    complainants=self.complaints.clients(worker.number),
                    malformed_messages=worker.heartbeat.load.malformed_messages,
                    rejected_connections=worker.heartbeat.load.rejected_connections,
                    uptime=max(0.0, now - worker.started_at) if worker.started_at else 0.0,
                    reason=_reason(worker),
                )
                for worker in supervisor.workers.values()
            ],
        )


def _reason(worker: WorkerRecord) -> str:
    """Returns why a worker is not awake, or what an awake one cannot read."""
    reason = worker.heartbeat.load.trouble if worker.state is WorkerState.AWAKE else worker.reason
    return shortened(reason, MAX_REASON_BYTES)


def as_json(status: Status) -> Mapping[str, object]:
    """The object that ``msd status --json`` prints."""
    keys = (
        *(
            "number",
            "name",
            "host",
            "endpoint",
            "key",
            "catalogue",
            "files",
            "state",
            "wanted",
            "pid",
            "epoch",
            "restarts",
        ),
        *("clients", "bytes_sent", "rate", "limit"),
        *("complaints", "complainants", "garbage", "refused", "uptime", "reason"),
    )
    workers = [
        {**msgspec.to_builtins(worker), "key": worker.key.hex(), "catalogue": worker.catalogue.hex()}
        for worker in status.workers
    ]
    return {
        "workers": [{key: w[key] for key in keys} for w in workers],
        "files": status.files,
        "catalogue": status.catalogue.hex(),
        "indexing": status.indexing,
        "clients": status.clients,
        "garbage": status.malformed_messages,
        "refused": status.rejected_connections,
    }
