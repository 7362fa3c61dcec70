"""Which clients count as being served."""

from __future__ import annotations

from msd.workers.serving.client_sessions import SILENT_AFTER, ClientSessions


def test_a_session_is_open_from_hello_to_bye() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    assert sessions.current(0.0) == []
    sessions.open("a", 7, 0.0)
    assert sessions.current(1.0) == [7]
    sessions.end("a")
    assert sessions.current(1.0) == []


def test_the_connections_of_one_client_are_one_session() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    for key in ("a", "b"):
        sessions.open(key, 7, 0.0)
    sessions.open("c", 3, 0.0)
    assert sessions.current(0.0) == [3, 7]
    sessions.end("a")
    assert sessions.current(0.0) == [3, 7]
    sessions.end("b")
    assert sessions.current(0.0) == [3]


def test_a_client_that_says_nothing_counts_as_gone_after_a_while() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    sessions.open("a", 7, 100.0)
    assert sessions.current(100.0 + SILENT_AFTER) == [7]
    assert sessions.current(100.5 + SILENT_AFTER) == []
    assert sessions.current(100.0) == [], "it is forgotten, not hidden"


def test_a_client_that_is_heard_stays() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    sessions.open("a", 7, 0.0)
    sessions.open("b", 8, 0.0)
    sessions.heard("a", SILENT_AFTER)
    assert sessions.current(2 * SILENT_AFTER) == [7]


def test_being_heard_opens_no_session() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    sessions.heard("a", 0.0)
    sessions.end("b")
    assert sessions.current(0.0) == []


def test_a_second_hello_replaces_the_session() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    sessions.open("a", 7, 0.0)
    sessions.open("a", 8, 0.0)
    assert sessions.current(0.0) == [8]


def test_a_closed_port_ends_all_sessions() -> None:
    sessions: ClientSessions[str] = ClientSessions()
    sessions.open("a", 7, 0.0)
    sessions.open("b", 8, 0.0)
    sessions.clear()
    assert sessions.current(0.0) == []
