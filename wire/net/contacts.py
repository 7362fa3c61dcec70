"""Finds out why no server answers: which addresses to probe and when, and what came back from each. Pure.

A client expects answers from some addresses. If one of them sends none, ZeroMQ connects again and again in silence, so
the addresses are probed with plain TCP (``wire/net/probe.py``). Does not decide whether the client waits or gives up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from msd.wire.net.diagnosis import Contact, Outcome
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.support.core import Core

#: Seconds without an answer after which the addresses are probed. Servers that run answer much earlier.
PROBE_DELAY_S = 0.3
#: Seconds that a probe may take. With the delay this is less than a second, after which a client explains its wait.
PROBE_TIMEOUT_S = 0.6
#: Seconds between two probes of an address that still does not answer.
PROBE_INTERVAL_S = 1.0
#: Seconds without an answer, while other servers answer, after which a server counts as unreachable. Within this time a
#: probe has ended that began after the first one of them answered.
UNREACHABLE_DELAY_S = 2.0
#: What the probes of several addresses of one host say together: the first of these that one of them found.
_MOST_TELLING = (
    Outcome.NO_REPLY,
    Outcome.NOT_MSD,
    Outcome.CLOSED,
    Outcome.SILENT,
    Outcome.REFUSED,
    Outcome.NO_ANSWER,
    Outcome.UNREACHABLE,
    Outcome.UNKNOWN,
)
#: The security mechanism of a ZeroMQ socket that does not use keys.
WITHOUT_KEYS = "NULL"
#: Successive probes that must find no msd at any address before a client may give up: servers may be starting.
PROBES_WITHOUT_MSD = 2


class Expecting(Struct, frozen=True):
    """The client knows ``addresses`` by name, and still expects an answer from those in ``unanswered``.

    Those in ``due`` have answered, and their next answer is due: they are probed, too, while another one is expected.
    """

    addresses: Mapping[str, Endpoint]
    unanswered: frozenset[str]
    due: frozenset[str] = frozenset()


class Refused(Struct, frozen=True):
    """The server ``name`` refused the connection. ``version`` is its version of the protocol, if that is the reason."""

    name: str
    endpoint: Endpoint
    refusal: ConnectionRefusal
    version: int | None = None


class Probed(Struct, frozen=True):
    """The result of a probe of one address. ``mechanism`` is the security mechanism of a ZeroMQ socket, if known."""

    endpoint: Endpoint
    outcome: Outcome
    detail: str = ""
    mechanism: str = ""


class StartProbe(Struct, frozen=True):
    """Connect to this one address with plain TCP; ``Probed`` follows."""

    endpoint: Endpoint


class StopProbes(Struct, frozen=True):
    """End the probes; ``Probed`` follows for those that had no result yet."""


Event = Expecting | Refused | Probed
Action = StartProbe | StopProbes


class Contacts(Core[Event, Action]):
    """The addresses that a client tries, and what came back from each. ``encrypted``: the client uses keys."""

    def __init__(self, *, encrypted: bool) -> None:
        super().__init__()
        self._encrypted = encrypted
        self._addresses: Mapping[str, Endpoint] = {}
        self._unanswered: frozenset[str] = frozenset()
        self._due: frozenset[str] = frozenset()
        #: Since when each server sends no answer although another one does.
        self._missing_since: dict[str, float] = {}
        #: The last refusal of each server since it answered.
        self._refusals: dict[str, Contact] = {}
        #: The result of the last probe of each address, since all expected answers arrived.
        self._results: dict[Endpoint, Probed] = {}
        #: How many of the last probes of each address found that msd does not listen there.
        self._without_msd: Counter[Endpoint] = Counter()
        #: When the next probes start; None if no answer is expected.
        self._probe_at: float | None = None
        #: When the current probes end; None if there are none.
        self._stop_at: float | None = None

    @property
    def is_idle(self) -> bool:
        """True if no answer is expected and nothing is probed."""
        return self._probe_at is None

    def next_deadline(self, now: float) -> float | None:  # noqa: ARG002
        return self._stop_at if self._stop_at is not None else self._probe_at

    @property
    def is_msd_absent(self) -> bool:
        """True if every address refuses connections or belongs to another program, as successive probes found."""
        return bool(self._addresses) and all(
            name in self._unanswered and self._without_msd[address] >= PROBES_WITHOUT_MSD
            for name, endpoint in self._addresses.items()
            for address in endpoint.addresses
        )

    def current(self) -> tuple[Contact, ...]:
        """Returns what came back from each address."""
        return tuple(
            Contact(name, endpoint, *self._outcome(name, endpoint)) for name, endpoint in self._addresses.items()
        )

    def unreachable(self, now: float) -> tuple[Contact, ...]:
        """Returns what came back from each server that has sent no answer for a while, unlike others."""
        missing = {name for name, since in self._missing_since.items() if now >= since + UNREACHABLE_DELAY_S}
        return tuple(
            contact for contact in self.current() if contact.name in missing and contact.outcome is not Outcome.UNKNOWN
        )

    def refusals(self) -> tuple[Contact, ...]:
        """Returns the last refusal of each server, unless it has answered since or a probe found another cause."""
        return tuple(
            self._refusal(name) for name, contact in self._refusals.items() if self._may_be_refused(contact.endpoint)
        )

    def _decide(self, event: Event, now: float) -> list[Action]:
        match event:
            case Refused(name, endpoint, refusal, version):
                detail = "" if version is None else str(version)
                self._refusals[name] = Contact(name, endpoint, self._meaning(refusal), detail)
            case Probed(endpoint, outcome):
                self._results[endpoint] = event
                is_other = outcome in (Outcome.REFUSED, Outcome.NOT_MSD)
                self._without_msd[endpoint] = self._without_msd[endpoint] + 1 if is_other else 0
            case Expecting(addresses, unanswered, due):
                for name in due - self._due:
                    # What was found before its last answer is outdated.
                    for address in addresses[name].addresses:
                        self._results.pop(address, None)
                self._addresses, self._unanswered, self._due = addresses, unanswered, due
                missing = unanswered if addresses.keys() - unanswered else ()
                self._missing_since = {name: self._missing_since.get(name, now) for name in missing}
                for name in addresses.keys() - unanswered:
                    self._refusals.pop(name, None)
                return self._probe(now)
        return []

    def _probe(self, now: float) -> list[Action]:
        if not self._unanswered:
            self._results.clear()
            self._without_msd.clear()
            probing, self._probe_at, self._stop_at = self._stop_at is not None, None, None
            return [StopProbes()] if probing else []
        if self._probe_at is None:
            self._probe_at = now + PROBE_DELAY_S
        if self._stop_at is not None and now >= self._stop_at:
            self._stop_at = None
            return [StopProbes()]
        if self._stop_at is None and now >= self._probe_at:
            self._probe_at, self._stop_at = now + PROBE_INTERVAL_S, now + PROBE_TIMEOUT_S
            probed = self._unanswered | self._due
            endpoints = [endpoint for name, endpoint in self._addresses.items() if name in probed]
            addresses = dict.fromkeys(address for endpoint in endpoints for address in endpoint.addresses)
            return [StartProbe(address) for address in addresses]
        return []

    def _outcome(self, name: str, endpoint: Endpoint) -> tuple[Outcome, str]:
        if name not in self._unanswered:
            result = self._result(endpoint)
            # A server that listens will answer when it has something to say.
            is_gone = name in self._due and result.outcome not in (Outcome.UNKNOWN, Outcome.NO_REPLY)
            return (result.outcome, result.detail) if is_gone else (Outcome.ANSWERS, "")
        if name in self._refusals and self._may_be_refused(endpoint):
            refusal = self._refusal(name)
            return refusal.outcome, refusal.detail
        result = self._result(endpoint)
        if self._is_mismatch(result):
            return self._meaning(ConnectionRefusal.MECHANISM), ""
        return result.outcome, result.detail

    def _refusal(self, name: str) -> Contact:
        """Returns the last refusal of a server. A wrong key is only a guess: the handshake failed for some reason."""
        contact = self._refusals[name]
        if contact.outcome is Outcome.WRONG_SERVER_KEY and self._is_mismatch(self._result(contact.endpoint)):
            return replace(contact, outcome=self._meaning(ConnectionRefusal.MECHANISM))
        return contact

    def _is_mismatch(self, result: Probed) -> bool:
        """True if only one side uses keys. The side that reads this first closes the connection, so ZeroMQ may not read
        it on this side.
        """
        return bool(result.mechanism) and (result.mechanism == WITHOUT_KEYS) is self._encrypted

    def _may_be_refused(self, endpoint: Endpoint) -> bool:
        """A refusal is one of ZeroMQ: if a probe found something else, it is newer, or the refusal was a guess."""
        return self._result(endpoint).outcome in (Outcome.NO_REPLY, Outcome.UNKNOWN)

    def _result(self, endpoint: Endpoint) -> Probed:
        """Returns what the last probes of a host's addresses found."""
        results = [self._results[address] for address in endpoint.addresses if address in self._results]
        unknown = Probed(endpoint, Outcome.UNKNOWN)
        return min(results, key=lambda result: _MOST_TELLING.index(result.outcome), default=unknown)

    def _meaning(self, refusal: ConnectionRefusal) -> Outcome:
        match refusal:
            case ConnectionRefusal.KEY:
                return Outcome.KEY_NOT_ADMITTED
            case ConnectionRefusal.ROLE:
                return Outcome.KEY_FOR_WORKERS
            case ConnectionRefusal.MECHANISM:
                return Outcome.NO_KEYS if self._encrypted else Outcome.KEY_REQUIRED
            case ConnectionRefusal.HANDSHAKE:
                return Outcome.WRONG_SERVER_KEY
            case ConnectionRefusal.VERSION:
                return Outcome.VERSION

    def _assert_invariants(self) -> None:
        assert self._stop_at is None or self._probe_at is not None, "a probe without an expected answer"
        assert self._unanswered <= self._addresses.keys(), "an answer from an unknown address is expected"
        assert self._due <= self._addresses.keys() - self._unanswered, "an answer is due that never came"
        assert self._missing_since.keys() <= self._unanswered
