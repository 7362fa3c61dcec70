"""Which complaints count, and who is banned. The clock is virtual."""

from __future__ import annotations

import random

import pytest

from msd.broker.tracking import complaints
from msd.broker.tracking.announcer import Announcer
from msd.broker.tracking.complaints import BAN_S, COMPLAINT_S, MAX_OF_ACCUSER, MAX_OF_ADDRESS, Complaints

ACCUSED, OTHER = b"a" * 32, b"o" * 32
ADDRESS = "192.0.2.1"


def accuser(number: int, *, key: bool = True) -> Announcer:
    return Announcer(f"key {number}" if key else "", f"10.0.{number >> 8}.{number & 255}")


def complain(known: Complaints, number: int, identity: bytes | str = ACCUSED, address: str = ADDRESS) -> bool:
    result = known.add(identity, address, accuser(number), 0.0)
    known.check_invariants()
    return result


def test_two_accusers_ban_a_receiver() -> None:
    known = Complaints()
    assert not complain(known, 1)
    assert not known.is_banned(ACCUSED, 0.0)
    assert complain(known, 2)
    assert known.is_banned(ACCUSED, 0.0)
    assert not known.is_banned(OTHER, 0.0)
    assert not complain(known, 3), "it is banned already"


@pytest.mark.parametrize(
    ("one", "other", "is_banned"),
    [
        (Announcer("a", "10.0.0.1"), Announcer("a", "10.0.0.1"), False),
        (Announcer("a", "10.0.0.1"), Announcer("b", "10.0.0.1"), False),
        (Announcer("a", "10.0.0.1"), Announcer("a", "10.0.0.2"), False),
        (Announcer("a", "10.0.0.1"), Announcer("b", "10.0.0.2"), True),
        (Announcer("", "10.0.0.1"), Announcer("", "10.0.0.1"), False),
        (Announcer("", "10.0.0.1"), Announcer("", "10.0.0.2"), True),
    ],
)
def test_accusers_differ_in_their_addresses_and_keys(one: Announcer, other: Announcer, is_banned: bool) -> None:
    known = Complaints()
    assert not known.add(ACCUSED, ADDRESS, one, 0.0)
    assert known.add(ACCUSED, ADDRESS, other, 0.0) is is_banned


def test_an_accuser_counts_once_for_each_address() -> None:
    """Two that accuse each receiver at an address have one of them banned."""
    known = Complaints()
    banned = [port for port in range(100) for number in (1, 2) if complain(known, number, f"tcp://{ADDRESS}:{port}")]
    assert banned == [0]
    assert not complain(known, 1, OTHER, "192.0.2.2")
    assert complain(known, 2, OTHER, "192.0.2.2")


def test_the_complaints_of_one_accuser_do_not_make_those_of_others_invalid() -> None:
    """Not even if the others have the same key."""
    known = Complaints()
    complain(known, 1, OTHER)
    same_key = Announcer(accuser(1).key, "10.9.9.9")
    assert not known.add(ACCUSED, ADDRESS, same_key, 0.0)
    assert complain(known, 2)


def test_an_accuser_counts_for_few_addresses() -> None:
    known = Complaints()
    places = [(number.to_bytes(32, "big"), f"10.1.0.{number}") for number in range(4 * MAX_OF_ACCUSER)]
    assert sum(complain(known, number, *place) for place in places for number in (1, 2)) == MAX_OF_ACCUSER


def test_many_accusers_can_have_few_receivers_at_an_address_banned() -> None:
    known = Complaints()
    banned = sum(complain(known, number, f"tcp://*:{number // 2}") for number in range(1000))
    assert banned == MAX_OF_ADDRESS // 2


def test_a_complaint_and_a_ban_end() -> None:
    known = Complaints()
    complain(known, 1)
    assert not known.add(ACCUSED, ADDRESS, accuser(2), COMPLAINT_S)
    assert known.add(ACCUSED, ADDRESS, accuser(1), COMPLAINT_S + 1)
    assert known.is_banned(ACCUSED, COMPLAINT_S + BAN_S)
    assert not known.is_banned(ACCUSED, COMPLAINT_S + 1 + BAN_S)
    known.check_invariants()


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, rng: random.Random) -> None:
    monkeypatch.setattr(complaints, "MAX_COMPLAINTS", 20)
    monkeypatch.setattr(complaints, "MAX_BANNED", 5)
    known, now, banned = Complaints(), 0.0, 0
    for _ in range(3000):
        now += rng.choice([0.0, 0.0, COMPLAINT_S / 10])
        identity, address = rng.randrange(20).to_bytes(32, "big"), f"10.1.0.{rng.randrange(20)}"
        banned += known.add(identity, address, accuser(rng.randrange(20), key=rng.random() < 0.5), now)
        known.check_invariants()
    assert banned
