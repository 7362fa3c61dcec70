"""Reading the catalogue. The listed files do not exist in these tests, because the catalogue never opens them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import CataloguePage, DataReply, Entry
from msd.wire.protocol.segments import DIGEST_SIZE, digest, file_id, segment_count
from msd.workers.source.catalogue import (
    DIGESTS_PER_PAGE,
    Catalogue,
    SharedFile,
    SharedFolder,
    Version,
    editions,
    open_edition,
)
from tests.unit.shares import write_edition

MIB = 1 << 20
#: The latest time of the protocol, in ns since 1970.
LATEST = 2**63 - 1


def digests_of(name: str, size: int) -> bytes:
    return b"".join(digest(f"{name} {index}".encode()) for index in range(segment_count(size)))


def write(folder: Path, sizes: Sequence[tuple[str, int]]) -> list[SharedFile]:
    """Writes an edition with files of these names and sizes, and with the folders that contain them."""
    files: list[SharedFile] = []
    digests: list[bytes] = []
    for inode, (name, size) in enumerate(sizes):
        first_digest = sum(map(len, digests)) // DIGEST_SIZE
        version = Version(1, inode, size, 1000 + inode, 2000, 0o640)
        file = SharedFile(name, version, file_id(size, digests_of(name, size)))
        if not file.is_small:
            file = replace(file, first_digest=first_digest)
            digests.append(digests_of(name, size))
        files.append(file)
    parents = {name[: name.find("/") + 1] for name, _ in sizes} - {""}
    write_edition(folder, [*files, *(SharedFolder(name, 0o755) for name in parents)], *digests)
    return files


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    write(tmp_path, [("a", 245), ("b/c", 0), ("b/d é", 13)])
    catalogue = Catalogue(tmp_path)
    yield catalogue
    catalogue.close()


def names(entries: list[Entry]) -> list[str]:
    return [entry.name for entry in entries]


def test_reading_a_catalogue_returns_the_files_that_were_written(tmp_path: Path) -> None:
    files = write(tmp_path, [("a", 245), ("b", 0)])
    catalogue = Catalogue(tmp_path)
    assert catalogue.files == files
    assert [(file.size, file.segments) for file in catalogue.files] == [(245, 12), (0, 0)]
    catalogue.close()


def test_finds_a_file_by_name_by_id_or_by_both(catalogue: Catalogue) -> None:
    for file in catalogue.files:
        assert catalogue.find(file.name, None) == file
        assert catalogue.find(None, file.id) == file
        assert catalogue.find(file.name, file.id) == file


def test_does_not_find_a_file_that_is_not_shared(catalogue: Catalogue) -> None:
    assert catalogue.find("b", None) is None
    assert catalogue.find("../a", None) is None
    assert catalogue.find("A", None) is None
    assert catalogue.find(None, bytes(32)) is None


def test_finds_no_file_if_name_and_id_belong_to_different_files(catalogue: Catalogue) -> None:
    assert catalogue.find("a", catalogue.files[1].id) is None
    assert catalogue.find("x", catalogue.files[0].id) is None


def test_finds_the_only_file_without_a_name(tmp_path: Path, catalogue: Catalogue) -> None:
    assert catalogue.find(None, None) is None
    (file,) = write(tmp_path, [("only", 245)])
    single = Catalogue(tmp_path)
    assert single.find(None, None) == file
    single.close()


def test_an_entry_holds_name_size_time_mode_and_id(catalogue: Catalogue) -> None:
    file = catalogue.files[0]
    assert file.entry == Entry(name="a", size=245, mtime_ns=1000, mode=0o640, id=file.id)
    assert SharedFolder("b/", 0o755).entry == Entry(name="b/", size=0, mtime_ns=0, mode=0o755)


def test_files_and_folders_are_listed_together(catalogue: Catalogue) -> None:
    entries, _ = catalogue.listing.page(range(4))
    assert names(entries) == ["a", "b/", "b/c", "b/d é"]
    assert len(catalogue.listing) == 4
    assert catalogue.file_count == 3
    assert catalogue.versions == {
        "b/": SharedFolder("b/", 0o755),
        **{file.name: file.version for file in catalogue.files},
    }
    assert dict(catalogue.records()) == {
        "b/": SharedFolder("b/", 0o755).record,
        **{file.name: file.record for file in catalogue.files},
    }


def test_the_listing_remains_when_the_catalogue_is_closed(tmp_path: Path) -> None:
    (file,) = write(tmp_path, [("a", 245)])
    catalogue = Catalogue(tmp_path)
    listing, reference = catalogue.listing, weakref.ref(catalogue)
    catalogue.close()
    del catalogue
    assert reference() is None, "memory must not wait for Python's collector of cycles, which seldom runs"
    assert listing.page(range(1)) == ([file.entry], False)


def test_files_with_the_same_content_are_copies(tmp_path: Path) -> None:
    version = Version(1, 2, 245, 3, 4)
    a, b, other = (SharedFile(name, version, bytes([id]) * 32) for name, id in (("a", 1), ("b", 1), ("c", 2)))
    write_edition(tmp_path, [a, b, other])
    catalogue = Catalogue(tmp_path)
    assert catalogue.find(None, a.id) == a
    assert catalogue.copies(a) == catalogue.copies(b) == [a, b]
    assert catalogue.copies(other) == [other]
    assert catalogue.own_id(bytes(a.id)) == a.id
    assert catalogue.own_id(a.id) is catalogue.own_id(a.id)
    assert catalogue.own_id(bytes(32)) is None
    catalogue.close()


@pytest.mark.parametrize(("time_ns", "expected"), [(10**20, LATEST), (-(10**20), -LATEST), (7, 7)])
def test_a_time_outside_the_range_of_the_protocol_is_clamped(tmp_path: Path, time_ns: int, expected: int) -> None:
    """A file dated in the year 5138 must not prevent the other files from being listed."""
    times = {"st_mtime_ns": time_ns, "st_ctime_ns": time_ns}
    status = SimpleNamespace(st_dev=2**64 - 1, st_ino=2**64 - 1, st_size=245, st_mode=0o104755, **times)
    version = Version.of(status)  # type: ignore[arg-type]
    assert version == Version(2**64 - 1, 2**64 - 1, 245, expected, expected, 0o755)
    file = SharedFile("a", version, bytes(range(32)))
    write_edition(tmp_path, [file])
    catalogue = Catalogue(tmp_path)
    assert catalogue.files == [file]
    entries, more = catalogue.listing.page(range(1))
    page = CataloguePage(rid=1, epoch=1, catalogue=catalogue.id, entries=entries, more=more)
    assert decode(encode(page), DataReply) == page
    catalogue.close()


@pytest.fixture
def large(tmp_path: Path) -> Iterator[tuple[Catalogue, SharedFile]]:
    """A large file of 13 segments behind another one and before a small one."""
    _, large, _ = write(tmp_path, [("a", 2 * MIB), ("large", 12 * MIB + 1), ("z", 245)])
    catalogue = Catalogue(tmp_path)
    yield catalogue, large
    catalogue.close()


def test_returns_the_digests_of_large_files(large: tuple[Catalogue, SharedFile]) -> None:
    catalogue, _ = large
    for file in catalogue.files[:2]:
        assert catalogue.digests(file, 0) == digests_of(file.name, file.size)


def test_digests_start_at_the_requested_segment(large: tuple[Catalogue, SharedFile]) -> None:
    catalogue, file = large
    for start in range(14):
        assert catalogue.digests(file, start) == digests_of(file.name, file.size)[start * DIGEST_SIZE :]


@pytest.mark.parametrize("start", [13, 14, 10**9, 2**63 - 1])
def test_returns_no_digests_past_the_end_of_a_file(large: tuple[Catalogue, SharedFile], start: int) -> None:
    catalogue, file = large
    assert catalogue.digests(file, start) == b""


def test_digests_are_split_into_pages(tmp_path: Path) -> None:
    size = (2 * DIGESTS_PER_PAGE + 5) * MIB
    first, big, last = write(tmp_path, [("a", 245), ("big", size), ("z", 2 * MIB)])
    catalogue = Catalogue(tmp_path)
    parts = [catalogue.digests(big, page * DIGESTS_PER_PAGE) for page in range(3)]
    assert [len(part) // DIGEST_SIZE for part in parts] == [DIGESTS_PER_PAGE, DIGESTS_PER_PAGE, 5]
    assert b"".join(parts) == digests_of("big", size)
    assert catalogue.digests(last, 0) == digests_of("z", 2 * MIB)
    assert file_id(size, b"".join(parts)) == big.id != first.id
    catalogue.close()


def test_opens_the_newest_edition_if_the_requested_one_was_deleted(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_edition(tmp_path, 1)
    for number in (9, 10):
        (tmp_path / str(number)).mkdir()
        write(tmp_path / str(number), [("a", number)])
    (tmp_path / "unfinished").mkdir()
    assert editions(tmp_path) == [9, 10]
    for requested, expected in ((8, 10), (9, 9), (10, 10)):
        number, catalogue = open_edition(tmp_path, requested)
        catalogue.close()
        assert (number, catalogue.files[0].size) == (expected, expected)
