"""Explains why no server answers: what came back from each address, and what to do about it. Pure.

The table ``_TEXTS`` has a statement and an advice for each outcome. Finds out nothing itself:
``wire/net/contacts.py`` collects the outcomes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from msgspec import Struct

from msd.wire.errors import NotAllowedError
from msd.wire.net.endpoints import Endpoint


class Outcome(StrEnum):
    """What came back from an address. Programs read these words (``docs/events.md``)."""

    VERSION = "other-version"  #: a message of another protocol version; ``detail`` is that version
    KEY_FOR_WORKERS = "key-for-workers"  #: the key is admitted for ``msd worker`` only
    KEY_NOT_ADMITTED = "key-not-admitted"
    KEY_REQUIRED = "key-required"  #: the server is encrypted, and the client has no server key
    NO_KEYS = "no-keys"  #: the client has a server key, and the server is not encrypted
    WRONG_SERVER_KEY = "wrong-server-key"  #: every handshake fails
    NOT_MSD = "not-msd"  #: other bytes than those of ZeroMQ; ``detail`` quotes the first line
    CLOSED = "closed"  #: the connection, before a byte arrived
    NO_REPLY = "no-reply"  #: the greeting of ZeroMQ, but no message of msd
    SILENT = "silent"  #: the connection is accepted, but no byte arrives
    UNREACHABLE = "unreachable"  #: an error of the network; ``detail`` names it
    NO_ANSWER = "no-answer"  #: the attempt to connect is neither accepted nor refused
    REFUSED = "refused"  #: nothing listens on the port
    UNKNOWN = "unknown"  #: nothing yet
    ANSWERS = "answers"  #: messages of msd


class Contact(Struct, frozen=True):
    """An address that a client tried. ``name`` is that of the server expected there: ``server 5``, ``worker 1`` or
    ``control port of server 5``.
    """

    name: str
    endpoint: Endpoint
    outcome: Outcome
    detail: str = ""


#: What else may be the reason if this machine refuses connections to its loopback address, the default.
OTHER_ADDRESS = " If it listens at another address, give that one"
#: For each outcome: the statement about one address and about several, and the advice. ``Outcome`` lists the most
#: specific outcomes first. If there are several, the most specific one is stated last, and its advice is given.
_TEXTS = {
    Outcome.VERSION: (
        "uses protocol version {detail}, but this side uses version {version}",
        "use protocol version {detail}, but this side uses version {version}",
        "update the older side",
    ),
    Outcome.KEY_FOR_WORKERS: (
        "admits this key for msd worker only",
        "admit this key for msd worker only",
        "use another key, or ask the operator to run msd keys admit with --role client",
    ),
    Outcome.KEY_NOT_ADMITTED: (
        "does not admit this key",
        "do not admit this key",
        "ask the operator to run msd keys admit",
    ),
    Outcome.KEY_REQUIRED: (
        "requires a key",
        "require a key",
        "give the server key that its msd serve prints, or its config.toml",
    ),
    Outcome.NO_KEYS: (
        "does not use keys",
        "do not use keys",
        "leave out the server key, also in config.toml",
    ),
    Outcome.WRONG_SERVER_KEY: (
        "does not have this server key",
        "do not have this server key",
        "compare it with the key that msd serve prints",
    ),
    Outcome.NOT_MSD: (
        "answers, but is not msd{detail}",
        "answer, but are not msd{detail}",
        "check the address and the port",
    ),
    Outcome.CLOSED: (
        "accepts the connection and closes it at once",
        "accept the connection and close it at once",
        "check the port, and what is between the two machines",
    ),
    Outcome.NO_REPLY: (
        "accepts ZeroMQ connections, but sends no reply of msd",
        "accept ZeroMQ connections, but send no reply of msd",
        "check the order of the ports",
    ),
    Outcome.SILENT: (
        "accepts the connection, but sends nothing",
        "accept the connection, but send nothing",
        "its process is stopped, or it is not msd",
    ),
    Outcome.UNREACHABLE: (
        "cannot be reached{detail}",
        "cannot be reached{detail}",
        "check the address and the network",
    ),
    Outcome.NO_ANSWER: (
        "does not answer",
        "do not answer",
        "check the address, and that no firewall drops the connection",
    ),
    Outcome.REFUSED: (
        "refuses the connection",
        "refuse the connection",
        "is msd serve running there?",
    ),
    Outcome.UNKNOWN: (
        "does not answer",
        "do not answer",
        "is msd serve running there?",
    ),
    Outcome.ANSWERS: ("answers", "answer", ""),
}


def diagnose(contacts: Iterable[Contact], version: int) -> str:
    """Returns one line that says which addresses were tried, what came back from each, and what to do. ``version`` is
    the client's version of the protocol.
    """
    groups: dict[tuple[Outcome, str], list[Contact]] = {}
    for contact in contacts:
        groups.setdefault((contact.outcome, contact.detail), []).append(contact)
    order = list(Outcome)
    clauses: list[str] = []
    advice = ""
    for (outcome, _), group in sorted(groups.items(), key=lambda item: -order.index(item[0][0])):
        advice = _TEXTS[outcome][2]
        if outcome is Outcome.REFUSED and all(contact.endpoint.is_loopback for contact in group):
            advice += OTHER_ADDRESS
        clauses.append(f"{describe(group)} {statement(group[0], version, is_one=len(group) == 1)}")
    return "; ".join(clauses) + (f": {advice}" if advice else "")


def statement(contact: Contact, version: int, *, is_one: bool = True) -> str:
    """Returns what came back from the address of ``contact`` or, unless it ``is_one``, from several addresses."""
    one, several, _ = _TEXTS[contact.outcome]
    return (one if is_one else several).format(detail=_detail(contact.outcome, contact.detail), version=version)


def refused_error(contacts: Sequence[Contact], version: int) -> NotAllowedError:
    """Returns the error of a client that ``contacts`` refuse."""
    needs_key = any(contact.outcome is Outcome.KEY_REQUIRED for contact in contacts)
    return NotAllowedError(diagnose(contacts, version), arguments=("server_key", "config") if needs_key else ())


def describe(contacts: Sequence[Contact]) -> str:
    """Returns the names and the addresses of ``contacts``, with the workers of one host in one phrase."""
    phrases = []
    workers: dict[str, list[Contact]] = {}
    for contact in contacts:
        if contact.name.startswith("worker "):
            workers.setdefault(contact.endpoint.host, []).append(contact)
        else:
            phrases.append(f"{contact.name} at {contact.endpoint}")
    for group in workers.values():
        group.sort(key=_number)
        numbers = _ranges([_number(contact) for contact in group])
        first, *others = [contact.endpoint for contact in group]
        ports = _ranges([first.port, *(endpoint.port for endpoint in others)])
        host = str(first).rpartition(":")[0]
        phrases.append(f"{'workers' if others else 'worker'} {numbers} at {host}:{ports}")
    *most, last = phrases
    return f"{', '.join(most)} and {last}" if most else last


def _number(worker: Contact) -> int:
    return int(worker.name.removeprefix("worker "))


def _detail(outcome: Outcome, detail: str) -> str:
    if not detail or outcome is Outcome.VERSION:
        return detail
    return f" (it sends {detail!r})" if outcome is Outcome.NOT_MSD else f" ({detail})"


def _ranges(numbers: Sequence[int]) -> str:
    """Returns the numbers as text, consecutive ones as a range: ``1-4, 6``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
