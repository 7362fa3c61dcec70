"""The probes of addresses: real sockets that listen or do not."""

from __future__ import annotations

import select
import socket
import time
from contextlib import closing

from msd.wire.net.contact_probes import ContactProbes
from msd.wire.net.contacts import Expecting
from msd.wire.net.diagnosis import Outcome
from msd.wire.net.endpoints import Endpoint
from tests.processes import TIMEOUT


def outcome_of(endpoint: Endpoint) -> Outcome:
    """What is found at an address from which an answer is expected."""
    expecting = Expecting({"server 5": endpoint}, frozenset({"server 5"}))
    deadline = time.monotonic() + TIMEOUT
    with closing(ContactProbes(encrypted=False)) as probes:
        while (contact := probes.contacts.current()) == () or contact[0].outcome is Outcome.UNKNOWN:
            assert time.monotonic() < deadline
            probes.handle(expecting)
            if select.select([probes.fd], [], [], 0.02)[0]:
                probes.read()
        return contact[0].outcome


def test_a_closed_port_refuses() -> None:
    with closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))
        assert outcome_of(Endpoint("127.0.0.1", closed.getsockname()[1])) is Outcome.REFUSED


def test_a_program_that_says_nothing_is_silent_when_the_probe_is_stopped() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        assert outcome_of(Endpoint("127.0.0.1", server.getsockname()[1])) is Outcome.SILENT
