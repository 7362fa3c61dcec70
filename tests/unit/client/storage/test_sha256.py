"""The SHA-256 of a whole file, and the text that a user gives."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

from msd.client.storage.sha256 import CHUNK_SIZE, parse_sha256, sha256_of
from msd.wire.errors import UsageError


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, 3 * CHUNK_SIZE + 5])
def test_the_whole_file_is_hashed(tmp_path: Path, rng: random.Random, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(rng.randbytes(size))
    fd = os.open(path, os.O_RDONLY)
    try:
        os.lseek(fd, size // 2, os.SEEK_SET)
        assert sha256_of(fd) == hashlib.sha256(path.read_bytes()).hexdigest()
    finally:
        os.close(fd)


def test_upper_and_lower_case_mean_the_same() -> None:
    assert parse_sha256("0123456789ABCDEFabcdef" + "0" * 42) == "0123456789abcdefabcdef" + "0" * 42


@pytest.mark.parametrize("text", ["sha256:{}", "{}  film.mp4", "{} *a film.mp4"])
def test_a_sum_may_be_pasted_as_publishers_print_it(text: str) -> None:
    assert parse_sha256(text.format("ab" * 32)) == "ab" * 32


@pytest.mark.parametrize(
    "text", ["", "ab", "a" * 63, "a" * 65, "g" * 64, "SHA256SUMS", "²" * 64, "a" * 64 + "\n", "a" * 65 + "  x"]
)
def test_anything_else_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"a SHA-256 has 64 hexadecimal digits$") as caught:
        parse_sha256(text)
    assert caught.value.arguments == ("sha256",)
