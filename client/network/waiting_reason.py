"""Explains to the user why a client makes no progress. Pure: does not decide when to show the explanation."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import PROTOCOL_VERSION, Status
from msd.wire.protocol.states import ConnectionRefusal, WorkerState
from msd.wire.support.units import format_count


class Peers(Struct, frozen=True):
    """The servers as a client knows them.

    ``other_versions`` contains only the workers whose protocol version differs from the client's: it maps the worker's
    number to that version.
    """

    server5: Endpoint
    encrypted: bool
    other_versions: Mapping[int, int]


def waiting_reason(
    status: Status | None, refusal: ConnectionRefusal | None, peers: Peers, *, ready: int, workers: int
) -> str:
    """Returns the reason why there is no progress, as text for the user.

    ``status`` is the last snapshot, None while server 5 does not answer. ``refusal`` is the reason why connections are
    refused, None if they are not. ``ready`` is the number of connected workers, ``workers`` the number of known ones.
    """
    if ready:
        return f"connected to {ready} of {workers} workers, but receiving no data"
    if refusal is ConnectionRefusal.HANDSHAKE:
        return f"{peers.server5} closes every connection during the handshake: is the server key correct?"
    if refusal is not None:
        return explain_refusal(refusal, peers)
    if status is None:
        return f"no answer from server 5 at {peers.server5}: is msd serve running there?"
    if not status.catalogue:
        return "the servers are still indexing their files"
    states = [worker.state for worker in status.workers]
    if WorkerState.AWAKE in states:
        alive = format_count(states.count(WorkerState.AWAKE), "worker")
        return f"server 5 reports {alive} alive, but none is reachable"
    details = ", ".join(f"worker {worker.number} {worker.state}" for worker in status.workers)
    return f"0 of {len(states)} workers alive ({details})"


def explain_refusal(refusal: ConnectionRefusal, peers: Peers) -> str:
    """Returns text that explains why the servers refuse the client's connections, and what to do about it."""
    if refusal is ConnectionRefusal.VERSION:
        others = ", ".join(
            f"worker {number} uses version {version}" for number, version in peers.other_versions.items()
        )
        return f"this client uses protocol version {PROTOCOL_VERSION}, {others}: update the older side"
    return refusal.explain(peers.server5, encrypted=peers.encrypted)
