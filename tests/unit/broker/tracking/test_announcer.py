"""Who counts as the same machine."""

from __future__ import annotations

import pytest

from msd.broker.tracking.announcer import Announcer


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_the_addresses_of_a_network_are_one_machine(one: str, other: str, is_same: bool) -> None:
    assert (Announcer("a", one).network == Announcer("b", other).network) is is_same
