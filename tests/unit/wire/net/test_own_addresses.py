"""The addresses of this machine, as the kernel lists them."""

from __future__ import annotations

import ipaddress

import pytest

from msd.wire.net import own_addresses as module
from msd.wire.net.own_addresses import hosts_for_others, own_addresses

ADDRESSES = ["127.0.0.1", "::1", "fe80::1", "2001:db8::7", "192.0.2.7", "10.1.2.3"]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "own_addresses", lambda: map(ipaddress.ip_address, ADDRESSES))


def test_the_kernel_lists_the_loopback_address() -> None:
    assert ipaddress.ip_address("127.0.0.1") in [*own_addresses()]


@pytest.mark.parametrize("host", ["*", "0.0.0.0"])
def test_servers_on_all_ipv4_addresses_are_reached_at_each(host: str, machine: None) -> None:
    assert hosts_for_others(host) == ["192.0.2.7", "10.1.2.3"]


def test_servers_on_all_addresses_are_reached_at_each_of_both_families(machine: None) -> None:
    assert hosts_for_others("::") == ["192.0.2.7", "10.1.2.3", "2001:db8::7"]


@pytest.mark.parametrize(
    ("host", "hosts"), [("192.0.2.7", ("192.0.2.7",)), ("fe80::1%eth0", ("fe80::1%eth0",)), ("127.0.1.1", ())]
)
def test_servers_on_one_address_are_reached_there_unless_it_is_loopback(
    host: str, hosts: tuple[str, ...], machine: None
) -> None:
    assert hosts_for_others(host) == hosts


def test_a_kernel_that_lists_nothing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise PermissionError

    monkeypatch.setattr(module, "own_addresses", fail)
    assert hosts_for_others("*") == ()
