"""The catalogue as a worker reads it. The files it names do not exist: it never opens them."""

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
    """Writes a catalogue of files of these names and sizes, as the indexer would."""
    files, digests = [], b""
    for inode, (name, size) in enumerate(sizes):
        its_digests = digests_of(name, size)
        version = Version(1, inode, size, 1000 + inode, 2000)
        files.append(SharedFile(name, version, file_id(size, its_digests), len(digests) // DIGEST_SIZE))
        digests += its_digests
    (folder / "files.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(files))
    (folder / "digests").write_bytes(digests)
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
    """All pages, asked for as a client does."""
    found, after, more = [], "", True
    while more:
        entries, more = catalogue.page(after)
        found.append(entries)
        assert entries or not more
        after = entries[-1].name if entries else after
    return found


def test_a_catalogue_is_read_as_it_was_written(tmp_path: Path) -> None:
    files = write(tmp_path, [("a", 245), ("b", 0)])
    catalogue = Catalogue(tmp_path)
    assert catalogue.files == files
    assert [(file.size, file.segments) for file in catalogue.files] == [(245, 12), (0, 0)]
    catalogue.close()


def test_the_digest_of_each_segment_is_found(catalogue: Catalogue) -> None:
    for file in catalogue.files:
        digests = [catalogue.digest(file, index) for index in range(file.segments)]
        assert b"".join(digests) == digests_of(file.name, file.size)


def test_the_catalogue_s_id_is_the_digest_of_names_and_ids(catalogue: Catalogue) -> None:
    by_hand = b"".join(file.name.encode() + b"\0" + file.id for file in catalogue.files)
    assert catalogue.id == blake3(by_hand).digest() == catalogue_id(catalogue.files)


def test_two_catalogues_have_the_same_id_only_if_they_share_the_same(tmp_path: Path) -> None:
    files = write(tmp_path, [("a", 245), ("b", 13)])
    assert catalogue_id(files) != catalogue_id(files[:1])
    renamed = msgspec.structs.replace(files[0], name="z")
    assert catalogue_id(files) != catalogue_id([renamed, files[1]])
    touched = msgspec.structs.replace(files[0], version=Version(9, 9, 245, 9, 9))
    assert catalogue_id(files) == catalogue_id([touched, files[1]])


def test_a_file_is_found_by_name_by_id_or_by_both(catalogue: Catalogue) -> None:
    for file in catalogue.files:
        assert catalogue.find(file.name, None) == file
        assert catalogue.find(None, file.id) == file
        assert catalogue.find(file.name, file.id) == file


def test_a_file_that_is_not_shared_is_not_found(catalogue: Catalogue) -> None:
    assert catalogue.find("b", None) is None
    assert catalogue.find("../a", None) is None
    assert catalogue.find("A", None) is None
    assert catalogue.find(None, bytes(32)) is None


def test_a_name_and_an_id_of_two_files_find_none(catalogue: Catalogue) -> None:
    assert catalogue.find("a", catalogue.files[1].id) is None
    assert catalogue.find("x", catalogue.files[0].id) is None


def test_the_only_file_needs_no_name(tmp_path: Path, catalogue: Catalogue) -> None:
    assert catalogue.find(None, None) is None
    (file,) = write(tmp_path, [("only", 245)])
    alone = Catalogue(tmp_path)
    assert alone.find(None, None) == file
    alone.close()


def test_a_page_begins_after_a_name_whether_or_not_it_is_shared(catalogue: Catalogue) -> None:
    assert names(catalogue.page("")[0]) == ["a", "b/c", "b/d é"]
    assert names(catalogue.page("a")[0]) == ["b/c", "b/d é"]
    assert names(catalogue.page("b")[0]) == ["b/c", "b/d é"]
    assert catalogue.page("z") == ([], False)


def test_an_entry_says_what_a_file_is(catalogue: Catalogue) -> None:
    entries, more = catalogue.page("")
    assert not more
    assert entries[0] == Entry(name="a", size=245, mtime_ns=1000, id=catalogue.files[0].id)


@pytest.mark.parametrize(("mtime_ns", "said"), [(10**20, 2**63 - 1), (-(10**20), -(2**63)), (7, 7)])
def test_a_time_the_protocol_cannot_say_is_the_nearest_it_can(tmp_path: Path, mtime_ns: int, said: int) -> None:
    """A file of the year 5138 must not keep the others from being listed."""
    file = SharedFile("a", Version(1, 2, 245, mtime_ns, 4), bytes(32), 0)
    (tmp_path / "files.jsonl").write_bytes(msgspec.json.Encoder().encode_lines([file]))
    (tmp_path / "digests").write_bytes(digests_of("a", 245))
    catalogue = Catalogue(tmp_path)
    assert catalogue.files == [file], "its version is the one on disk"
    (entry,), more = catalogue.page("")
    assert entry.mtime_ns == catalogue.files[0].mtime_ns == said
    page = CataloguePage(rid=1, epoch=1, entries=[entry], more=more)
    assert decode(encode(page), DataReply) == page
    catalogue.close()


@pytest.mark.parametrize("name", ["", "A", "a", "b", "b/c", "b/c!", "b/d é", "z", "🙂" * 4096])
def test_the_same_page_follows_a_name_and_the_shared_one_before_it(catalogue: Catalogue, name: str) -> None:
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
def test_pages_hold_every_file_once(tmp_path: Path, count: int, lengths: list[int]) -> None:
    files = write(tmp_path, [(f"file {index:04}", index) for index in range(count)])
    catalogue = Catalogue(tmp_path)
    found = pages(catalogue)
    assert [len(page) for page in found] == lengths
    assert [entry for page in found for entry in page] == [file.entry for file in files]
    catalogue.close()


@pytest.mark.parametrize("letter", ["x", "é", "字", "🙂"])
def test_a_page_of_long_names_still_fits_a_header(tmp_path: Path, letter: str) -> None:
    # The system has no longer path than 4095 bytes.
    name = letter * (4088 // len(letter.encode()))
    files = write(tmp_path, [(f"{index:04} {name}", 1) for index in range(PAGE_ENTRIES)])
    catalogue = Catalogue(tmp_path)
    found = pages(catalogue)
    assert len(found) > 1
    assert sum(map(len, found)) == len(files)
    for entries in found:
        assert len(encode(CataloguePage(rid=1, epoch=1, entries=entries, more=True))) < MAX_HEADER // 2
    catalogue.close()


def test_the_digests_of_each_file_are_its_own(catalogue: Catalogue) -> None:
    for file in catalogue.files:
        assert catalogue.digests(file, 0) == digests_of(file.name, file.size)


def test_digests_begin_where_they_are_asked_for(catalogue: Catalogue) -> None:
    file = catalogue.files[0]
    for start in range(13):
        assert catalogue.digests(file, start) == digests_of("a", 245)[start * DIGEST_SIZE :]


@pytest.mark.parametrize("start", [12, 13, 10**9, 2**63 - 1])
def test_there_are_no_digests_past_the_end_of_a_file(catalogue: Catalogue, start: int) -> None:
    assert catalogue.digests(catalogue.files[0], start) == b""


def test_digests_come_in_pages(tmp_path: Path) -> None:
    size = (2 * DIGESTS_PER_PAGE + 5) * MIB
    first, big, last = write(tmp_path, [("a", 245), ("big", size), ("z", 13)])
    catalogue = Catalogue(tmp_path)
    parts = [catalogue.digests(big, page * DIGESTS_PER_PAGE) for page in range(3)]
    assert [len(part) // DIGEST_SIZE for part in parts] == [DIGESTS_PER_PAGE, DIGESTS_PER_PAGE, 5]
    assert b"".join(parts) == digests_of("big", size)
    assert catalogue.digests(last, 0) == digests_of("z", 13)
    assert file_id(size, b"".join(parts)) == big.id != first.id
    catalogue.close()


def test_an_edition_that_is_gone_is_the_newest_there_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_edition(tmp_path, 1)
    for number in (9, 10):
        (tmp_path / str(number)).mkdir()
        write(tmp_path / str(number), [("a", number)])
    (tmp_path / "unfinished").mkdir()
    assert editions(tmp_path) == [9, 10]
    for asked, opened in ((8, 10), (9, 9), (10, 10)):
        number, catalogue = open_edition(tmp_path, asked)
        catalogue.close()
        assert (number, catalogue.files[0].size) == (opened, opened)
