"""Explains to the user why a client makes no progress. Pure: does not decide when to show the explanation."""

from __future__ import annotations

from collections.abc import Sequence

from msd.wire.net.diagnosis import Contact, Outcome, diagnose
from msd.wire.protocol.messages import PROTOCOL_VERSION, Status
from msd.wire.protocol.states import WorkerState
from msd.wire.support.units import format_count

#: The name of server 5 among the contacts.
SERVER_5 = "server 5"


def other_version(version: int | None) -> str:
    """Returns the explanation for a server that uses another ``version`` of the protocol."""
    return f"it uses protocol version {version}, but this client uses version {PROTOCOL_VERSION}: update the older side"


def waiting_reason(
    status: Status | None,
    contacts: Sequence[Contact],
    *,
    ready: int,
    workers: int,
    file_reasons: Sequence[str] = (),
    read_error: str = "",
) -> str:
    """Returns the reason why there is no progress, as text for the user.

    ``status`` is the last snapshot, None while server 5 does not answer. ``contacts`` is what came back from each
    address; the snapshot does not count if server 5 is gone. ``ready`` is the number of connected workers, ``workers``
    the number of known ones. ``file_reasons`` say why files cannot be fetched although workers are reachable,
    ``read_error`` why no connected worker can read its files at the moment.
    """
    if any(contact.name == SERVER_5 and contact.outcome is not Outcome.ANSWERS for contact in contacts):
        # The snapshot is of a server 5 that has ended since.
        status = None
    states = [worker.state for worker in status.workers] if status is not None else []
    if file_reasons and (ready or WorkerState.AWAKE in states):
        more = f" (and {format_count(len(file_reasons) - 1, 'more file')})" if len(file_reasons) > 1 else ""
        return file_reasons[0] + more
    if ready and read_error:
        return f"no worker can read its files at the moment: {read_error}"
    if ready:
        return f"connected to {ready} of {workers} workers, but receiving no data"
    if status is None:
        return diagnose(contacts, PROTOCOL_VERSION)
    if not status.workers:
        return "no worker has joined server 5 yet"
    if not status.catalogue and not any(worker.catalogue or worker.host for worker in status.workers):
        return "the servers are still indexing their files"
    if WorkerState.AWAKE in states:
        alive = format_count(states.count(WorkerState.AWAKE), "worker")
        return f"server 5 reports {alive} alive, but none is reachable: {diagnose(contacts, PROTOCOL_VERSION)}"
    if len(states) > 1 and len({*states}) == 1:
        advice = ": their operator wakes them with msd toggle all --wake" if states[0] is WorkerState.ASLEEP else ""
        return f"all {len(states)} workers are {states[0]}{advice}"
    details = ", ".join(f"worker {worker.number} {worker.state}" for worker in status.workers)
    return f"0 of {len(states)} workers alive ({details})"
