"""The units of files: which segments and bundles there are, how they are requested, and their ids."""

from __future__ import annotations

from array import array

import msgspec
import pytest
from blake3 import blake3

from msd.client.plan import plan as plan_module
from msd.client.plan.plan import BundleUnit, Group, Plan, SegmentUnit
from msd.wire.errors import UsageError
from msd.wire.protocol.messages import Entry, Get, GetBundle
from msd.wire.protocol.segments import segment_count
from tests.listings import entry

MIB = 1 << 20


def planned(*sizes: int) -> tuple[Plan, list[Group]]:
    """The complete plan of files with these sizes, in order."""
    plan = Plan()
    groups = plan.add(entry(f"{number:04}", size) for number, size in enumerate(sizes))
    return plan, groups + plan.finish()


def group(number: int, *sizes: int) -> Group:
    return Group(number, array("I", sizes))


def units(*sizes: int) -> list[SegmentUnit | BundleUnit]:
    plan, _ = planned(*sizes)
    return [plan.unit(unit) for unit in range(plan.units)]


def without_rid(request: Get | GetBundle) -> Get | GetBundle:
    return msgspec.structs.replace(request, rid=0)


def test_small_files_that_follow_one_another_are_a_bundle() -> None:
    assert units(5, 7, 9) == [BundleUnit((0, 1, 2))]
    assert planned(5, 7, 9)[1] == [group(0, 21)]


def test_a_bundle_ends_before_a_file_that_exceeds_its_size() -> None:
    assert units(MIB - 5, 5, 1) == [BundleUnit((0, 1)), BundleUnit((2,))]
    assert units(MIB, MIB) == [BundleUnit((0,)), BundleUnit((1,))]
    assert units(1, MIB, 1) == [BundleUnit((0,)), BundleUnit((1,)), BundleUnit((2,))]


def test_a_bundle_has_at_most_512_files() -> None:
    assert units(*[1] * 1025) == [
        BundleUnit(tuple(range(512))), BundleUnit(tuple(range(512, 1024))), BundleUnit((1024,))
    ]  # fmt: skip


def test_a_large_file_has_its_segments_and_ends_a_bundle() -> None:
    plan, groups = planned(5, MIB + 1, 7)
    assert groups == [group(0, 5), group(1, *[87382] * 11, 87375), group(2, 7)]
    assert plan.unit(0) == BundleUnit((0,))
    assert [plan.unit(unit) for unit in range(1, 13)] == [SegmentUnit(1, index) for index in range(12)]
    assert plan.unit(13) == BundleUnit((2,))


def test_empty_files_and_folders_have_no_units_and_end_no_bundle() -> None:
    assert units(0, 5, 0, 0, 7, 0) == [BundleUnit((1, 4))]
    assert units(0, 0) == []
    plan = Plan()
    plan.add([entry("a"), entry("b/"), entry("b/c"), entry("d/")])
    plan.finish()
    assert [plan.unit(unit) for unit in range(plan.units)] == [BundleUnit((0, 2))]
    assert len(plan) == 4


def test_empty_files_cost_no_place_in_a_bundle() -> None:
    assert units(*[1, 0] * 512) == [BundleUnit(tuple(range(0, 1024, 2)))]


@pytest.mark.parametrize(("sizes", "number"), [((245,), 0), ((0, 0, 245, 0), 2)])
def test_the_only_file_that_is_not_empty_has_segments_whatever_its_size(sizes: tuple[int, ...], number: int) -> None:
    plan, groups = planned(*sizes)
    assert groups == [group(number, *[21] * 11, 14)]
    assert [plan.unit(unit) for unit in range(plan.units)] == [SegmentUnit(number, index) for index in range(12)]
    id = entry(f"{number:04}").id or b""
    assert without_rid(plan.request(11)) == Get(rid=0, id=id, index=11)
    assert plan.id == id
    assert planned(0)[1] == []


def test_a_bundle_of_one_file_that_is_ended_remains_a_bundle() -> None:
    plan = Plan()
    plan.add([entry("a", 245)])
    assert plan.end_bundle() == [group(0, 245)]
    assert plan.unit(0) == BundleUnit((0,))


