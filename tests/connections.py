"""Builds events of a client's connections for tests."""

from __future__ import annotations

from collections.abc import Sequence

from msd.client.network.pool import ConnectionPool
from msd.client.network_events import ConnectionOpened, NetworkEvent
from msd.wire.protocol.messages import PROTOCOL_VERSION, Welcome


def opened(
    worker: int,
    *,
    epoch: int = 7,
    catalogue: bytes = b"",
    files: int = 1,
    version: int = PROTOCOL_VERSION,
    round_trip: float = 0.0,
    features: Sequence[str] = (),
) -> ConnectionOpened:
    """The connection to a worker or a receiver was opened: these are values in its ``welcome``."""
    welcome = Welcome(
        rid=1,
        version=version,
        epoch=epoch,
        number=worker,
        files=files,
        catalogue=catalogue,
        features=[*features],
    )
    return ConnectionOpened(worker, welcome, round_trip)


def poll(pool: ConnectionPool, deadline: float | None) -> list[NetworkEvent]:
    """Waits until ``deadline`` at most and returns what has arrived."""
    pool.wait(deadline)
    return [*pool.events()]
