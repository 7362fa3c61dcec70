"""The events of clients that connect and disconnect: a pure core.

Workers report sessions, which are numbers, and clients report their names with what they download: the two are joined
here. A client that lists files, or an old one, reports no name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from msgspec import Struct

#: A client reports its name soon after it has connected. Number of samples for which the name is awaited.
NAMING_SAMPLES = 2
#: Maximum number of names in an event.
MAX_NAMED = 3


class ClientEvent(Struct, frozen=True):
    """An event: ``text`` with names, which are for operators, and ``public_text`` without."""

    text: str
    public_text: str


class ClientArrivals:
    """The clients that are being served, by their sessions. Call ``sample`` every second."""

    def __init__(self) -> None:
        #: The sessions whose arrival was an event, and the names of their clients; empty if not known.
        self._known: dict[int, str] = {}
        #: The sessions whose arrival is no event yet, and for how many samples the names of their clients were awaited.
        self._new: dict[int, int] = {}
        #: The number of clients whose sessions no worker has listed.
        self._unlisted = 0

    def sample(self, sessions: Set[int], names: Mapping[int, str], clients: int) -> Sequence[ClientEvent]:
        """Returns what has changed. ``sessions`` are open, ``names`` are those of clients by session, and ``clients``
        is the number of clients that are being served: workers list a limited number of sessions.
        """
        waits = {s: self._new.get(s, -1) + 1 for s in (sessions | self._new.keys()) - self._known.keys()}
        arrived = {
            s: names.get(s, "")
            for s, samples in waits.items()
            if s in names or s not in sessions or samples >= NAMING_SAMPLES
        }
        self._new = {s: samples for s, samples in waits.items() if s not in arrived}
        self._known.update(arrived)
        departed = {s: names.get(s, self._known[s]) for s in self._known.keys() - sessions}
        for session in departed:
            del self._known[session]
        unlisted = max(0, clients - len(sessions))
        more, self._unlisted = unlisted - self._unlisted, unlisted
        came, left = [*arrived.values(), *[""] * more], [*departed.values(), *[""] * -more]
        # The clients of which no event says yet that they are being served do not count.
        serving = max(0, clients - len(self._new))
        events = _event(came, "connected", serving + len(left)), _event(left, "disconnected", serving)
        return [event for event in events if event is not None]


def _event(names: Sequence[str], verb: str, clients: int) -> ClientEvent | None:
    """Returns the event of clients with these ``names``, after which ``clients`` are served; None without names."""
    if not names:
        return None
    end = f"{verb}: now serving {clients:,}"
    counted = "client" if len(names) == 1 else f"{len(names):,} clients"
    shown = sorted({name for name in names if name})[:MAX_NAMED]
    others = sum(name not in shown for name in names)
    words = [*shown, *([f"{others:,} other{'' if others == 1 else 's'}"] if others else [])]
    listed = " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    named = f"{'client' if len(words) == 1 else 'clients'} {listed}"
    return ClientEvent(f"{named if shown else counted} {end}", f"{counted} {end}")
