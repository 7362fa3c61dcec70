"""Segment sizes and spans, digests, file ids and manifests."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from msd.wire.errors import ProtocolError
from msd.wire.protocol.segments import (
    DIGEST_SIZE,
    MAX_FILE_SIZE,
    MAX_SEGMENT_SIZE,
    MAX_SEGMENTS,
    SEGMENT_LIMIT,
    Manifest,
    digest,
    file_id,
    segment_count,
    segment_size,
    segments_of,
    span,
)

KIB, MIB, TIB = 1 << 10, 1 << 20, 1 << 40


def digests_of(data: bytes) -> bytes:
    spans = (span(len(data), index) for index in range(segment_count(len(data))))
    return b"".join(digest(data[offset : offset + length]) for offset, length in spans)


def test_245_bytes_are_eleven_segments_of_21_bytes_and_one_of_14() -> None:
    assert segment_size(245) == 21
    lengths = [span(245, index)[1] for index in range(segment_count(245))]
    assert lengths == [21] * 11 + [14]
    assert sum(lengths[:11]) == 231
    assert span(245, 11) == (231, 14)


@pytest.mark.parametrize(
    ("file_size", "size", "count"),
    [
        (0, 0, 0),
        (1, 1, 1),
        (2, 1, 2),
        (11, 1, 11),
        (12, 1, 12),
        (13, 2, 7),
        (24, 2, 12),
        (25, 3, 9),
        (MIB - 1, 87382, 12),
        (MIB, 87382, 12),
        (MIB + 1, 87382, 12),
        (12 * MIB - 1, MIB, 12),
        (12 * MIB, MIB, 12),
        (12 * MIB + 1, MIB, 13),
        (TIB, MIB, MAX_SEGMENTS),
        (TIB + 1, 2 * MIB, MAX_SEGMENTS // 2 + 1),
        (2 * TIB, 2 * MIB, MAX_SEGMENTS),
        (2 * TIB + 1, 4 * MIB, MAX_SEGMENTS // 2 + 1),
        (MAX_FILE_SIZE, MAX_SEGMENT_SIZE, MAX_SEGMENTS),
    ],
)
def test_a_file_has_twelve_segments_unless_they_exceed_the_limit(file_size: int, size: int, count: int) -> None:
    assert segment_size(file_size) == size
    assert segment_count(file_size) == count


def test_the_last_segment_of_a_file_just_over_the_limit_is_one_byte() -> None:
    assert span(12 * MIB + 1, 12) == (12 * MIB, 1)
    assert span(TIB + 1, MAX_SEGMENTS // 2) == (TIB, 1)


@given(st.integers(0, 64 * KIB) | st.integers(11 * MIB, 40 * MIB))
def test_the_spans_cover_a_file_without_gaps_and_overlaps(file_size: int) -> None:
    end = 0
    for index in range(segment_count(file_size)):
        offset, length = span(file_size, index)
        assert offset == end
        assert 0 < length <= segment_size(file_size) <= SEGMENT_LIMIT
        end = offset + length
    assert end == file_size


@given(st.integers(1, 2000) | st.integers(11 * MIB, 40 * MIB), st.data())
def test_the_segments_of_a_range_are_those_that_have_bytes_of_it(file_size: int, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, file_size - 1))
    length = data.draw(st.integers(0, file_size - offset))
    expected = [
        index
        for index in range(segment_count(file_size))
        for start, size in [span(file_size, index)]
        if length and start < offset + length and offset < start + size
    ]
    assert [*segments_of(file_size, offset, length)] == expected


def test_an_empty_file_has_no_segments_in_any_range() -> None:
    assert [*segments_of(0, 0, 0)] == []


@given(st.integers(1, MAX_FILE_SIZE))
def test_all_segments_but_the_last_have_the_same_size_and_the_last_is_not_empty(file_size: int) -> None:
    size, count = segment_size(file_size), segment_count(file_size)
    assert 1 <= count <= MAX_SEGMENTS
    assert 1 <= size <= MAX_SEGMENT_SIZE
    offset, length = span(file_size, count - 1)
    assert offset == (count - 1) * size
    assert 0 < length <= size
    assert offset + length == file_size
    if count > 1:
        assert span(file_size, count - 2) == (offset - size, size)


def test_the_digest_of_a_segment_is_blake3() -> None:
    # The first bytes of the digest of empty input, from the official BLAKE3 test vectors.
    assert digest(b"").hex().startswith("af1349b9f5f9a1a6a0404dea36dcc949")
    assert digest(b"abc") == blake3(b"abc").digest()
    assert digest(memoryview(b"xabcx")[1:4]) == digest(b"abc")


def test_the_id_of_a_file_is_the_digest_of_its_canonical_encoding() -> None:
    data = bytes(range(245))
    digests = b"".join(blake3(data[start : start + 21]).digest() for start in range(0, 245, 21))
    expected = blake3(
        bytes([0, 0, 0, 0, 0, 0, 0, 245])  # the file's size
        + bytes([0, 0, 0, 0, 0, 0, 0, 21])  # the segment size
        + digests
    ).digest()
    assert file_id(245, digests) == expected
    assert Manifest.build("any name", 245, digests_of(data)).id == expected


def test_the_id_of_an_empty_file_is_the_digest_of_sixteen_zero_bytes() -> None:
    assert file_id(0, b"") == blake3(bytes(16)).digest()


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_two_files_have_the_same_id_only_if_their_content_is_equal(first: bytes, second: bytes) -> None:
    ids = [file_id(len(data), digests_of(data)) for data in (first, second)]
    assert (ids[0] == ids[1]) == (first == second)


def test_neither_the_name_nor_the_time_is_part_of_the_id() -> None:
    digests = digests_of(b"hello")
    assert Manifest.build("a", 5, digests).id == Manifest.build("b", 5, digests).id


def test_a_manifest_has_the_span_and_digest_of_each_segment() -> None:
    data = bytes(range(245))
    manifest = Manifest.build("numbers", 245, digests_of(data))
    assert (manifest.name, manifest.size, manifest.segments) == ("numbers", 245, 12)
    for index in range(12):
        offset, length = manifest.span(index)
        assert manifest.digest(index) == digest(data[offset : offset + length])


def test_a_manifest_of_an_empty_file_has_no_segments() -> None:
    manifest = Manifest.build("empty", 0, b"")
    assert manifest.segments == 0
    assert manifest.digests == b""


@pytest.mark.parametrize(
    ("size", "length"),
    [
        (0, DIGEST_SIZE),
        (1, 0),
        (245, 11 * DIGEST_SIZE),
        (245, 13 * DIGEST_SIZE),
        (245, 12 * DIGEST_SIZE - 1),
        (245, 12 * DIGEST_SIZE + 1),
    ],
)
def test_a_wrong_number_of_digests_is_refused(size: int, length: int) -> None:
    with pytest.raises(ProtocolError, match=f"{length} bytes of digests for a file of {size} bytes"):
        Manifest.build("name", size, bytes(length))


@pytest.mark.parametrize("size", [-1, MAX_FILE_SIZE + 1, 1 << 63])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError, match="outside"):
        Manifest.build("name", size, b"")


def test_the_largest_file_has_a_manifest() -> None:
    manifest = Manifest.build("name", MAX_FILE_SIZE, bytes(DIGEST_SIZE * MAX_SEGMENTS))
    assert manifest.segments == MAX_SEGMENTS
    assert manifest.span(MAX_SEGMENTS - 1) == (MAX_FILE_SIZE - MAX_SEGMENT_SIZE, MAX_SEGMENT_SIZE)
