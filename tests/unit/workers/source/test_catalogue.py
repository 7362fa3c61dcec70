"""Reading the catalogue. The listed files do not exist in these tests, because the catalogue never opens them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from msd.wire.protocol.codec import MAX_HEADER, decode, encode
from msd.wire.protocol.messages import CataloguePage, DataReply, Entry
from msd.wire.protocol.segments import DIGEST_SIZE, digest, file_id, segment_count
from msd.workers.source.catalogue import (
    DIGESTS_PER_PAGE,
    PAGE_ENTRIES,
    Catalogue,
    SharedFile,
    Version,
    catalogue_id,
    editions,
    open_edition,
)

MIB = 1 << 20


def digests_of(name: str, size: int) -> bytes:
    return b"".join(digest(f"{name} {index}".encode()) for index in range(segment_count(size)))


def write(folder: Path, sizes: Sequence[tuple[str, int]]) -> list[SharedFile]:
    """Writes a catalogue with files of these names and sizes, in the indexer's format."""
    files, all_digests = [], b""
    for inode, (name, size) in enumerate(sizes):
        digests = digests_of(name, size)
        version = Version(1, inode, size, 1000 + inode, 2000)
        files.append(SharedFile(name, version, file_id(size, digests), len(all_digests) // DIGEST_SIZE))
        all_digests += digests
    (folder / "files.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(files))
    (folder / "digests").write_bytes(all_digests)
    return files


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    write(tmp_path, [("a", 245), ("b/c", 0), ("b/d é", 13)])
    catalogue = Catalogue(tmp_path)
    yield catalogue
    catalogue.close()


def names(entries: list[Entry]) -> list[str]:
    return [entry.name for entry in entries]


def pages(catalogue: Catalogue) -> list[list[Entry]]:
    """Returns all pages, requested one after another as a client does."""
    found, after, more = [], "", True
    while more:
        entries, more = catalogue.page(after)
        found.append(entries)
        assert entries or not more
        after = entries[-1].name if entries else after
    return found


def test_reading_a_catalogue_returns_the_files_that_were_written(tmp_path: Path) -> None:
    files = write(tmp_path, [("a", 245), ("b", 0)])
    catalogue = Catalogue(tmp_path)
    assert catalogue.files == files
    assert [(file.size, file.segments) for file in catalogue.files] == [(245, 12), (0, 0)]
    catalogue.close()


def test_returns_the_digest_of_each_segment(catalogue: Catalogue) -> None:
    for file in catalogue.files:
        digests = [catalogue.digests(file, index, 1) for index in range(file.segments)]
        assert b"".join(digests) == digests_of(file.name, file.size)


def test_the_catalogue_id_is_the_digest_of_all_names_and_file_ids(catalogue: Catalogue) -> None:
    hashed = b"".join(file.name.encode() + b"\0" + file.id for file in catalogue.files)
    assert catalogue.id == blake3(hashed).digest() == catalogue_id(catalogue.files)


def test_the_catalogue_id_depends_on_names_and_contents_but_not_on_versions(tmp_path: Path) -> None:
    files = write(tmp_path, [("a", 245), ("b", 13)])
    assert catalogue_id(files) != catalogue_id(files[:1])
    renamed = msgspec.structs.replace(files[0], name="z")
    assert catalogue_id(files) != catalogue_id([renamed, files[1]])
    touched = msgspec.structs.replace(files[0], version=Version(9, 9, 245, 9, 9))
    assert catalogue_id(files) == catalogue_id([touched, files[1]])


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


def test_a_page_starts_after_the_given_name_even_if_that_name_is_not_shared(catalogue: Catalogue) -> None:
    assert names(catalogue.page("")[0]) == ["a", "b/c", "b/d é"]
    assert names(catalogue.page("a")[0]) == ["b/c", "b/d é"]
    assert names(catalogue.page("b")[0]) == ["b/c", "b/d é"]
    assert catalogue.page("z") == ([], False)


def test_an_entry_holds_name_size_time_and_id(catalogue: Catalogue) -> None:
    entries, more = catalogue.page("")
    assert not more
    assert entries[0] == Entry(name="a", size=245, mtime_ns=1000, id=catalogue.files[0].id)


@pytest.mark.parametrize(("mtime_ns", "expected"), [(10**20, 2**63 - 1), (-(10**20), -(2**63)), (7, 7)])
def test_a_modification_time_outside_the_range_of_the_protocol_is_clamped(
    tmp_path: Path, mtime_ns: int, expected: int
) -> None:
    """A file dated in the year 5138 must not prevent the other files from being listed."""
    file = SharedFile("a", Version(1, 2, 245, mtime_ns, 4), bytes(32), 0)
    (tmp_path / "files.jsonl").write_bytes(msgspec.json.Encoder().encode_lines([file]))
    (tmp_path / "digests").write_bytes(digests_of("a", 245))
    catalogue = Catalogue(tmp_path)
    assert catalogue.files == [file], "the version must keep the modification time that the file has on disk"
    (entry,), more = catalogue.page("")
    assert entry.mtime_ns == catalogue.files[0].mtime_ns == expected
    page = CataloguePage(rid=1, epoch=1, entries=[entry], more=more)
    assert decode(encode(page), DataReply) == page
    catalogue.close()


@pytest.mark.parametrize("name", ["", "A", "a", "b", "b/c", "b/c!", "b/d é", "z", "🙂" * 4096])
def test_the_same_page_follows_a_name_and_the_last_shared_name_before_it(catalogue: Catalogue, name: str) -> None:
    before = catalogue.shared_before(name)
    assert catalogue.page(before) == catalogue.page(name)
    assert before in ("", *(file.name for file in catalogue.files))


@pytest.mark.parametrize(
    ("count", "lengths"),
    [
        (1, [1]),
        (PAGE_ENTRIES, [PAGE_ENTRIES]),
        (PAGE_ENTRIES + 1, [PAGE_ENTRIES, 1]),
        (2 * PAGE_ENTRIES, [PAGE_ENTRIES, PAGE_ENTRIES]),
        (2 * PAGE_ENTRIES + 7, [PAGE_ENTRIES, PAGE_ENTRIES, 7]),
    ],
)
def test_the_pages_together_hold_each_file_exactly_once(tmp_path: Path, count: int, lengths: list[int]) -> None:
    files = write(tmp_path, [(f"file {index:04}", index) for index in range(count)])
    catalogue = Catalogue(tmp_path)
    found = pages(catalogue)
    assert [len(page) for page in found] == lengths
    assert [entry for page in found for entry in page] == [file.entry for file in files]
    catalogue.close()


@pytest.mark.parametrize("letter", ["x", "é", "字", "🙂"])
def test_a_page_of_long_names_fits_into_a_header(tmp_path: Path, letter: str) -> None:
    # Linux limits paths to 4095 bytes.
    name = letter * (4088 // len(letter.encode()))
    files = write(tmp_path, [(f"{index:04} {name}", 1) for index in range(PAGE_ENTRIES)])
    catalogue = Catalogue(tmp_path)
    found = pages(catalogue)
    assert len(found) > 1
    assert sum(map(len, found)) == len(files)
    for entries in found:
        assert len(encode(CataloguePage(rid=1, epoch=1, entries=entries, more=True))) < MAX_HEADER // 2
    catalogue.close()


def test_returns_the_digests_of_each_file(catalogue: Catalogue) -> None:
    for file in catalogue.files:
        assert catalogue.digests(file, 0) == digests_of(file.name, file.size)


def test_digests_start_at_the_requested_segment(catalogue: Catalogue) -> None:
    file = catalogue.files[0]
    for start in range(13):
        assert catalogue.digests(file, start) == digests_of("a", 245)[start * DIGEST_SIZE :]


@pytest.mark.parametrize("start", [12, 13, 10**9, 2**63 - 1])
def test_returns_no_digests_past_the_end_of_a_file(catalogue: Catalogue, start: int) -> None:
    assert catalogue.digests(catalogue.files[0], start) == b""


def test_digests_are_split_into_pages(tmp_path: Path) -> None:
    size = (2 * DIGESTS_PER_PAGE + 5) * MIB
    first, big, last = write(tmp_path, [("a", 245), ("big", size), ("z", 13)])
    catalogue = Catalogue(tmp_path)
    parts = [catalogue.digests(big, page * DIGESTS_PER_PAGE) for page in range(3)]
    assert [len(part) // DIGEST_SIZE for part in parts] == [DIGESTS_PER_PAGE, DIGESTS_PER_PAGE, 5]
    assert b"".join(parts) == digests_of("big", size)
    assert catalogue.digests(last, 0) == digests_of("z", 13)
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
