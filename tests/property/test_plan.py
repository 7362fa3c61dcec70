"""The plan of a download: the same however the listing is divided, complete, and safe against hostile pages."""

from __future__ import annotations

import fnmatch
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from msd.client.network.reply_check import check_reply
from msd.client.plan.plan import BundleUnit, Group, Plan
from msd.client.plan.planner import Planner
from msd.wire.errors import ProtocolError
from msd.wire.protocol.messages import MAX_BUNDLE_FILES, CataloguePage, Entry, Get, GetBundle
from msd.wire.protocol.segments import DIGEST_SIZE, MAX_BUNDLE_SIZE, segment_count, span
from tests.listings import CATALOGUE, entry, page_of

MIB = 1 << 20
SIZES = st.one_of(
    st.just(0),
    st.integers(1, 100),
    st.integers(1, MIB),
    st.sampled_from([MIB - 1, MIB, MIB + 1]),
    st.integers(MIB, 1 << 36),
)
PARTS = st.text("ab-.", min_size=1, max_size=2).filter(lambda part: part not in (".", ".."))
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@st.composite
def listings(draw: st.DrawFn) -> list[Entry]:
    """The sorted entries of a tree."""
    files = draw(st.dictionaries(NAMES, SIZES, max_size=30))
    folders = {name[: index + 1] for name in files for index, c in enumerate(name) if c == "/"}
    entries = [entry(name, size) for name, size in files.items() if f"{name}/" not in folders]
    return sorted([*entries, *map(entry, sorted(folders))], key=lambda entry: entry.name)


def plan_of(listing: list[Entry], names: list[str], excludes: list[str], limits: list[int]) -> tuple[Plan, list[Group]]:
    """Plans with pages of the given numbers of entries, and then larger ones."""
    planner = Planner(names, excludes)
    groups = []
    pages = iter(limits)
    while request := planner.next_request():
        groups += planner.add_page(page_of(listing, request, next(pages, 50)))
    return planner.plan, groups


def described(plan: Plan, groups: list[Group]) -> object:
    return (
        [plan.entry(number) for number in range(len(plan))],
        [plan.unit(unit) for unit in range(min(plan.units, 50))],
        plan.units,
        groups,
    )


NAME_LISTS = st.lists(
    st.one_of(NAMES, NAMES.map(lambda n: f"{n}/"), st.sampled_from(["**", "a*", "*/b*", "**/b", "a/**", "?/"])),
    min_size=1,
    max_size=3,
)
EXCLUDES = st.lists(st.sampled_from(["b", "a/", "*a", "/a/b", "**/b-"]), max_size=1)


@given(listings(), NAME_LISTS, EXCLUDES, st.lists(st.integers(1, 5), max_size=20))
def test_the_plan_is_the_same_however_the_listing_is_divided(
    listing: list[Entry], names: list[str], excludes: list[str], limits: list[int]
) -> None:
    divided, whole = plan_of(listing, names, excludes, limits), plan_of(listing, names, excludes, [])
    assert described(*divided) == described(*whole)


@given(listings(), NAME_LISTS)
def test_exactly_the_selected_files_are_planned(listing: list[Entry], names: list[str]) -> None:
    """The model of a selection: a name, and everything in a folder that a name names or matches."""

    def matches(name: str, path: str) -> bool:
        if "*" not in name and "?" not in name:
            return name == path or path.startswith(name.rstrip("/") + "/")
        return any(glob_matches(name, path[:end] + "/" * is_folder) for end, is_folder in parts(path))

    plan, _ = plan_of(listing, names, [], [])
    planned = [plan.entry(number) for number in range(len(plan))]
    assert planned == [e for e in listing if any(matches(name, e.name) for name in names)]


def parts(path: str) -> list[tuple[int, bool]]:
    """The ends of the names of the folders above ``path``, and of ``path`` itself; True for a folder."""
    return [(end, True) for end, c in enumerate(path) if c == "/"] + [(len(path), False)] * (not path.endswith("/"))


def glob_matches(glob: str, path: str) -> bool:
    """Matches part by part."""

    def match(patterns: list[str], names: list[str]) -> bool:
        if not patterns:
            return not names
        if patterns[0] == "**":
            least = 0 if patterns[1:] else 1
            return any(match(patterns[1:], names[count:]) for count in range(least, len(names) + 1))
        return bool(names) and fnmatch.fnmatchcase(names[0], patterns[0]) and match(patterns[1:], names[1:])

    if glob.endswith("/") and not path.endswith("/"):
        return False
    return match(glob.rstrip("/").split("/"), path.rstrip("/").split("/"))


