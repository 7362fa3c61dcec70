"""Downloads of what lies in a bucket, through four workers: what arrives, and what leaves the store."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.processes import MIB, Serve
from tests.stores.conftest import Bucket

pytestmark = pytest.mark.stores


def test_a_file_of_a_bucket_arrives_and_leaves_the_store_once(
    bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    content = rng.randbytes(32 * MIB + 12345)
    bucket.put("film.bin", content)
    system = serve(bucket.url("film.bin"))
    indexed = bucket.proxy.bytes_of_objects
    assert indexed == len(content)
    with system.download("-o", str(tmp_path / "copy")) as download:
        done = download.wait_until_done()
    assert (tmp_path / "copy").read_bytes() == content
    assert not done["retries"]
    assert bucket.proxy.bytes_of_objects - indexed <= 1.05 * len(content)
    assert system.states() == ["awake"] * 4
