"""When addresses are probed, and what the results and the refusals mean together."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from msd.wire.net.contacts import (
    PROBE_DELAY_S,
    PROBE_INTERVAL_S,
    PROBE_TIMEOUT_S,
    UNREACHABLE_DELAY_S,
    Action,
    Contacts,
    Expecting,
    Probed,
    Refused,
    StartProbe,
    StopProbes,
)
from msd.wire.net.diagnosis import Outcome
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.states import ConnectionRefusal

ADDRESSES = {name: Endpoint("10.0.0.1", port) for name, port in {"server 5": 9005, "worker 1": 9001}.items()}
SERVER_5, WORKER = ADDRESSES.values()


class Scene:
    """Contacts and a clock; at first, no address has answered."""

    def __init__(self, *, encrypted: bool = False) -> None:
        self.now = 1000.0
        self.contacts = Contacts(encrypted=encrypted)
        assert self.contacts.is_idle
        assert self.expect(ADDRESSES) == []

    def expect(self, unanswered: Iterable[str]) -> list[Action]:
        actions = self.contacts.handle(Expecting(ADDRESSES, frozenset(unanswered)), self.now)
        self.contacts.check_invariants()
        return actions

    def wait(self, seconds: float, unanswered: Iterable[str] = ADDRESSES) -> list[Action]:
        """Waits until the next deadline, which is ``seconds`` from now."""
        deadline = self.contacts.next_deadline(self.now)
        assert deadline is not None
        assert deadline == pytest.approx(self.now + seconds)
        self.now = deadline
        return self.expect(unanswered)

    def handle(self, event: Probed | Refused) -> None:
        assert self.contacts.handle(event, self.now) == []

    @property
    def outcomes(self) -> list[Outcome]:
        return [contact.outcome for contact in self.contacts.current()]


def test_addresses_are_probed_again_and_again_until_they_answer() -> None:
    scene = Scene()
    for delay in (PROBE_DELAY_S, PROBE_INTERVAL_S - PROBE_TIMEOUT_S, PROBE_INTERVAL_S - PROBE_TIMEOUT_S):
        assert scene.wait(delay) == [StartProbe(SERVER_5), StartProbe(WORKER)]
        assert scene.wait(PROBE_TIMEOUT_S) == [StopProbes()]
    assert scene.wait(PROBE_INTERVAL_S - PROBE_TIMEOUT_S, ["worker 1"]) == [StartProbe(WORKER)]
    assert scene.expect([]) == [StopProbes()]
    assert scene.contacts.is_idle
    assert scene.contacts.next_deadline(scene.now) is None


def test_a_server_is_unreachable_once_it_is_missing_for_a_while_although_another_one_answers() -> None:
    scene = Scene()
    scene.handle(Probed(WORKER, Outcome.REFUSED))
    scene.now += 10.0
    scene.expect(ADDRESSES)
    assert scene.contacts.unreachable(scene.now) == ()
    scene.expect(["worker 1"])
    scene.now += UNREACHABLE_DELAY_S - 0.1
    scene.expect(["worker 1"])
    assert scene.contacts.unreachable(scene.now) == ()
    scene.now += 0.1
    (contact,) = scene.contacts.unreachable(scene.now)
    assert (contact.name, contact.outcome) == ("worker 1", Outcome.REFUSED)
    scene.expect([])
    assert scene.contacts.unreachable(scene.now) == ()


def test_a_server_is_not_unreachable_before_it_is_known_why() -> None:
    scene = Scene()
    scene.expect(["worker 1"])
    scene.now += 10.0
    assert scene.contacts.unreachable(scene.now) == ()


def test_msd_is_absent_once_two_probes_of_every_address_have_found_none() -> None:
    scene = Scene()
    absent = []
    for outcome in (Outcome.REFUSED, Outcome.SILENT, Outcome.NOT_MSD, Outcome.REFUSED):
        scene.handle(Probed(SERVER_5, Outcome.REFUSED))
        scene.handle(Probed(WORKER, outcome))
        absent.append(scene.contacts.is_msd_absent)
    assert absent == [False, False, False, True]
    scene.expect(["worker 1"])
    assert not scene.contacts.is_msd_absent
    scene.expect([])
    scene.expect(ADDRESSES)
    assert not scene.contacts.is_msd_absent


def test_one_endpoint_is_probed_once_at_a_time() -> None:
    contacts = Contacts(encrypted=False)
    same = Expecting({"server 5": WORKER, "worker 1": WORKER}, frozenset(ADDRESSES))
    contacts.handle(same, 1000.0)
    assert contacts.handle(same, 1000.0 + PROBE_DELAY_S) == [StartProbe(WORKER)]


def test_every_address_of_a_host_is_probed_and_the_most_telling_result_counts() -> None:
    host = Endpoint("10.0.0.1", 9001, ("10.0.0.2", "fd00::1"), "files")
    addresses = [Endpoint(address, 9001) for address in ("10.0.0.1", "10.0.0.2", "fd00::1")]
    contacts, expecting = Contacts(encrypted=False), Expecting({"worker 1": host}, frozenset(["worker 1"]))
    contacts.handle(expecting, 1000.0)
    assert contacts.handle(expecting, 1000.0 + PROBE_DELAY_S) == [StartProbe(address) for address in addresses]
    results = [(Outcome.UNREACHABLE, "no route"), (Outcome.REFUSED, ""), (Outcome.NOT_MSD, "SSH-2.0")]
    for address, (outcome, detail) in zip(addresses, results, strict=True):
        contacts.handle(Probed(address, outcome, detail), 1001.0)
        (contact,) = contacts.current()
        assert (contact.endpoint, contact.outcome, contact.detail) == (host, outcome, detail)
    contacts.handle(Probed(addresses[0], Outcome.NO_ANSWER), 1002.0)
    assert contacts.current()[0].outcome is Outcome.NOT_MSD


def test_msd_is_not_absent_while_one_address_of_a_host_does_not_answer() -> None:
    host = Endpoint("10.0.0.1", 9001, ("10.0.0.2",), "files")
    contacts = Contacts(encrypted=False)
    contacts.handle(Expecting({"worker 1": host}, frozenset(["worker 1"])), 1000.0)
    absent = []
    for outcome in (Outcome.NO_ANSWER, Outcome.REFUSED, Outcome.REFUSED):
        contacts.handle(Probed(Endpoint("10.0.0.1", 9001), Outcome.REFUSED), 1001.0)
        contacts.handle(Probed(Endpoint("10.0.0.2", 9001), outcome), 1001.0)
        absent.append(contacts.is_msd_absent)
    assert absent == [False, False, True]


def test_a_probe_is_over_before_a_client_explains_its_wait() -> None:
    from msd.client.network.progress_timeout import WAITING_NOTICE_S

    assert PROBE_DELAY_S + PROBE_TIMEOUT_S < WAITING_NOTICE_S


def test_each_address_has_the_outcome_of_its_last_probe() -> None:
    scene = Scene()
    assert scene.outcomes == [Outcome.UNKNOWN] * 2
    scene.handle(Probed(SERVER_5, Outcome.NO_ANSWER))
    scene.handle(Probed(SERVER_5, Outcome.UNREACHABLE, "no route to host"))
    assert scene.outcomes == [Outcome.UNREACHABLE, Outcome.UNKNOWN]
    assert scene.contacts.current()[0].detail == "no route to host"


@pytest.mark.parametrize(
    ("refusal", "encrypted", "outcome"),
    [
        (ConnectionRefusal.KEY, True, Outcome.KEY_NOT_ADMITTED),
        (ConnectionRefusal.ROLE, True, Outcome.KEY_FOR_WORKERS),
        (ConnectionRefusal.MECHANISM, True, Outcome.NO_KEYS),
        (ConnectionRefusal.MECHANISM, False, Outcome.KEY_REQUIRED),
        (ConnectionRefusal.HANDSHAKE, True, Outcome.WRONG_SERVER_KEY),
        (ConnectionRefusal.VERSION, False, Outcome.VERSION),
    ],
)
def test_a_refusal_counts_unless_a_probe_finds_another_cause(
    refusal: ConnectionRefusal, encrypted: bool, outcome: Outcome
) -> None:
    scene = Scene(encrypted=encrypted)
    scene.handle(Refused("worker 1", WORKER, refusal))
    assert scene.outcomes[1] is outcome
    scene.handle(Probed(WORKER, Outcome.NO_REPLY))
    assert scene.outcomes == [Outcome.UNKNOWN, outcome]
    assert [(contact.name, contact.outcome) for contact in scene.contacts.refusals()] == [("worker 1", outcome)]
    for other in (Outcome.CLOSED, Outcome.NOT_MSD, Outcome.REFUSED):
        scene.handle(Probed(WORKER, other))
        assert scene.outcomes[1] is other
        assert scene.contacts.refusals() == ()


@pytest.mark.parametrize(
    ("mechanism", "outcome"),
    [("CURVE", Outcome.WRONG_SERVER_KEY), ("NULL", Outcome.NO_KEYS), ("", Outcome.WRONG_SERVER_KEY)],
)
def test_the_reason_of_a_failed_handshake_is_what_a_probe_reads(mechanism: str, outcome: Outcome) -> None:
    """A server without keys may close the connection before ZeroMQ has read here that it uses none."""
    scene = Scene(encrypted=True)
    scene.handle(Refused("worker 1", WORKER, ConnectionRefusal.HANDSHAKE))
    scene.handle(Probed(WORKER, Outcome.NO_REPLY, mechanism=mechanism))
    assert scene.outcomes[1] is outcome
    assert [contact.outcome for contact in scene.contacts.refusals()] == [outcome]
    scene.handle(Refused("worker 1", WORKER, ConnectionRefusal.KEY))
    assert scene.outcomes[1] is Outcome.KEY_NOT_ADMITTED


@pytest.mark.parametrize(
    ("encrypted", "mechanism", "outcome"),
    [
        (False, "NULL", Outcome.NO_REPLY),
        (False, "CURVE", Outcome.KEY_REQUIRED),
        (True, "NULL", Outcome.NO_KEYS),
        (True, "CURVE", Outcome.NO_REPLY),
    ],
)
def test_without_a_refusal_a_probe_shows_whether_only_one_side_uses_keys(
    encrypted: bool, mechanism: str, outcome: Outcome
) -> None:
    scene = Scene(encrypted=encrypted)
    scene.handle(Probed(WORKER, Outcome.NO_REPLY, mechanism=mechanism))
    assert scene.outcomes[1] is outcome
    assert scene.contacts.refusals() == ()


def test_the_version_of_a_refusal_is_its_detail() -> None:
    scene = Scene()
    scene.handle(Refused("worker 1", WORKER, ConnectionRefusal.VERSION, 7))
    assert scene.contacts.current()[1].detail == "7"


def test_an_answer_ends_a_refusal() -> None:
    scene = Scene()
    scene.handle(Refused("worker 1", WORKER, ConnectionRefusal.KEY))
    scene.expect(["server 5"])
    assert scene.outcomes == [Outcome.UNKNOWN, Outcome.ANSWERS]
    scene.expect(ADDRESSES)
    assert scene.outcomes == [Outcome.UNKNOWN, Outcome.UNKNOWN]


def test_results_are_forgotten_once_nothing_is_expected() -> None:
    scene = Scene()
    scene.handle(Probed(WORKER, Outcome.REFUSED))
    scene.expect([])
    scene.expect(ADDRESSES)
    assert scene.outcomes[1] is Outcome.UNKNOWN


def test_a_server_whose_answer_is_due_answers_unless_a_probe_finds_that_it_is_gone() -> None:
    scene = Scene()
    due = Expecting(ADDRESSES, frozenset(["worker 1"]), frozenset(["server 5"]))
    scene.handle(Probed(SERVER_5, Outcome.SILENT))
    scene.now += PROBE_DELAY_S
    assert scene.contacts.handle(due, scene.now) == [StartProbe(SERVER_5), StartProbe(WORKER)]
    assert scene.outcomes[0] is Outcome.ANSWERS
    for found, outcome in {Outcome.NO_REPLY: Outcome.ANSWERS, Outcome.REFUSED: Outcome.REFUSED}.items():
        scene.handle(Probed(SERVER_5, found))
        assert scene.outcomes[0] is outcome
    # It has answered.
    scene.expect(["worker 1"])
    assert scene.outcomes[0] is Outcome.ANSWERS
    scene.contacts.handle(due, scene.now)
    assert scene.outcomes[0] is Outcome.ANSWERS
    assert not scene.contacts.is_msd_absent