@given(listings())
def test_each_byte_is_in_exactly_one_unit(listing: list[Entry]) -> None:
    plan, groups = plan_of(listing, ["**"], [], [])
    is_only_file = sum(e.size > 0 for e in listing) == 1
    covered: list[tuple[bytes, int]] = []
    first_unit = 0
    for group in groups:
        content = plan.unit(first_unit)
        if isinstance(content, BundleUnit):
            assert not is_only_file
            files = [plan.entry(number) for number in content.files]
            assert group.number == content.files[0]
            assert [*group.sizes] == [sum(file.size for file in files)]
            assert sum(group.sizes) <= MAX_BUNDLE_SIZE
            assert len(files) <= MAX_BUNDLE_FILES
            covered += [(file.id or b"", file.size) for file in files]
        else:
            file = plan.entry(group.number)
            assert (content.file, content.index) == (group.number, 0)
            assert file.size > MAX_BUNDLE_SIZE or is_only_file
            assert len(group.sizes) == segment_count(file.size)
            assert [group.sizes[index] for index in (0, -1)] == [
                span(file.size, index)[1] for index in (0, len(group.sizes) - 1)
            ]
            covered.append((file.id or b"", file.size))
        first_unit += len(group.sizes)
    assert first_unit == plan.units
    assert covered == [(e.id, e.size) for e in listing if e.size]
    assert sum(sum(group.sizes) for group in groups) == plan.size


@given(listings())
def test_a_bundle_ends_only_where_it_must(listing: list[Entry]) -> None:
    sizes = [e.size for e in listing if e.size]
    expected: list[int] = []
    for size in sizes:
        if size <= MIB and expected and expected[-1] <= MIB and expected[-1] + size <= MIB:
            expected[-1] += size
        else:
            expected.append(size)
    _, groups = plan_of(listing, ["**"], [], [])
    assert [sum(group.sizes) for group in groups] == expected


def bytes_of(plan: Plan, request: Get | GetBundle) -> list[tuple[bytes, int, int]]:
    """The file, the offset in it and the length of each piece that a worker replies with. Lengths are never 0."""
    files = {e.id: e for e in map(plan.entry, range(len(plan))) if e.size}
    if isinstance(request, Get):
        offset, size = span(files[request.id].size, request.index)
        length = size - request.start if request.length is None else request.length
        assert 0 <= request.start < request.start + length <= size
        return [(request.id, offset + request.start, length)]
    ids = [request.ids[start : start + DIGEST_SIZE] for start in range(0, len(request.ids), DIGEST_SIZE)]
    pieces, offset = [], request.start
    left = sum(files[id].size for id in ids) - offset if request.length is None else request.length
    for id in ids:
        length = min(files[id].size - offset, left)
        assert length > 0, "a file without bytes in the part"
        pieces.append((id, offset, length))
        left, offset = left - length, 0
    assert left == 0
    return pieces


@given(listings(), st.data())
def test_the_parts_of_a_unit_are_the_unit(listing: list[Entry], data: st.DataObject) -> None:
    plan, groups = plan_of(listing, ["**"], [], [])
    if not groups:
        return
    unit = data.draw(st.integers(0, plan.units - 1))
    whole = bytes_of(plan, plan.request(unit))
    size = sum(length for _, _, length in whole)
    cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=5))})
    pieces = [
        piece for start, end in pairwise(cuts) for piece in bytes_of(plan, plan.request(unit, start, end - start))
    ]
    joined: list[tuple[bytes, int, int]] = []
    for id, offset, length in pieces:
        if joined and joined[-1][0] == id and joined[-1][1] + joined[-1][2] == offset:
            joined[-1] = (id, joined[-1][1], joined[-1][2] + length)
        else:
            joined.append((id, offset, length))
    assert joined == whole
    assert bytes_of(plan, plan.request(unit, cuts[-2])) == bytes_of(plan, plan.request(unit, cuts[-2], size - cuts[-2]))


HOSTILE_NAMES = st.one_of(NAMES, NAMES.map(lambda name: f"{name}/"), st.text("ab/.\n-", min_size=1, max_size=5))


@given(st.lists(st.tuples(st.sets(HOSTILE_NAMES), st.booleans(), st.sampled_from([None, bytes(32)])), max_size=5))
def test_a_hostile_page_is_refused_whole_or_has_only_paths_that_do_not_conflict(
    pages: list[tuple[set[str], bool, bytes | None]],
) -> None:
    planner = Planner(["**"])
    request = planner.next_request()
    assert request is not None
    # No file has this name.
    planner.add_page(page_of([], request))
    for names, is_last, id in pages:
        request = planner.next_request()
        if request is None:
            break
        entries = [entry(name) for name in sorted(names) if name > request.after]
        entries += [Entry(name="z", size=5, mtime_ns=0, id=id)] * is_last
        before = (len(planner.plan), planner.plan.units)
        try:
            page = CataloguePage(rid=1, epoch=1, catalogue=CATALOGUE, entries=entries, more=not is_last)
            check_reply(request, page, 0)
            planner.add_page(page)
        except ProtocolError:
            assert (len(planner.plan), planner.plan.units) == before
    planned = [planner.plan.entry(number).name for number in range(len(planner.plan))]
    assert planned == sorted(set(planned))
    files = {name for name in planned if not name.endswith("/")}
    for name in planned:
        assert not {"", ".", ".."} & {*name.removesuffix("/").split("/")}
        assert not files & {name[:end] for end, c in enumerate(name) if c == "/"}
