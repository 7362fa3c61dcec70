"""A slow link between the workers and the store."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.network_fault_proxy import Proxy
from tests.processes import MIB, Serve
from tests.stores.conftest import Bucket

pytestmark = pytest.mark.stores


def test_a_download_over_a_slow_link_to_the_store(
    bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It carries 1 MiB a second in all, which the requests of all workers share."""
    content = rng.randbytes(24 * MIB)
    bucket.put("film.bin", content)
    with Proxy(bucket.proxy.port) as link:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{link.port}")
        system = serve(bucket.url())
        bucket.proxy.exchanges.clear()
        link.rate = 1.0 * MIB
        with system.download("film.bin", "-o", str(tmp_path / "copy")) as download:
            done = download.wait_until_done(90)
        assert system.states() == ["awake"] * 4
        assert "cannot read" not in system.out.text
    assert (tmp_path / "copy").read_bytes() == content
    assert not done["retries"]
    # At the start and the end, some segments are read by several workers.
    assert bucket.proxy.bytes_of_objects <= 2 * len(content)
