"""The union of several catalogues, and how many workers have each file."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from msd.client.manifest.shared_files import SharedFiles, workers_by_catalogue
from msd.client.plan.plan import Plan
from msd.wire.protocol.messages import Entry
from msd.wire.protocol.states import WorkerState
from tests.connections import opened
from tests.listings import entry
from tests.unit.snapshots import snapshot

OWN, OTHER = b"c" * 32, b"o" * 32


def plan_of(*entries: Entry) -> Plan:
    plan = Plan(has_units=False)
    plan.add(entries)
    return plan


def test_the_only_catalogue_is_not_copied() -> None:
    plan = plan_of(entry("a"), entry("d/"), entry("d/b"))
    files = SharedFiles()
    files.add(plan, 4)
    assert files.plan is plan
    assert files.is_uniform
    assert [*files] == [(entry("a"), 4), (entry("d/"), 4), (entry("d/b"), 4)]


def test_versions_of_a_file_follow_one_another_and_the_first_catalogue_gives_the_time() -> None:
    old = replace(entry("b"), id=b"o" * 32)
    files = SharedFiles()
    files.add(plan_of(entry("b"), entry("d/")), 2)
    files.add(plan_of(entry("a"), replace(entry("b"), mtime_ns=9)), 1)
    files.add(plan_of(old, entry("d/")), 5)
    assert [*files] == [(entry("a"), 1), (old, 5), (entry("b"), 3), (entry("d/"), 7)]
    assert files.workers == 8
    assert not files.is_uniform


def test_the_order_of_versions_does_not_depend_on_which_catalogue_came_first() -> None:
    versions = [(replace(entry("b"), id=id * 32), workers) for id, workers in ((b"y", 1), (b"z", 2), (b"x", 1))]
    for order in permutations(versions):
        files = SharedFiles()
        for version, workers in order:
            files.add(plan_of(version), workers)
        assert [e.id and (e.id[:1], workers) for e, workers in files] == [(b"z", 2), (b"x", 1), (b"y", 1)]


def test_catalogues_that_differ_only_in_times_are_uniform() -> None:
    files = SharedFiles()
    files.add(plan_of(entry("b")), 2)
    files.add(plan_of(replace(entry("b"), mtime_ns=9)), 1)
    assert files.is_uniform


@given(st.lists(st.sets(st.tuples(st.sampled_from("abcde"), st.integers(1, 3))), max_size=5))
def test_each_version_has_one_entry(catalogues: list[set[tuple[str, int]]]) -> None:
    files = SharedFiles()
    single = [dict(catalogue) for catalogue in catalogues]
    for catalogue in single:
        entries = [replace(entry(name), id=bytes([size]) * 32) for name, size in sorted(catalogue.items())]
        files.add(plan_of(*entries), 1)
    found = {(e.name, e.id[0] if e.id else 0): count for e, count in files}
    versions = {(name, size) for catalogue in single for name, size in catalogue.items()}
    assert found == {(name, size): sum(c.get(name) == size for c in single) for name, size in versions}
    assert [e.name for e, _ in files] == sorted(name for name, _ in found)


def test_the_processes_of_the_broker_serve_its_catalogue_although_they_still_load_it() -> None:
    awake = WorkerState.AWAKE
    status = snapshot(awake, awake, awake, awake, WorkerState.LOST, catalogue=OWN)
    values = [("", OTHER), ("192.0.2.1", OTHER), ("192.0.2.2", OWN), ("192.0.2.3", b""), ("192.0.2.4", OTHER)]
    workers = [replace(w, host=h, catalogue=c) for w, (h, c) in zip(status.workers, values, strict=True)]
    assert workers_by_catalogue(replace(status, workers=workers), {}) == {OWN: [1, 3], OTHER: [2]}


def test_without_a_snapshot_the_connected_workers_count() -> None:
    welcomes = {number: opened(number, catalogue=c).welcome for number, c in ((1, OTHER), (2, OWN), (3, OWN))}
    assert workers_by_catalogue(None, welcomes) == {OWN: [2, 3], OTHER: [1]}
