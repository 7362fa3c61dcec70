"""Which pages are requested for a selection, and the plan that they result in."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from msd.client.plan.plan import BundleUnit, SegmentUnit
from msd.client.plan.planner import Planner
from msd.wire.errors import NotFoundError, ProtocolError
from msd.wire.protocol.messages import List
from tests.listings import CATALOGUE, entry, page_of

MIB = 1 << 20
LISTING = [
    entry(name, size)
    for name, size in [
        ("[dir]/", 0),
        ("[dir]/a", 5),
        ("film [1].mkv", 12 * MIB),
        ("film 1.mkv", 5),
        ("photos/", 0),
        ("photos/2023/", 0),
        ("photos/2023/a.jpg", 6),
        ("photos/2023/b.jpg", 2 * MIB),
        ("photos/c.jpg", 7),
        ("photos/d.jpg", 0),
        ("photos-old/", 0),
        ("photos-old/a.jpg", 8),
    ]
]
LISTING.sort(key=lambda entry: entry.name)
ALL = [entry.name for entry in LISTING]


def run(planner: Planner, limit: int = 100) -> list[tuple[str, str]]:
    """Plans with a worker that shares ``LISTING``. Returns the prefixes and last names of the requests."""
    requests = []
    units = planner.plan.units
    while request := planner.next_request():
        requests.append((request.prefix, request.after))
        for group in planner.add_page(page_of(LISTING, request, limit)):
            units += len(group.sizes)
    assert units == planner.plan.units
    return requests


def names(planner: Planner) -> list[str]:
    return [planner.plan.entry(number).name for number in range(len(planner.plan))]


def test_a_folder_is_listed_page_by_page() -> None:
    planner = Planner(["photos/"], ["c.jpg"])
    assert run(planner, limit=2) == [("photos/", ""), ("photos/", "photos/2023/"), ("photos/", "photos/2023/b.jpg")]
    assert names(planner) == ["photos/", "photos/2023/", "photos/2023/a.jpg", "photos/2023/b.jpg", "photos/d.jpg"]
    assert planner.plan.unit(0) == BundleUnit((2,))
    assert planner.plan.unit(12) == SegmentUnit(3, 11)
    assert planner.plan.units == 13
    assert planner.not_found([]) == []


def test_every_request_after_the_first_is_for_the_same_edition() -> None:
    planner = Planner(["photos/", "photos-old/"])
    request = planner.next_request()
    assert request is not None
    assert request.catalogue is None
    planner.add_page(page_of(LISTING, request))
    request = planner.next_request()
    assert request is not None
    assert (request.prefix, request.catalogue) == ("photos/", CATALOGUE)


def test_a_name_is_first_looked_for_among_the_files() -> None:
    planner = Planner(["photos-old/a.jpg", "photos", "film 1.mkv"])
    assert run(planner, limit=4) == [
        ("film 1.mkv", ""), ("photos", ""), ("photos-old/a.jpg", ""), ("photos/", ""), ("photos/", "photos/2023/b.jpg")
    ]  # fmt: skip
    assert names(planner) == ["film 1.mkv", "photos-old/a.jpg", *(name for name in ALL if name.startswith("photos/"))]


def test_a_name_that_looks_like_a_glob_is_listed_first() -> None:
    planner = Planner(["film [1].mkv"])
    assert run(planner) == [("film [1].mkv", ""), ("film [1].mkv", "")]
    assert names(planner) == ["film [1].mkv"]
    planner = Planner(["film [12].mkv", "photos/*.jpg"])
    assert run(planner) == [("film [12].mkv", ""), ("photos/*.jpg", ""), ("film ", ""), ("photos/", "")]
    assert names(planner) == ["film 1.mkv", "photos/c.jpg", "photos/d.jpg"]
    for name in ("[dir]", "[dir]/"):
        planner = Planner([name])
        run(planner)
        assert names(planner) == ["[dir]/", "[dir]/a"]


def test_a_single_file_has_segments_whatever_its_size() -> None:
    for name, segments in (("film 1.mkv", 5), ("film [1].mkv", 12)):
        planner = Planner([name])
        run(planner)
        assert [planner.plan.unit(unit) for unit in range(planner.plan.units)] == [
            SegmentUnit(0, index) for index in range(segments)
        ]


def test_a_small_file_is_in_a_bundle_unless_it_is_the_only_one() -> None:
    for selected in (["film 1.mkv", "photos/c.jpg"], ["photos"]):
        planner = Planner(selected)
        run(planner)
        assert isinstance(planner.plan.unit(0), BundleUnit)


def test_the_plan_of_one_file_does_not_depend_on_how_it_was_selected() -> None:
    plans = []
    for selected in (["film 1.mkv"], ["film 1.mkv", "missing"], ["film ?.mkv"]):
        planner = Planner(selected)
        run(planner)
        plans.append(planner.plan)
    assert {plan.id for plan in plans} == {entry("film 1.mkv").id}
    assert {(plan.units, plan.unit(4)) for plan in plans} == {(5, SegmentUnit(0, 4))}


def test_names_that_select_nothing_are_errors() -> None:
    planner = Planner(["film", "photos", "*.txt"], ["a"])
    assert planner.not_found([]) == []
    run(planner)
    errors = planner.not_found(["film 1.mkv"])
    assert [str(error) for error in errors] == [
        "'film' is not shared: msd list shows the shared files",
        "no shared file matches '*.txt', or all are excluded: msd list shows the shared files",
    ]
    assert [(error.name, error.names) for error in errors] == [("film", ["film 1.mkv"]), ("*.txt", ["film 1.mkv"])]


def test_an_impossible_name_is_an_error() -> None:
    with pytest.raises(NotFoundError):
        Planner(["../*"])


@pytest.mark.parametrize("hostile", [["photos/c", "photos/c/d"], ["photos/c/", "photos/c/../d"], ["photos/c\x1b"]])
def test_a_hostile_page_is_refused_and_another_worker_can_send_it(hostile: list[str]) -> None:
    planner, undisturbed = Planner(["photos/"]), Planner(["photos/"])
    run(undisturbed, limit=4)
    request = planner.next_request()
    assert request is not None
    planner.add_page(page_of(LISTING, request, limit=4))
    before = planner.next_request()
    with pytest.raises(ProtocolError):
        planner.add_page(page_of([entry(name) for name in hostile], List(rid=1)))
    retry = planner.next_request()
    assert before is not None
    assert retry is not None
    assert replace(retry, rid=before.rid) == before
    run(planner, limit=4)
    assert names(planner) == names(undisturbed)
    assert planner.plan.id == undisturbed.plan.id


def test_the_edition_of_a_refused_page_is_not_requested() -> None:
    planner = Planner(["photos/"])
    with pytest.raises(ProtocolError):
        planner.add_page(page_of([entry("photos//")], List(rid=1), catalogue=b"d" * 32))
    request = planner.next_request()
    assert request is not None
    assert request.catalogue is None


def test_a_list_without_units_has_no_limit() -> None:
    planner = Planner(["/"], has_units=False)
    request = planner.next_request()
    assert request is not None
    assert planner.add_page(page_of([entry("huge", 1 << 62), entry("huge too", 1 << 62)], request)) == []
    assert (names(planner), planner.plan.units) == (["huge", "huge too"], 0)


def test_it_is_known_after_the_first_page_whether_a_name_is_a_glob() -> None:
    for name, is_glob in {"film [1].mkv": False, "photos/*.jpg": True, "photos": False}.items():
        planner = Planner([name])
        if name != "photos":
            assert planner.has_globs is None
            request = planner.next_request()
            assert request is not None
            planner.add_page(page_of(LISTING, request))
        assert planner.has_globs is is_glob
