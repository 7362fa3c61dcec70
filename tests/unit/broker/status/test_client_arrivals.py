"""Clients that connect and disconnect are events with their names, and without names for other peers than operators."""

from __future__ import annotations

from collections.abc import Mapping

from msd.broker.status.client_arrivals import NAMING_SAMPLES, ClientArrivals

NAMES = {1: "anna@laptop", 2: "ben@attic", 3: "office", 4: "zoe"}


class Clients:
    """The texts of the events after each sample."""

    def __init__(self) -> None:
        self._arrivals = ClientArrivals()
        self.public: list[str] = []

    def sample(self, *sessions: int, names: Mapping[int, str] = NAMES, clients: int | None = None) -> list[str]:
        count = len(sessions) if clients is None else clients
        events = self._arrivals.sample(frozenset(sessions), names, count)
        self.public = [event.public_text for event in events]
        return [event.text for event in events]


def test_a_client_is_called_as_in_the_panel_of_the_clients() -> None:
    clients = Clients()
    assert clients.sample(1) == ["client anna@laptop connected: now serving 1"]
    assert clients.public == ["client connected: now serving 1"]
    assert clients.sample(1) == []
    assert clients.sample() == ["client anna@laptop disconnected: now serving 0"]
    assert clients.public == ["client disconnected: now serving 0"]


def test_some_of_many_clients_are_named() -> None:
    clients = Clients()
    assert clients.sample(1, 2) == ["clients anna@laptop and ben@attic connected: now serving 2"]
    assert clients.sample(1, 2, 3, 4, 5, names={**NAMES, 5: "carl"}) == [
        "clients carl, office and zoe connected: now serving 5"
    ]
    assert clients.public == ["3 clients connected: now serving 5"]
    assert clients.sample(5, names={**NAMES, 5: "carl"}) == [
        "clients anna@laptop, ben@attic, office and 1 other disconnected: now serving 1"
    ]
    many = {session: f"user{session:03}" for session in range(1, 1201)}
    assert Clients().sample(*many, names=many) == [
        "clients user001, user002, user003 and 1,197 others connected: now serving 1,200"
    ]
    assert Clients().sample(1, 2, 3, names=dict.fromkeys((1, 2, 3), "ci")) == ["client ci connected: now serving 3"]


def test_the_name_of_a_new_client_is_awaited_for_a_moment() -> None:
    clients = Clients()
    assert clients.sample(1, names={}) == []
    assert clients.sample(1) == ["client anna@laptop connected: now serving 1"]
    for sample in range(NAMING_SAMPLES):
        assert clients.sample(1, 9) == [], sample
    assert clients.sample(1, 2, 9) == ["clients ben@attic and 1 other connected: now serving 3"]
    assert clients.sample(1, 9) == ["client ben@attic disconnected: now serving 2"]
    assert clients.sample(1, 9, names={**NAMES, 9: "late"}) == []
    assert clients.sample(1, names={**NAMES, 9: "late"}) == ["client late disconnected: now serving 1"]


def test_a_client_that_has_gone_before_it_was_named_is_two_events() -> None:
    clients = Clients()
    assert clients.sample(9) == []
    assert clients.sample() == ["client connected: now serving 1", "client disconnected: now serving 0"]
    clients.sample(1, names={})
    assert clients.sample() == [
        "client anna@laptop connected: now serving 1",
        "client anna@laptop disconnected: now serving 0",
    ]


def test_a_client_keeps_its_name_when_its_download_is_forgotten() -> None:
    clients = Clients()
    clients.sample(1)
    assert clients.sample(names={}) == ["client anna@laptop disconnected: now serving 0"]


def test_the_number_of_clients_is_that_of_the_events() -> None:
    """Two clients have connected, and one of them has not reported its name yet."""
    clients = Clients()
    assert clients.sample(1, 2, names={1: "anna@laptop"}) == ["client anna@laptop connected: now serving 1"]
    assert clients.sample(1, 2) == ["client ben@attic connected: now serving 2"]
    assert clients.sample(2, 3) == [
        "client office connected: now serving 3",
        "client anna@laptop disconnected: now serving 2",
    ]


def test_clients_that_no_worker_lists_are_counted() -> None:
    clients = Clients()
    assert clients.sample(1, clients=3) == ["clients anna@laptop and 2 others connected: now serving 3"]
    assert clients.sample(1, clients=2) == ["client disconnected: now serving 2"]
    assert clients.sample(1, clients=1) == ["client disconnected: now serving 1"]
