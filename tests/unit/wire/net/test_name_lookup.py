"""Looking up names: failures that pass, names that do not exist, name servers that do not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from msd.wire.errors import NoAnswerError, UsageError
from msd.wire.net import name_lookup
from msd.wire.net.name_lookup import MAX_ADDRESSES, NameLookup, addresses_of, look_up

TIMEOUT = 10.0
TEMPORARY = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_lookup, "RETRY_INTERVAL_S", 0.001)
    monkeypatch.setattr(name_lookup, "NOTICE_S", 0.0)


def resolve_with(monkeypatch: pytest.MonkeyPatch, *answers: list[str] | Exception) -> None:
    """Makes the system's resolver give these answers, one after another."""
    remaining: Iterator[list[str] | Exception] = iter(answers)

    def getaddrinfo(name: str, port: None, type: int) -> list[Any]:
        answer = next(remaining)
        if isinstance(answer, Exception):
            raise answer
        return [(0, 0, 0, "", (host, 0)) for host in answer]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_name_has_all_its_addresses_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_with(monkeypatch, ["::1", "127.0.0.1", "::1"])
    assert addresses_of("files") == ("::1", "127.0.0.1")


def test_of_many_addresses_only_some_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_with(monkeypatch, [f"10.0.0.{number}" for number in range(100)])
    assert addresses_of("files") == tuple(f"10.0.0.{number}" for number in range(MAX_ADDRESSES))


def test_a_link_local_address_keeps_its_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = socket.if_nametoindex("lo")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("fe80::7", 0, 0, scope))])
    assert addresses_of("files") == ("fe80::7%lo",)


# These names are invalid, so no name server is asked. For all but the first, Python raises UnicodeError, not OSError.
@pytest.mark.parametrize("name", ["", "127.0.0..1", "a" * 64, "a.b..c"])
def test_an_invalid_name_does_not_exist(name: str) -> None:
    with pytest.raises(UsageError, match="unknown host"):
        look_up([name])


def test_a_name_that_does_not_exist_is_not_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_with(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    with pytest.raises(UsageError, match=r"^unknown host 'files': check its name, or give an IP address$"):
        look_up(["files"])


def test_a_temporary_failure_is_reported_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reported = threading.Event()

    def resolve(name: str) -> tuple[str, ...]:
        if reported.is_set():
            return ("10.0.0.1",)
        raise TEMPORARY

    def on_waiting(reason: str, seconds: float) -> None:
        reasons.append(reason)
        if "cannot be looked up" in reason:
            reported.set()

    reasons: list[str] = []
    monkeypatch.setattr(name_lookup, "addresses_of", resolve)
    assert look_up(["files"], on_waiting=on_waiting) == {"files": ("10.0.0.1",)}
    assert "'files' cannot be looked up now (Temporary failure in name resolution): trying again" in reasons


def test_a_name_server_that_does_not_answer_ends_the_look_up_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def resolve(name: str) -> tuple[str, ...]:
        assert answered.wait(TIMEOUT)
        raise TEMPORARY

    monkeypatch.setattr(name_lookup, "addresses_of", resolve)
    reasons: list[str] = []
    with pytest.raises(NoAnswerError, match=r"^gave up after 1 s: looking up .files.: "):
        look_up(["files"], timeout=1.0, on_waiting=lambda reason, seconds: reasons.append(reason))
    assert reasons == ["looking up 'files': the name server does not answer"]
    answered.set()


def test_a_cancelled_look_up_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str) -> tuple[str, ...]:
        raise TEMPORARY

    monkeypatch.setattr(name_lookup, "addresses_of", resolve)
    lookup = NameLookup(["files"])
    assert not lookup.wait(0.05)
    lookup.cancel()
    assert lookup.wait(TIMEOUT)
