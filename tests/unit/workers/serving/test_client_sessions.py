"""Which sessions count as open."""

from __future__ import annotations

import pytest

from msd.wire.protocol.messages import ServedSession
from msd.workers.serving import client_sessions
from msd.workers.serving.client_sessions import SESSION_TIMEOUT_S, ClientSessions


def test_a_session_is_open_from_hello_to_bye() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    assert sessions.current(0.0) == []
    sessions.open("a", 7, 0.0)
    assert sessions.current(1.0) == [7]
    sessions.close("a")
    assert sessions.current(1.0) == []


def test_session_0_is_not_counted() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    sessions.open("a", 0, 0.0)
    assert sessions.current(0.0) == []


def test_several_connections_of_a_client_are_one_session() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    for key in ("a", "b"):
        sessions.open(key, 7, 0.0)
    sessions.open("c", 3, 0.0)
    assert sessions.current(0.0) == [3, 7]
    sessions.close("a")
    assert sessions.current(0.0) == [3, 7]
    sessions.close("b")
    assert sessions.current(0.0) == [3]


def test_a_session_without_requests_times_out() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    sessions.open("a", 7, 100.0)
    assert sessions.current(100.0 + SESSION_TIMEOUT_S) == [7]
    assert sessions.current(100.5 + SESSION_TIMEOUT_S) == []
    assert sessions.current(100.0) == [], "a timed-out session must be removed"


def test_a_request_renews_the_timeout() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    sessions.open("a", 7, 0.0)
    sessions.open("b", 8, 0.0)
    sessions.touch("a", SESSION_TIMEOUT_S)
    assert sessions.current(2 * SESSION_TIMEOUT_S) == [7]


def test_other_requests_do_not_open_a_session() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    sessions.touch("a", 0.0)
    sessions.close("b")
    assert sessions.current(0.0) == []


def test_a_second_hello_replaces_the_session() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    sessions.open("a", 7, 0.0)
    sessions.open("a", 8, 0.0)
    assert sessions.current(0.0) == [8]


def test_clear_closes_all_sessions() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    sessions.open("a", 7, 0.0)
    sessions.open("b", 8, 0.0)
    sessions.clear()
    assert sessions.current(0.0) == []


def test_a_session_is_served_once_and_reported_until_that_has_succeeded() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    sessions.open("a", 7, 0.0, b"key")
    assert sessions.unreported(9) == []
    for _ in range(2):
        sessions.on_served("a")
        assert sessions.unreported(9) == [ServedSession(7, b"key")]
    sessions.close("a")
    assert sessions.unreported(9) == [ServedSession(7, b"key")], "the client may be done before the first heartbeat"
    sessions.on_reported(sessions.unreported(9))
    assert sessions.unreported(9) == []


def test_served_sessions_are_reported_in_parts_and_unknown_connections_are_ignored() -> None:
    sessions: ClientSessions[int] = ClientSessions()
    for number in range(1, 4):
        sessions.open(number, number, 0.0)
        sessions.on_served(number)
    sessions.on_served(99)
    assert sessions.unreported(2) == [ServedSession(1), ServedSession(2)]
    sessions.on_reported(sessions.unreported(2))
    assert sessions.unreported(2) == [ServedSession(3)]


def test_another_session_on_the_same_connection_must_be_served_itself() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    sessions.open("a", 7, 0.0)
    sessions.on_served("a")
    sessions.open("a", 8, 1.0)
    assert sessions.unreported(9) == [ServedSession(7)]
    sessions.on_served("a")
    assert sessions.unreported(9) == [ServedSession(7), ServedSession(8)]


def test_a_session_beyond_the_limit_is_recorded_with_a_later_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_sessions, "MAX_UNREPORTED", 1)
    sessions: ClientSessions[str] = ClientSessions()
    for key, session in (("a", 7), ("b", 8)):
        sessions.open(key, session, 0.0)
        sessions.on_served(key)
    assert sessions.unreported(9) == [ServedSession(7)]
    sessions.on_reported(sessions.unreported(9))
    sessions.on_served("b")
    assert sessions.unreported(9) == [ServedSession(8)]
