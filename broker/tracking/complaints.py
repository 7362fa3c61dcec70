"""Decides which complaints of corrupt units count, and which receivers are banned because of them. Pure.

The broker cannot verify a complaint, and without keys any program may send some. So what one client can do with its
complaints is bounded: only one of the receivers at an address, and only of some addresses. Does not know which
receivers there are: see ``broker/tracking/tracker.py``.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from msgspec import Struct

from msd.broker.tracking.announcer import Announcer

#: Seconds for which a complaint counts, and for which a ban lasts. Without keys another receiver may have the endpoint
#: by then.
COMPLAINT_S = BAN_S = 3600.0
#: The maximum number of complaints that count at the same time: of one accuser, which is more than it meets; of the
#: receivers at one address, so that accusers with many addresses can have few of them banned; and in all.
MAX_OF_ACCUSER, MAX_OF_ADDRESS, MAX_COMPLAINTS = 16, 8, 16384
#: The maximum number of receivers that are banned at the same time.
MAX_BANNED = 4096


class _Complaint(Struct, frozen=True):
    """``identity`` is the accused receiver."""

    identity: bytes | str
    expires_at: float


#: The key and the network of an accuser.
_Accuser = tuple[str, str]


class Complaints:
    """The complaints that count, and the bans. A receiver has an *identity*: its key or, without keys, its endpoint."""

    def __init__(self) -> None:
        #: Each with its accuser and the accused address, in the order in which they came.
        self._complaints: OrderedDict[tuple[_Accuser, str], _Complaint] = OrderedDict()
        #: The accusers of each address, and the number of complaints of each accuser.
        self._accusers: dict[str, set[_Accuser]] = {}
        self._counts: Counter[_Accuser] = Counter()
        #: The banned receivers, each with the end of its ban, in this order.
        self._banned: OrderedDict[bytes | str, float] = OrderedDict()

    def add(self, identity: bytes | str, address: str, announcer: Announcer, now: float) -> bool:
        """The announcer complains of a receiver at this address. Returns True if that bans the receiver: two complaints
        count that come from different addresses and, where keys are used, by different keys.
        """
        self._forget_expired(now)
        accuser, accusers = (announcer.key, announcer.network), self._accusers.get(address, set())
        if accuser in accusers or len(accusers) >= MAX_OF_ADDRESS or self._counts[accuser] >= MAX_OF_ACCUSER:
            return False
        if len(self._complaints) >= MAX_COMPLAINTS:
            self._forget(next(iter(self._complaints)))
        self._complaints[accuser, address] = _Complaint(identity, now + COMPLAINT_S)
        self._accusers.setdefault(address, set()).add(accuser)
        self._counts[accuser] += 1
        if self.is_banned(identity, now) or not any(
            self._complaints[other, address].identity == identity and _are_different(accuser, other)
            for other in accusers
        ):
            return False
        self._banned[identity] = now + BAN_S
        if len(self._banned) > MAX_BANNED:
            self._banned.popitem(last=False)
        return True

    def is_banned(self, identity: bytes | str, now: float) -> bool:
        return self._banned.get(identity, now) > now

    def check_invariants(self) -> None:
        """Raises ``AssertionError`` if the state is inconsistent, or larger than it may be."""
        assert Counter(accuser for accuser, _ in self._complaints) == self._counts
        assert {(accuser, address) for address, accusers in self._accusers.items() for accuser in accusers} == {
            *self._complaints
        }
        assert all(0 < len(accusers) <= MAX_OF_ADDRESS for accusers in self._accusers.values())
        assert max(self._counts.values(), default=0) <= MAX_OF_ACCUSER
        assert len(self._complaints) <= MAX_COMPLAINTS
        assert len(self._banned) <= MAX_BANNED

    def _forget_expired(self, now: float) -> None:
        while self._complaints and self._complaints[place := next(iter(self._complaints))].expires_at <= now:
            self._forget(place)
        while self._banned and next(iter(self._banned.values())) <= now:
            self._banned.popitem(last=False)

    def _forget(self, place: tuple[_Accuser, str]) -> None:
        accuser, address = place
        del self._complaints[place]
        self._accusers[address].remove(accuser)
        if not self._accusers[address]:
            del self._accusers[address]
        self._counts[accuser] -= 1
        if not self._counts[accuser]:
            del self._counts[accuser]


def _are_different(one: _Accuser, other: _Accuser) -> bool:
    return one[1] != other[1] and (one[0] != other[0] or not one[0])
