"""Passes on the files of a selection: knows which units of its plan are complete, and finds the digests of files that
are there already.

The plan is that of all selected files, whichever of them this download fetches: receivers that have different files on
the disk have the same plan. ``client/operations/passing_on.py`` passes on; this decides what there is.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from msd.client.manifest.look_up import LookUp
from msd.client.network.session import Session, Task
from msd.client.network_events import NetworkEvent
from msd.client.operations.passing_on import PassingOn
from msd.client.operations.transfer import Transfer
from msd.client.plan.plan import BundleUnit, Plan
from msd.client.storage.output import Output
from msd.wire.errors import MsdError
from msd.wire.protocol.messages import Entry
from msd.wire.protocol.segments import Manifest
from msd.wire.support.core import Stalled

#: The maximum number of large files on the disk whose digests are looked up at the same time.
MAX_LOOK_UPS = 4


class SelectionPassing(Task):
    """Passes on the files of a selection, which have their names in the folder of the descriptor ``folder``.

    Call ``skip`` for each file that is not fetched, and then ``start`` with the complete plan.
    """

    def __init__(self, session: Session, transfer: Transfer, passing: PassingOn, folder: int) -> None:
        self._session = session
        self._transfer = transfer
        self._passing = passing
        self._folder = folder
        self._plan = Plan()
        #: The files that are not fetched; True for each that is kept with the shared content.
        self._skipped: dict[str, bool] = {}
        #: The number of files of each bundle that are fetched and not saved yet.
        self._missing: Counter[int] = Counter()
        #: The kept files whose digests are needed, each with its first unit, and the look-ups.
        self._unknown: deque[tuple[Entry, int]] = deque()
        self._look_ups: dict[LookUp, int] = {}

    def skip(self, name: str, *, is_kept: bool) -> None:
        """A file is not fetched. It has the shared content if it ``is_kept``."""
        self._skipped[name] = is_kept

    def is_wanted(self, name: str) -> bool:
        """True if a file is fetched."""
        return name not in self._skipped

    def start(self, plan: Plan) -> None:
        """Starts to pass on the files of the complete plan. Raises ``MsdError``."""
        self._plan = plan
        files = (entry for entry in map(plan.entry, range(len(plan))) if entry.size)
        self._passing.start(self._session, self._transfer, plan.id, plan.units, files, folder=self._folder)
        self._session.start(self)

    # Small files.

    def start_bundle(self, unit: int, entries: Sequence[Entry]) -> list[Entry]:
        """Returns those of the files of a bundle that are fetched."""
        self._missing[unit] = sum(not self._skipped.get(entry.name, False) for entry in entries)
        self._check_bundle(unit)
        return [entry for entry in entries if self.is_wanted(entry.name)]

    def on_saved(self, unit: int) -> None:
        """A file is saved: perhaps one of the bundle ``unit``."""
        if unit in self._missing:
            self._missing[unit] -= 1
            self._check_bundle(unit)

    def _check_bundle(self, unit: int) -> None:
        if not self._missing[unit]:
            del self._missing[unit]
            self._passing.add_verified(unit)

    # Large files.

    def receive(self, manifest: Manifest, unit: int, output: Output) -> tuple[int, Callable[[int], None]] | None:
        """A file of the plan is received into ``output``. ``unit`` is its first unit, or that of its bundle. Returns
        what ``FileTransfer`` takes; None if this is not what the plan has there.
        """
        place = self._plan.unit(unit)
        if isinstance(place, BundleUnit) or self._plan.entry(place.file).id != manifest.id:
            return None
        self._passing.receive(manifest, unit, output.descriptors)
        return unit, self._passing.add_verified

    def keep(self, entry: Entry, unit: int) -> None:
        """A large file that is not fetched, with its first unit."""
        if self._skipped.get(entry.name, False):
            self._unknown.append((entry, unit))

    def handle(self, event: NetworkEvent | Stalled) -> None:
        pass

    def pass_time(self) -> float:
        for look_up in [look_up for look_up in self._look_ups if look_up.is_done]:
            unit = self._look_ups.pop(look_up)
            # No worker may have the version any more.
            with suppress(MsdError):
                manifest, _ = look_up.result
                self._passing.receive(manifest, unit, ())
                for index in range(manifest.segments):
                    self._passing.add_verified(unit + index)
        while self._unknown and len(self._look_ups) < MAX_LOOK_UPS:
            entry, unit = self._unknown.popleft()
            look_up = LookUp(self._session, entry.name, entry.id)
            self._look_ups[look_up] = unit
            self._session.start(look_up)
        return math.inf
