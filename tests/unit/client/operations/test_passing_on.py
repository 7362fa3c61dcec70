"""The options of passing on, and waiting after a download. ``tests/environments/test_passing_on.py`` passes on."""

from __future__ import annotations

import time

import pytest

from msd.client.operations.passing_on import PassingOptions, Wait, passed_file, passing_options
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.segments import Manifest, cut, digest


@pytest.mark.parametrize(
    ("listen", "endpoint"),
    [(None, None), ("5000", Endpoint("*", 5000)), ("192.0.2.7:5000", Endpoint("192.0.2.7", 5000))],
)
def test_an_address_may_be_a_port_only(listen: str | None, endpoint: Endpoint | None) -> None:
    assert passing_options(listen, 1.5, 60) == PassingOptions(endpoint, 1, 60)
    assert passing_options(listen, None, 0) == PassingOptions(endpoint, 0, 0)


@pytest.mark.parametrize("listen", ["0", "70000", "host:"])
def test_a_wrong_address_is_an_error(listen: str) -> None:
    with pytest.raises(UsageError, match="cannot pass on: "):
        passing_options(listen, None, 0)


def test_a_file_keeps_the_name_for_which_clients_are_invited() -> None:
    content = b"film" * 9
    digests = b"".join(map(digest, cut(memoryview(content))))
    passed = passed_file(Manifest.build("folder/film", len(content), digests), 5)
    assert (passed.name, passed.digests, passed.fd) == ("folder/film", digests, 5)


def test_a_download_waits_for_some_seconds() -> None:
    wait = Wait(0.02)
    assert time.monotonic() < wait.pass_time() < time.monotonic() + 1
    assert not wait.is_done
    while not wait.is_done:
        wait.pass_time()
