"""Parsing, checking, formatting and resolving endpoints."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msd.wire.errors import UsageError
from msd.wire.net.endpoints import ANY_HOSTS, Endpoint, check_port


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:21018", "127.0.0.1", 21018),
        ("tcp://127.0.0.1:21018", "127.0.0.1", 21018),
        ("example.org:1", "example.org", 1),
        ("[::1]:65535", "::1", 65535),
        ("tcp://[fe80::1]:80", "fe80::1", 80),
        ("*:39223", "*", 39223),
    ],
)
def test_host_and_port_are_parsed(text: str, host: str, port: int) -> None:
    assert Endpoint.parse(text) == Endpoint(host, port)


@pytest.mark.parametrize(
    "text",
    ["", ":", "host", "host:", ":80", "80", "host:x", "host:8 0", "host:-1", "host:+1", "host:٣", "tcp://", "[::1]"],
)
def test_any_other_text_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(UsageError, match="is not HOST:PORT") as caught:
        Endpoint.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("port", [0, 65536, 80000])
def test_a_port_out_of_range_is_refused_although_zeromq_would_accept_it(port: int) -> None:
    with pytest.raises(UsageError, match=f"127.0.0.1:{port}: {port} is not a valid port; ports range from 1 to 65535"):
        Endpoint.parse(f"127.0.0.1:{port}")


@pytest.mark.parametrize("port", [1, 65535])
def test_a_port_in_range_is_returned(port: int) -> None:
    assert check_port(port, "-p") == port


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_out_of_range_is_reported_with_its_source(port: int) -> None:
    with pytest.raises(UsageError, match=f"-p: {port} is not a valid port"):
        check_port(port, "-p")


@pytest.mark.parametrize(
    ("endpoint", "url", "text"),
    [
        (Endpoint("127.0.0.1", 80), "tcp://127.0.0.1:80", "127.0.0.1:80"),
        (Endpoint("example.org", 80), "tcp://example.org:80", "example.org:80"),
        (Endpoint("::1", 80), "tcp://[::1]:80", "[::1]:80"),
        (Endpoint("*", 80), "tcp://*:80", "*:80"),
        (Endpoint("0.0.0.0", 80), "tcp://*:80", "*:80"),
        (Endpoint("::", 80), "tcp://*:80", "*:80"),
    ],
)
def test_an_endpoint_is_formatted_for_zeromq_and_for_people(endpoint: Endpoint, url: str, text: str) -> None:
    assert endpoint.url == url
    assert str(endpoint) == text


@given(st.ip_addresses(), st.integers(1, 65535))
def test_parsing_is_the_inverse_of_formatting(address: object, port: int) -> None:
    endpoint = Endpoint(str(address), port)
    if endpoint.host not in ANY_HOSTS:
        assert Endpoint.parse(str(endpoint)) == Endpoint.parse(endpoint.url) == endpoint


@given(st.text(max_size=30))
def test_any_text_is_an_endpoint_or_a_usage_error(text: str) -> None:
    try:
        endpoint = Endpoint.parse(text)
    except UsageError:
        return
    assert 1 <= endpoint.port <= 65535


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_loopback_address_is_recognized(host: str) -> None:
    assert Endpoint(host, 80).is_loopback


@pytest.mark.parametrize(
    "host", ["*", "0.0.0.0", "::", "192.168.1.2", "10.0.0.1", "example.org", "localhost.evil.org", ""]
)
def test_any_other_host_is_not_loopback(host: str) -> None:
    assert not Endpoint(host, 80).is_loopback


def test_only_a_host_with_colons_is_ipv6() -> None:
    assert Endpoint("::1", 80).is_ipv6
    assert Endpoint("::", 80).is_ipv6
    assert not Endpoint("127.0.0.1", 80).is_ipv6
    assert not Endpoint("*", 80).is_ipv6


@pytest.mark.parametrize("host", ANY_HOSTS)
def test_a_wildcard_is_replaced(host: str) -> None:
    assert Endpoint(host, 80).replace_wildcard("10.1.2.3") == Endpoint("10.1.2.3", 80)


def test_a_host_that_is_not_a_wildcard_is_not_replaced() -> None:
    assert Endpoint("10.9.9.9", 80).replace_wildcard("10.1.2.3") == Endpoint("10.9.9.9", 80)


@pytest.mark.parametrize(
    ("told", "host", "used"),
    [
        ("fe80::7%eth0", "fe80::7%wlan0", "fe80::7%wlan0"),
        ("fe80::7", "fe80::7%wlan0", "fe80::7%wlan0"),
        ("fe80::7%eth0", "2001:db8::7", "fe80::7%eth0"),
        ("2001:db8::7", "fe80::7%wlan0", "2001:db8::7"),
        ("192.0.2.7", "fe80::7%wlan0", "192.0.2.7"),
    ],
)
def test_a_link_local_address_gets_the_scope_of_the_machine_that_uses_it(told: str, host: str, used: str) -> None:
    assert Endpoint(told, 80).with_scope_of(host) == Endpoint(used, 80)


def test_python_takes_every_numeric_endpoint() -> None:
    assert Endpoint("127.0.0.1", 80).socket_address == ("127.0.0.1", 80)
    assert Endpoint("*", 80).socket_address == ("", 80)
    assert Endpoint("::", 80).socket_address == ("::", 80)
    scope = socket.if_nametoindex("lo")
    assert Endpoint("fe80::7%lo", 80).socket_address[1:] == (80, 0, scope)
    with pytest.raises(OSError, match="not known"):
        Endpoint("fe80::7%nosuch", 80).socket_address  # noqa: B018


@pytest.mark.parametrize(("host", "url"), [("::", "tcp://[::]:80"), ("*", "tcp://*:80"), ("::1", "tcp://[::1]:80")])
def test_the_family_of_a_wildcard_is_kept_for_binding(host: str, url: str) -> None:
    endpoint = Endpoint(host, 80)
    assert endpoint.bind_url == url
    assert Endpoint.parse(endpoint.bind_url) == endpoint


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::7%lo", *ANY_HOSTS])
def test_an_address_is_not_looked_up(host: str) -> None:
    assert Endpoint(host, 80).name_to_look_up is None


@pytest.mark.parametrize("host", ["localhost", "example.org", "127.0.0..1", "127.1", ""])
def test_any_other_host_is_a_name(host: str) -> None:
    assert Endpoint(host, 80).name_to_look_up == host


def test_a_name_stands_for_all_its_addresses() -> None:
    endpoint = Endpoint("files", 80).with_addresses({"files": ("::1", "127.0.0.1")})
    assert endpoint.addresses == (Endpoint("::1", 80), Endpoint("127.0.0.1", 80))
    assert endpoint.name_to_look_up == "files"
    assert str(endpoint) == "files:80"
    assert endpoint.at_port(81).addresses == (Endpoint("::1", 81), Endpoint("127.0.0.1", 81))
    assert endpoint.with_addresses({"files": ("10.0.0.1",)}).addresses == (Endpoint("10.0.0.1", 80),)


def test_an_address_has_itself_as_its_only_address() -> None:
    endpoint = Endpoint("127.0.0.1", 80)
    assert endpoint.addresses == (endpoint,)
    assert endpoint.with_addresses({"files": ("10.0.0.1",)}) == endpoint
