"""Decides whether a worker may join, and as which worker: pure.

A worker holds its name until it is lost. Does not change the workers' records: see
``broker/supervision/supervisor.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from secrets import compare_digest

from msd.broker.supervision.supervisor import WorkerRecord
from msd.wire.config.toml_file import MAX_WORKERS
from msd.wire.protocol.messages import Join
from msd.wire.protocol.states import WorkerState


def register(join: Join, workers: Mapping[int, WorkerRecord], token: bytes) -> int | str:
    """Returns the number of the worker that joins, or why it may not join. ``token`` is the broker's: it is that of the
    processes that the broker has started.
    """
    holder = next((worker for worker in workers.values() if worker.name == join.name), None)
    if compare_digest(join.token, token):
        # The process may have been replaced while this message was on its way.
        is_current = holder is not None and holder.pid == join.pid != 0 and holder.epoch in (0, join.epoch)
        return holder.number if holder is not None and is_current else "the broker does not expect this process"
    if holder is not None:
        if holder.process is not None:
            return f"the name {join.name} is that of a worker of the broker itself"
        is_same_run = holder.epoch == join.epoch and compare_digest(holder.token, join.token)
        if is_same_run or holder.state is WorkerState.LOST:
            return holder.number
        return f"the name {join.name} is in use by a worker on {holder.host}"
    if len(workers) < MAX_WORKERS:
        if join.number is not None and join.number not in workers:
            return join.number
        return next(number for number in range(1, MAX_WORKERS + 1) if number not in workers)
    lost = [worker for worker in workers.values() if worker.state is WorkerState.LOST]
    if not lost:
        return f"there are already {MAX_WORKERS} workers"
    return min(lost, key=lambda worker: worker.last_heartbeat_at).number
