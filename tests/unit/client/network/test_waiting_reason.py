"""Why a client makes no progress, as text."""

from __future__ import annotations

from msgspec.structs import replace

from msd.client.network.waiting_reason import waiting_reason
from msd.wire.net.diagnosis import Contact, Outcome
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import Status
from msd.wire.protocol.states import WorkerState
from tests.unit.snapshots import snapshot

CONTACTS = (Contact("worker 1", Endpoint("127.0.0.1", 21018), Outcome.NO_ANSWER),)


def reason(status: Status | None, ready: int = 0) -> str:
    return waiting_reason(status, CONTACTS, ready=ready, workers=4)


def test_a_connected_client_that_receives_nothing_counts_its_workers() -> None:
    assert reason(None, ready=3) == "connected to 3 of 4 workers, but receiving no data"


def test_what_all_connected_workers_say_about_their_files_is_the_reason() -> None:
    text = waiting_reason(None, (), ready=2, workers=4, read_error="s3://films: 503 Slow Down")
    assert text == "no worker can read its files at the moment: s3://films: 503 Slow Down"


def test_the_files_that_wait_are_counted_while_workers_are_reachable() -> None:
    reasons = ["a changed", "b changed", "c changed"]
    for count, text in {1: "a changed", 2: "a changed (and 1 more file)", 3: "a changed (and 2 more files)"}.items():
        assert waiting_reason(None, (), ready=1, workers=4, file_reasons=reasons[:count]) == text
    assert waiting_reason(snapshot(WorkerState.AWAKE), (), ready=0, workers=4, file_reasons=reasons[:1]) == "a changed"
    asleep = snapshot(WorkerState.ASLEEP)
    assert "asleep" in waiting_reason(asleep, (), ready=0, workers=4, file_reasons=reasons)


def test_without_a_snapshot_the_addresses_and_their_answers_are_named() -> None:
    assert reason(None).startswith("worker 1 at 127.0.0.1:21018 does not answer: check the address, ")


def test_a_status_without_a_catalogue_means_that_files_are_being_indexed() -> None:
    assert reason(snapshot(catalogue=b"")) == "the servers are still indexing their files"


def test_workers_of_other_hosts_have_indexed_their_files() -> None:
    status = snapshot(WorkerState.AWAKE, WorkerState.LOST, catalogue=b"")
    hosts = replace(status, workers=[replace(worker, host="192.0.2.1") for worker in status.workers])
    assert reason(hosts).startswith("server 5 reports 1 worker alive, but none is reachable: ")
    assert reason(replace(status, workers=[])) == "no worker has joined server 5 yet"


def test_awake_workers_that_cannot_be_reached_are_counted_and_named() -> None:
    status = snapshot(WorkerState.AWAKE, WorkerState.DEAD)
    counted = "server 5 reports 1 worker alive, but none is reachable: worker 1 at 127.0.0.1:21018 does not answer: "
    assert reason(status).startswith(counted)


def test_a_snapshot_does_not_count_once_its_server_5_is_gone() -> None:
    contacts = (Contact("server 5", Endpoint("127.0.0.1", 39223), Outcome.REFUSED), *CONTACTS)
    text = waiting_reason(snapshot(WorkerState.AWAKE), contacts, ready=0, workers=4, file_reasons=["a changed"])
    assert text.startswith("server 5 at 127.0.0.1:39223 refuses the connection; worker 1 at 127.0.0.1:21018 does ")


def test_a_state_that_all_workers_have_is_named_once() -> None:
    asleep = "all 2 workers are asleep: their operator wakes them with msd toggle all --wake"
    assert reason(snapshot(WorkerState.ASLEEP, WorkerState.ASLEEP)) == asleep
    assert reason(snapshot(WorkerState.DEAD, WorkerState.DEAD)) == "all 2 workers are dead"
    assert reason(snapshot(WorkerState.ASLEEP)) == "0 of 1 workers alive (worker 1 asleep)"


def test_the_states_of_the_workers_are_listed_if_none_is_alive() -> None:
    status = snapshot(WorkerState.ASLEEP, WorkerState.DEAD)
    assert reason(status) == "0 of 2 workers alive (worker 1 asleep, worker 2 dead)"
