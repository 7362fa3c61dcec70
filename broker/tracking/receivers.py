"""Answers the announcements of receivers that pass on what they have: the shell around ``Tracker``.

Tries to reach the receivers that announce an address, as a client would. Decides nothing: see
``broker/tracking/tracker.py``.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import zmq

from msd.broker.network.control_socket import Sender
from msd.broker.network.reach import Reaching
from msd.broker.tracking import tracker
from msd.broker.tracking.announcer import Announcer
from msd.broker.tracking.tracker import Announced, Answer, Banned, Complained, Probe, Probed, Tracker
from msd.wire.config.settings import LOOPBACK
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.messages import PASSES_ON, Announce, Holder, Holders, Welcome
from msd.wire.security.keys import KeyPair
from msd.wire.support.core import TimePassed


class Receivers:
    """The receivers that announce themselves. ``keys`` is the broker's pair, None without keys. ``on_ban`` is called
    with the name of the key of each receiver that is not named to others any more, which may be empty, its host and its
    port. Call ``close()``.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: KeyPair | None,
        poll_loop: PollLoop,
        on_ban: Callable[[str, str, int], None],
    ) -> None:
        self._tracker = Tracker(random.SystemRandom().randrange)
        self._poll_loop = poll_loop
        self._on_ban = on_ban
        self._reaching: Reaching[tuple[bytes, Holder]] = Reaching(context, keys, poll_loop, self._on_reached)

    @property
    def count(self) -> int:
        """The number of receivers that pass on what they have."""
        return self._tracker.receivers

    def announce(self, request: Announce, sender: Sender, now: float) -> Holders:
        """Returns the answer to an announcement."""
        announcer = Announcer(sender.name if sender.key else "", sender.host)
        for holder in request.corrupt:
            self._handle(Complained(request.plan, holder, announcer), now)
        (answer,) = self._handle(Announced(request, announcer), now)
        return Holders(rid=request.rid, holders=answer.holders, seconds=answer.seconds)

    def pass_time(self, now: float) -> None:
        self._reaching.pass_time(now)
        if now >= (self._tracker.next_deadline(now) or now + 1):
            self._handle(TimePassed(), now)

    def next_deadline(self, now: float) -> float | None:
        deadlines = [core.next_deadline(now) for core in (self._reaching, self._tracker)]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def close(self) -> None:
        self._reaching.close()

    def _handle(self, event: tracker.Event, now: float) -> list[Answer]:
        """Passes an event to the tracker, and performs its actions. Returns the answers."""
        answers = []
        for action in self._tracker.handle(event, now):
            match action:
                case Answer():
                    answers.append(action)
                case Banned(holder, owner):
                    self._on_ban(owner.key, owner.host, Endpoint.parse(holder.endpoint).port)
                case Probe(plan, holder, seconds):
                    # A holder on this machine is told without its host.
                    endpoint = Endpoint.parse(holder.endpoint).replace_wildcard(LOOPBACK)
                    self._reaching.start((plan, holder), endpoint, holder.key, _passes_on, seconds)
        return answers

    def _on_reached(self, place: tuple[bytes, Holder], reason: str) -> None:
        self._handle(Probed(*place, is_reached=not reason), self._poll_loop.now)


def _passes_on(welcome: Welcome) -> bool:
    return PASSES_ON in welcome.features