def test_entries_are_returned_as_they_were_added() -> None:
    entries = [
        Entry(name="ä/", size=0, mtime_ns=-5, mode=0o700),
        Entry(name="ä/empty", size=0, mtime_ns=2**63 - 1, mode=0, id=b"0" * 32),
        Entry(name="星.mp4", size=1 << 46, mtime_ns=-(2**63), mode=0o777, id=b"1" * 32),
    ]
    plan = Plan()
    plan.add(entries)
    assert [plan.entry(number) for number in range(len(plan))] == entries
    assert plan.size == 1 << 46


def test_a_group_is_complete_once_no_file_can_be_added_to_it() -> None:
    plan = Plan()
    assert plan.add([entry("a", 5), entry("b/")]) == []
    assert plan.units == 0
    assert plan.add([entry("c", MIB)]) == [group(0, 5)]
    assert plan.unit(0) == BundleUnit((0,))
    assert plan.add([entry("d", 2 * MIB)]) == [group(2, MIB), group(3, *[174763] * 11, 174759)]
    assert plan.finish() == []


def test_a_segment_or_a_part_of_it_is_requested() -> None:
    plan, _ = planned(5, 2 * MIB)
    id = entry("0001").id or b""
    assert without_rid(plan.request(1)) == Get(rid=0, id=id, index=0)
    assert without_rid(plan.request(12, 100, 50)) == Get(rid=0, id=id, index=11, start=100, length=50)
    assert plan.request(1).rid != plan.request(1).rid


@pytest.mark.parametrize(
    ("start", "length", "files", "offset"),
    [
        (0, None, [1, 2, 4], 0),
        (0, 30, [1, 2, 4], 0),
        (0, 5, [1], 0),
        (3, 2, [1], 3),
        (3, 3, [1, 2], 3),
        (5, 15, [2], 0),
        (5, None, [2, 4], 0),
        (19, 2, [2, 4], 14),
        (20, 10, [4], 0),
        (29, 1, [4], 9),
        (29, None, [4], 9),
    ],
)
def test_a_bundle_or_a_part_of_it_is_requested(start: int, length: int | None, files: list[int], offset: int) -> None:
    """Only the files that have bytes in the part are requested."""
    plan, _ = planned(0, 5, 15, 0, 10, 0, MIB)
    request = plan.request(0, start, length)
    ids = b"".join(entry(f"{number:04}").id or b"" for number in files)
    assert without_rid(request) == GetBundle(rid=0, ids=ids, start=offset, length=length)


def test_the_id_of_a_plan_depends_on_its_units_and_their_order_only() -> None:
    plan, _ = planned(5, 0, 7, 2 * MIB)
    small, large = (entry("0000").id or b"") + (entry("0002").id or b""), entry("0003").id or b""
    ids = [blake3(small).digest()]
    ids += [blake3(large + index.to_bytes(8, "big")).digest() for index in range(12)]
    assert plan.id == blake3(b"".join(ids)).digest()
    assert planned(5, 0, 7, 2 * MIB)[0].id == plan.id
    assert planned()[0].id == blake3(b"").digest()
    assert len({planned(*sizes)[0].id for sizes in ((5, 7), (5, 7, 1), (5,), (0, 7))}) == 4


@pytest.mark.parametrize("size", [5, MIB, 2 * MIB])
def test_the_id_of_a_plan_of_one_file_is_that_of_the_file(size: int) -> None:
    assert planned(size)[0].id == planned(size, 0)[0].id == entry("0000").id
    assert planned(0, size, 0)[0].id == entry("0001").id
    assert planned(size, 1)[0].id != entry("0000").id


def test_too_many_units_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "MAX_UNITS", 30)
    plan = Plan()
    plan.add([entry("a", 2 * MIB), entry("b", 2 * MIB)])
    with pytest.raises(UsageError, match="the selected files have more than 30 segments: select fewer files"):
        plan.add([entry("c", 2 * MIB)])


def test_the_memory_of_a_large_file_is_that_of_a_small_one() -> None:
    size = 1 << 46
    plan, groups = planned(*[size] * 16)
    assert plan.units == 16 * segment_count(size) == plan_module.MAX_UNITS
    assert [len(group.sizes) for group in groups] == [1 << 20] * 16
    assert plan.unit(plan.units - 1) == SegmentUnit(15, (1 << 20) - 1)
