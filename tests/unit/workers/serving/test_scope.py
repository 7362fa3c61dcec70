"""What an invited client may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from msd.wire.protocol.messages import Bye, Describe, Digests, Get, GetBundle, Hello, List
from msd.workers.serving.answer import compact_request
from msd.workers.serving.scope import is_in_scope, narrowed
from msd.workers.source.catalogue import Catalogue
from msd.workers.source.listing import Listings
from tests.unit.shares import catalogue_of

FILES = {
    "film": b"film",
    "film.srt": b"words",
    "photos/1.jpg": b"one",
    "photos/2.jpg": b"two",
    "photos/copy of film": b"film",
    "private": b"private",
}


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    catalogue = catalogue_of(tmp_path, FILES)
    yield catalogue
    catalogue.close()


def id_of(catalogue: Catalogue, name: str) -> bytes:
    file = catalogue.find(name, None)
    assert file is not None
    return file.id


@pytest.mark.parametrize(
    ("name", "scope", "expected"),
    [
        ("film", "", True),
        ("film", "film", True),
        ("film.srt", "film", False),
        ("photos/1.jpg", "photos/", True),
        ("photos", "photos/", False),
        ("photos2/1.jpg", "photos/", False),
        ("photos/a/b", "photos/", True),
    ],
)
def test_a_scope_is_a_file_or_everything_in_a_folder(name: str, scope: str, expected: bool) -> None:
    assert is_in_scope(name, scope) is expected


@pytest.mark.parametrize("scope", ["film", "photos/"])
def test_only_files_in_the_scope_are_described_and_sent(catalogue: Catalogue, scope: str) -> None:
    for name in FILES:
        id = id_of(catalogue, name)
        may = any(is_in_scope(copy, scope) and FILES[copy] == FILES[name] for copy in FILES)
        for request in (Describe(rid=1, id=id), Get(rid=1, id=id, index=0), Digests(rid=1, id=id, start=0)):
            assert narrowed(request, scope, catalogue) == (request if may else None), (name, request)
        by_name = Describe(rid=1, name=name)
        assert narrowed(by_name, scope, catalogue) == (by_name if is_in_scope(name, scope) else None)
        named_id = Describe(rid=1, name=name, id=id)
        assert (narrowed(named_id, scope, catalogue) is not None) == is_in_scope(name, scope)


def test_the_only_file_is_that_of_the_scope(catalogue: Catalogue) -> None:
    assert narrowed(Describe(rid=1), "film", catalogue) == Describe(rid=1, name="film")
    assert narrowed(Describe(rid=1), "photos/", catalogue) == Describe(rid=1)


def test_files_of_a_bundle_that_are_not_in_the_scope_are_unknown(catalogue: Catalogue) -> None:
    inside, outside = id_of(catalogue, "photos/1.jpg"), id_of(catalogue, "private")
    bundle = GetBundle(rid=1, ids=inside + outside + inside, length=5)
    assert narrowed(bundle, "photos/", catalogue) == GetBundle(rid=1, ids=inside + bytes(32) + inside, length=5)


def test_an_unknown_id_and_other_requests_are_handled_as_usual(catalogue: Catalogue) -> None:
    assert narrowed(Get(rid=1, id=b"x" * 32, index=0), "film", catalogue) is None
    for request in (Hello(rid=1, version=2), List(rid=1, prefix="private"), Bye(session=1)):
        assert narrowed(request, "film", catalogue) is request


@pytest.mark.parametrize("prefix", ["", "f", "film", "photos/", "photos/1", "private", "zzz"])
@pytest.mark.parametrize("after", ["", "film", "photos/1.jpg", "zzz"])
@pytest.mark.parametrize("scope", ["", "film", "photos/", "missing", "missing/", "priv"])
def test_only_entries_in_the_scope_are_listed(catalogue: Catalogue, scope: str, after: str, prefix: str) -> None:
    listings = Listings(catalogue.listing)
    queued = compact_request(List(rid=1, after=after, prefix=prefix), catalogue, listings, scope)
    entries, more = catalogue.listing.page(range(queued.first, queued.end))  # type: ignore[union-attr]
    names = sorted([*FILES, "photos/"])
    expected = [
        name
        for name in names
        if name.startswith(prefix) and name > after and (is_in_scope(name, scope) or name == scope)
    ]
    assert ([entry.name for entry in entries], more) == (expected, False)
