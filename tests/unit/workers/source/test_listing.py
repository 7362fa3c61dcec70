"""The pages of a listing, and how long earlier listings are kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msd.wire.protocol.codec import MAX_HEADER, encode
from msd.wire.protocol.messages import MAX_ENTRIES, CataloguePage, Entry
from msd.workers.source.listing import ENTRY_OVERHEAD, KEPT_S, MAX_KEPT_ENTRIES, PAGE_OVERHEAD, Listing, Listings

ID = bytes(range(32))
LARGEST = 2**63 - 1


def entry(name: str) -> Entry:
    if name.endswith("/"):
        return Entry(name=name, size=0, mtime_ns=0, mode=0o755)
    return Entry(name=name, size=245, mtime_ns=LARGEST, mode=0o777, id=ID)


def listing_of(*names: str, id: bytes = ID) -> Listing:
    return Listing(id, names, lambda position: entry(names[position]))


def pages(listing: Listing, prefix: str = "") -> list[list[Entry]]:
    """Returns all pages, requested one after another as a client does."""
    found, after, more = [], "", True
    while more:
        entries, more = listing.page(listing.select(after, prefix))
        found.append(entries)
        assert entries or not more
        after = entries[-1].name if entries else after
    return found


def names(listing: Listing, after: str = "", prefix: str = "") -> list[str]:
    entries, more = listing.page(listing.select(after, prefix))
    assert not more
    return [entry.name for entry in entries]


def test_a_page_has_the_entries_of_files_and_folders() -> None:
    listing = listing_of("a", "b-c", "b/", "b/c")
    assert len(listing) == 4
    assert listing.page(range(4)) == ([entry("a"), entry("b-c"), entry("b/"), entry("b/c")], False)
    assert listing.page(range(2, 2)) == ([], False)


def test_a_page_starts_after_the_given_name_even_if_that_name_is_not_shared() -> None:
    listing = listing_of("a", "b/", "b/c", "b/d é")
    assert names(listing, "a") == ["b/", "b/c", "b/d é"]
    assert names(listing, "b/b") == ["b/c", "b/d é"]
    assert names(listing, "z") == []


def test_a_prefix_selects_the_names_that_begin_with_it() -> None:
    listing = listing_of("a", "b", "b/", "b/c", "b/d", "ba", "c")
    assert names(listing, prefix="b") == ["b", "b/", "b/c", "b/d", "ba"]
    assert names(listing, prefix="b/") == ["b/", "b/c", "b/d"]
    assert names(listing, prefix="b/", after="b/") == ["b/c", "b/d"]
    for prefix, after in ("bb", ""), ("b/", "c"), ("d", ""), ("b", "bz"), ("b/c/", ""):
        assert names(listing, after, prefix) == []


@given(st.sets(st.text("ab/\U0010ffff", min_size=1, max_size=5)), st.text("ab/\U0010ffff", max_size=5), st.data())
@settings(max_examples=200)
def test_a_selection_has_each_name_with_the_prefix(shared: set[str], prefix: str, data: st.DataObject) -> None:
    after = data.draw(st.text("ab/\U0010ffff", max_size=5) | st.sampled_from(sorted(shared) or [""]))
    expected = sorted(name for name in shared if name.startswith(prefix) and name > after)
    assert names(listing_of(*sorted(shared)), after, prefix) == expected


@pytest.mark.parametrize(
    ("count", "lengths"),
    [
        (0, [0]),
        (1, [1]),
        (MAX_ENTRIES, [MAX_ENTRIES]),
        (MAX_ENTRIES + 1, [MAX_ENTRIES, 1]),
        (2 * MAX_ENTRIES + 7, [MAX_ENTRIES, MAX_ENTRIES, 7]),
    ],
)
def test_the_pages_together_hold_each_entry_exactly_once(count: int, lengths: list[int]) -> None:
    shared = [f"file {index:05}" for index in range(count)]
    found = pages(listing_of(*shared))
    assert [len(page) for page in found] == lengths
    assert [entry.name for page in found for entry in page] == shared


@pytest.mark.parametrize("letter", ["x", "é", "字", "🙂"])
def test_a_page_of_long_names_fits_into_a_header(letter: str) -> None:
    # Linux limits paths to 4095 bytes.
    name = letter * (4088 // len(letter.encode()))
    shared = [f"{index:04} {name}" for index in range(600)]
    found = pages(listing_of(*shared))
    assert sum(map(len, found)) == len(shared)
    sizes = [
        len(encode(CataloguePage(rid=LARGEST, epoch=LARGEST, catalogue=ID, entries=entries, more=True)))
        for entries in found
    ]
    assert max(sizes) <= MAX_HEADER
    assert min(sizes[:-1]) > 0.9 * MAX_HEADER


def test_an_entry_takes_no_more_room_than_is_reserved() -> None:
    largest = Entry(name="", size=2**46, mtime_ns=-(2**63), mode=0o7777, id=ID)
    assert len(encode(CataloguePage(rid=LARGEST, epoch=LARGEST, catalogue=ID, entries=[], more=True))) < PAGE_OVERHEAD
    one, two = (
        len(encode(CataloguePage(rid=1, epoch=1, catalogue=ID, entries=[largest] * count, more=True)))
        for count in (1, 2)
    )
    # The longest names have a length of two bytes more.
    assert two - one + 2 <= ENTRY_OVERHEAD


def test_a_listing_is_kept_for_a_while_after_it_was_replaced() -> None:
    first, second, third = (listing_of(name, id=name.encode()) for name in "abc")
    listings = Listings(first)
    listings.replace(second, 10.0)
    listings.replace(third, 11.0)
    assert [listings.find(each.id) for each in (first, second, third)] == [first, second, third]
    listings.expire(10.0 + KEPT_S)
    assert [listings.find(each.id) for each in (first, second, third)] == [None, second, third]
    listings.expire(11.0 + KEPT_S)
    assert [listings.find(each.id) for each in (second, third)] == [None, third]
    assert listings.find(b"") is None


def test_earlier_listings_that_are_large_are_kept_for_a_shorter_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msd.workers.source.listing.MAX_KEPT_ENTRIES", 5)
    assert MAX_KEPT_ENTRIES > 5 * MAX_ENTRIES
    large = [listing_of("a", "b", "c", "d", id=bytes([version])) for version in range(4)]
    listings = Listings(large[0])
    for listing in large[1:]:
        listings.replace(listing, 0.0)
    assert [listings.find(each.id) for each in large] == [None, None, *large[2:]], "the last one is always kept"
