"""Which complaints are valid and new, and who is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from msd.broker.supervision import complaints as module
from msd.broker.supervision.complaints import Complaints, read_segment_counts, rejection
from msd.wire.protocol.messages import Complaint
from msd.workers.source.catalogue import SharedFile, SharedFolder, Version
from tests.unit.shares import write_edition

COMPLAINT = Complaint(rid=1, number=2, id=bytes(32), index=0)


@pytest.mark.parametrize(
    ("complaint", "reason"),
    [
        (COMPLAINT, ""),
        (replace(COMPLAINT, index=11), ""),
        (replace(COMPLAINT, index=12), "no segment 12: the file has 12 segments"),
        (replace(COMPLAINT, id=b"x" * 32), "no shared file has this id"),
    ],
)
def test_a_complaint_must_name_a_shared_segment(complaint: Complaint, reason: str) -> None:
    assert rejection(complaint, {bytes(32): 12}) == reason


def test_a_complaint_is_new_once_for_each_client_worker_and_segment() -> None:
    complaints = Complaints()
    different = [COMPLAINT, replace(COMPLAINT, number=1), replace(COMPLAINT, id=b"x" * 32), replace(COMPLAINT, index=1)]
    for client in ("alice", "bob"):
        assert [complaints.is_new(client, complaint) for complaint in different] == [True] * 4
        assert not any(complaints.is_new(client, replace(complaint, rid=9)) for complaint in different)


def test_the_clients_with_the_most_complaints_are_named() -> None:
    complaints = Complaints()
    for count, client in enumerate(("alice", "bob", "carol", "dave"), 1):
        for index in range(count):
            assert complaints.is_new(client, replace(COMPLAINT, index=index))
    assert complaints.clients(2) == ["dave", "carol", "bob"]
    assert complaints.clients(1) == []


def test_a_client_is_called_as_operators_call_it_but_told_apart_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 1)
    complaints = Complaints()
    assert complaints.is_new("192.0.2.7", COMPLAINT, "anna@laptop")
    assert complaints.clients(2) == ["anna@laptop"]
    assert not complaints.is_new("192.0.2.7", COMPLAINT, "another name")
    assert complaints.is_new("192.0.2.8", COMPLAINT)
    assert complaints.clients(2) == ["192.0.2.8"]


def test_the_oldest_complaints_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 2)
    complaints = Complaints()
    for index in range(3):
        complaints.is_new("alice", replace(COMPLAINT, index=index))
    assert not complaints.is_new("alice", replace(COMPLAINT, index=2))
    assert complaints.is_new("alice", COMPLAINT)


def test_a_client_whose_complaints_are_all_forgotten_is_named_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 2)
    complaints = Complaints()
    for client, index in (("alice", 0), ("bob", 0), ("bob", 1)):
        complaints.is_new(client, replace(COMPLAINT, index=index))
    assert complaints.clients(2) == ["bob"]
    complaints.is_new("carol", COMPLAINT)
    assert sorted(complaints.clients(2)) == ["bob", "carol"]


def test_the_ids_are_read_from_the_catalogue_of_the_indexer(tmp_path: Path) -> None:
    file = SharedFile("b/film", Version(1, 2, 245, 3, 4), bytes(range(32)))
    write_edition(tmp_path, [SharedFolder("b/", 0o755), file])
    assert read_segment_counts(tmp_path) == {file.id: 12}
