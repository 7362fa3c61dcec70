"""Reading the catalogue. The listed files do not exist in these tests, because the catalogue never opens them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

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
    versions_of,
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
        files.append(SharedFile(name, version, file_id(size, digests), len(all_digests) // DIGEST_SIZE, 0o640))
        all_digests += digests
    parents = {name[: name.find("/") + 1] for name, _ in sizes} - {""}
    folders = [SharedFolder(name, 0o755) for name in sorted(parents)]
    (folder / "files.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(files))
    (folder / "folders.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(folders))
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
    (folder,) = catalogue.folders
    assert folder.entry == Entry(name="b/", size=0, mtime_ns=0, mode=0o755)


def test_files_and_folders_are_listed_together(catalogue: Catalogue) -> None:
    entries, _ = catalogue.listing.page(range(4))
    assert names(entries) == ["a", "b/", "b/c", "b/d é"]
    assert versions_of(catalogue.files, catalogue.folders) == {
        "b/": SharedFolder("b/", 0o755),
        **{file.name: file.version for file in catalogue.files},
    }


@pytest.mark.parametrize(("mtime_ns", "expected"), [(10**20, 2**63 - 1), (-(10**20), -(2**63)), (7, 7)])
def test_a_modification_time_outside_the_range_of_the_protocol_is_clamped(
    tmp_path: Path, mtime_ns: int, expected: int
) -> None:
    """A file dated in the year 5138 must not prevent the other files from being listed."""
    file = SharedFile("a", Version(1, 2, 245, mtime_ns, 4), bytes(32), 0)
    (tmp_path / "files.jsonl").write_bytes(msgspec.json.Encoder().encode_lines([file]))
    (tmp_path / "digests").write_bytes(digests_of("a", 245))
    (tmp_path / "folders.jsonl").touch()
    catalogue = Catalogue(tmp_path)
    assert catalogue.files == [file], "the version must keep the modification time that the file has on disk"
    (entry,), more = catalogue.listing.page(range(1))
    assert entry.mtime_ns == catalogue.files[0].mtime_ns == expected
    page = CataloguePage(rid=1, epoch=1, catalogue=catalogue.id, entries=[entry], more=more)
    assert decode(encode(page), DataReply) == page
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
