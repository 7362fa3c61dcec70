"""Decides whether a worker may join, and as which worker: pure.

A worker holds its name until it is lost; while it is silent, another run on the same host may take its place. Does not
change the workers' records: see ``broker/supervision/supervisor.py``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from secrets import compare_digest

from msd.broker.supervision.worker_record import WorkerRecord
from msd.wire.config.toml_file import MAX_WORKERS
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import ANY_HOSTS, Endpoint
from msd.wire.protocol.messages import Join
from msd.wire.protocol.states import WorkerState


def register(
    join: Join, workers: Mapping[int, WorkerRecord], token: bytes, *, host: str = "", admission: bytes = b""
) -> int | str:
    """Returns the number of the worker that joins, or why it may not join. ``token`` is the broker's: it is that of the
    processes that the broker has started. Any other worker joins from ``host``, with the admitted key ``admission``.
    """
    holder = next((worker for worker in workers.values() if worker.name == join.name), None)
    if compare_digest(join.token, token):
        # The process may have been replaced while this message was on its way.
        is_current = holder is not None and holder.pid == join.pid != 0 and holder.epoch in (0, join.epoch)
        return holder.number if holder is not None and is_current else "the broker does not expect this process"
    if admission and not join.key:
        return "these servers use keys: a worker needs a key of its own, and names it in its join"
    if holder is not None:
        if holder.process is not None:
            return f"the name {join.name} is that of a worker of the broker itself"
        is_same_run = holder.epoch == join.epoch and compare_digest(holder.token, join.token)
        has_same_origin = (holder.host, holder.admission) == (host, admission)
        if is_same_run or holder.state is WorkerState.LOST or (holder.state is WorkerState.SILENT and has_same_origin):
            return holder.number
        return f"the name {join.name} is in use by a worker on {holder.host}: give another one with --name"
    if len(workers) < MAX_WORKERS:
        if join.number is not None and join.number not in workers:
            return join.number
        return next(number for number in range(1, MAX_WORKERS + 1) if number not in workers)
    lost = [worker for worker in workers.values() if worker.state is WorkerState.LOST]
    if not lost:
        return f"there are already {MAX_WORKERS} workers"
    return min(lost, key=lambda worker: worker.last_heartbeat_at).number


def published_endpoint(advertised: str, host: str) -> Endpoint:
    """Returns the endpoint at which clients find a worker that has joined from ``host`` and advertises this one. Raises
    ``UsageError``.

    A worker that listens on all addresses of its machine is found at the one from which it joined. If that is an
    address of the broker's own machine, the wildcard remains: clients replace it by the address of server 5. The scope
    of a link-local address is that of ``host``: another one names an interface of the worker's machine.
    """
    endpoint = Endpoint.parse(advertised)
    if endpoint.host in ANY_HOSTS:
        return endpoint if Endpoint(host, endpoint.port).is_loopback else Endpoint(host, endpoint.port)
    without_scope = endpoint.host.partition("%")[0]
    try:
        address = ipaddress.ip_address(without_scope)
    except ValueError:
        raise UsageError(f"{endpoint.host} is not an IP address: check --advertise") from None
    if address.is_multicast or address.is_unspecified:
        raise UsageError(f"{endpoint.host} is not the address of a machine: check --advertise")
    return Endpoint(without_scope, endpoint.port).with_scope_of(host)
