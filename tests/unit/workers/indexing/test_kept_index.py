"""The index of a store's files that lies beside them."""

from __future__ import annotations

import random

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from msd.wire.protocol.segments import content_id, cut, digest, file_id
from msd.workers.indexing.digest_cache import CachedDigests
from msd.workers.indexing.kept_index import MAGIC, KeptIndex, encode
from msd.workers.source.catalogue import Version

LARGE = random.Random(1).randbytes((2 << 20) + 3)
DIGESTS = b"".join(map(digest, cut(memoryview(LARGE))))


def version(inode: int, size: int) -> Version:
    return Version(1, inode, size, 7, 7)


ENTRIES = [
    (version(5, 4), content_id(memoryview(b"film")), b""),
    (version(6, len(LARGE)), file_id(len(LARGE), DIGESTS), DIGESTS),
    (version(7, 0), content_id(memoryview(b"")), b""),
]


def test_what_is_encoded_is_loaded_by_version() -> None:
    index = KeptIndex.decode(encode(ENTRIES), 1)
    others = [version(5, 5), version(8, 4)]
    assert index.load([*(v for v, _, _ in ENTRIES), *others]) == {
        v: CachedDigests(id, digests) for v, id, digests in ENTRIES
    }
    assert index.load([Version(1, 5, 4, 99, 99)]), "the times of an object are not part of its version"


def test_an_empty_index_can_be_decoded() -> None:
    assert KeptIndex.decode(encode([]), 1).load([version(5, 4)]) == {}


@given(st.integers(min_value=0), st.integers(0, 7))
def test_a_damaged_index_is_refused(place: int, bit: int) -> None:
    data = bytearray(encode(ENTRIES))
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(ValueError, match="damaged"):
        KeptIndex.decode(bytes(data), 1)


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        KeptIndex.decode(data, 1)


@pytest.mark.parametrize("length", [1, 47, 49])
def test_an_entry_that_is_cut_short_is_refused(length: int) -> None:
    """A program that may write to the store can also write a right checksum."""
    data = encode(ENTRIES)[: len(MAGIC) + length]
    with pytest.raises(ValueError, match="damaged"):
        KeptIndex.decode(data + blake3(data).digest(), 1)


def test_it_says_nothing_about_files_elsewhere() -> None:
    elsewhere = [Version(2, v.inode, v.size, v.mtime_ns, v.ctime_ns) for v, _, _ in ENTRIES]
    assert KeptIndex.decode(encode(ENTRIES), 1).load(elsewhere) == {}
