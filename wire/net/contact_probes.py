"""Runs the probes that ``wire/net/contacts.py`` decides on, and passes their results back. Decides nothing itself."""

from __future__ import annotations

import time
from collections.abc import Iterable

from msd.wire.net.contacts import Contacts, Event, Probed, StartProbe, StopProbes
from msd.wire.net.probe import Prober


class ContactProbes:
    """The core ``contacts`` and its probes. Poll ``fd`` for reading and then call ``read``. Call ``close()`` when done.

    ``encrypted`` is True if the client of these addresses uses keys.
    """

    def __init__(self, *, encrypted: bool) -> None:
        self.contacts = Contacts(encrypted=encrypted)
        self._prober = Prober()
        self.fd = self._prober.fd

    def handle(self, event: Event) -> None:
        """Passes an event to the core, and starts or stops probes."""
        for action in self.contacts.handle(event, time.monotonic()):
            match action:
                case StartProbe(endpoint):
                    self._pass_on(self._prober.start(endpoint))
                case StopProbes():
                    self._pass_on(self._prober.stop())

    def read(self) -> None:
        """Passes the results of the probes to the core."""
        self._pass_on(self._prober.read())

    def close(self) -> None:
        self._prober.close()

    def _pass_on(self, results: Iterable[Probed]) -> None:
        for result in results:
            self.handle(result)
