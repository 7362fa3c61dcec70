"""The options of passing on, and waiting after a download. ``tests/environments/test_passing_on.py`` passes on."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from msd.client.operations.passing_on import PassingOn, PassingOptions, Wait, passing_options
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import Endpoint
from tests.processes import free_ports


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


def test_a_port_is_reserved_from_the_beginning() -> None:
    """The download has made nothing yet."""
    options = PassingOptions(Endpoint("127.0.0.1", free_ports()[0]))
    with closing(PassingOn(options, lambda event: None)) as passing:
        with pytest.raises(UsageError, match=r"\(passing on\) is in use") as raised:
            PassingOn(options, lambda event: None)
        assert raised.value.arguments == ("listen",)
        assert passing.sent_bytes == 0
    PassingOn(options, lambda event: None).close()


def test_a_download_waits_for_some_seconds() -> None:
    wait = Wait(0.02)
    assert time.monotonic() < wait.pass_time() < time.monotonic() + 1
    assert not wait.is_done
    while not wait.is_done:
        wait.pass_time()
