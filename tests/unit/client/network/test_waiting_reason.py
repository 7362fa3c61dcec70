"""Why a client makes no progress, as text."""

from __future__ import annotations

import pytest

from msd.client.network.waiting_reason import Peers, explain_refusal, waiting_reason
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import Status
from msd.wire.protocol.states import ConnectionRefusal, WorkerState
from tests.unit.snapshots import snapshot

PEERS = Peers(Endpoint("127.0.0.1", 39223), False, {3: 7})


def reason(status: Status | None, refusal: ConnectionRefusal | None = None, ready: int = 0) -> str:
    return waiting_reason(status, refusal, PEERS, ready=ready, workers=4)


def test_a_connected_client_that_receives_nothing_counts_its_workers() -> None:
    assert reason(None, ready=3) == "connected to 3 of 4 workers, but receiving no data"


def test_without_a_snapshot_server_5_is_named() -> None:
    assert reason(None) == "no answer from server 5 at 127.0.0.1:39223: is msd serve running there?"


def test_failed_handshakes_suggest_a_wrong_server_key() -> None:
    assert reason(None, ConnectionRefusal.HANDSHAKE).endswith("during the handshake: is the server key correct?")


@pytest.mark.parametrize("refusal", [ConnectionRefusal.KEY, ConnectionRefusal.VERSION])
def test_any_other_refusal_is_explained(refusal: ConnectionRefusal) -> None:
    assert reason(None, refusal) == explain_refusal(refusal, PEERS)
    assert "server key correct" not in reason(None, refusal)


def test_another_protocol_version_is_named_with_its_worker() -> None:
    explained = explain_refusal(ConnectionRefusal.VERSION, PEERS)
    assert explained.endswith(", worker 3 uses version 7: update the older side")


def test_a_status_without_a_catalogue_means_that_files_are_being_indexed() -> None:
    assert reason(snapshot(catalogue=b"")) == "the servers are still indexing their files"


def test_awake_workers_that_cannot_be_reached_are_counted() -> None:
    status = snapshot(WorkerState.AWAKE, WorkerState.DEAD)
    assert reason(status) == "server 5 reports 1 worker alive, but none is reachable"


def test_the_states_of_the_workers_are_listed_if_none_is_alive() -> None:
    status = snapshot(WorkerState.ASLEEP, WorkerState.DEAD)
    assert reason(status) == "0 of 2 workers alive (worker 1 asleep, worker 2 dead)"
