"""Plans a download: requests the pages of a listing one after another, and makes a plan from them. Pure.

Any worker that serves the same edition of the catalogue can send the next page. Does not decide which worker is asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from msd.client.plan.page_check import PageChecker
from msd.client.plan.plan import Group, Plan
from msd.client.plan.selection import Range, Selection, is_glob
from msd.wire.errors import NotFoundError
from msd.wire.protocol.messages import CataloguePage, List, new_rid


class Planner:
    """Plans the download of the files that ``names`` and ``excludes`` select. With ``has_units`` False only lists them.

    Raises ``MsdError`` if a NAME can select nothing.
    """

    def __init__(self, names: Sequence[str], excludes: Sequence[str] = (), *, has_units: bool = True) -> None:
        #: The edition of the catalogue that is listed: that of the first page; None before.
        self.catalogue: bytes | None = None
        self.plan = Plan(has_units=has_units)
        self._names = names
        self._excludes = excludes
        #: None while it is unknown which of the NAMEs that look like globs are the names of files or folders.
        self._selection: Selection | None = None
        self._exact: list[str] = []
        self._checker = PageChecker()
        #: The parts of the listing that are still to be requested, and the last name of the current part so far.
        self._ranges = deque(Range(name, is_file=True) for name in names if is_glob(name))
        self._after = ""
        #: The folders that cannot be shared, because there are files with their names.
        self._absent_folders: set[str] = set()
        if not self._ranges:
            self._select()

    def next_request(self) -> List | None:
        """Returns the request for the next page, None if the plan is complete."""
        if not self._ranges:
            return None
        return List(rid=new_rid(), prefix=self._ranges[0].prefix, after=self._after, catalogue=self.catalogue)

    def add_page(self, page: CataloguePage) -> list[Group]:
        """Adds the page that was requested, and returns the groups of units that are complete now.

        Raises ``ProtocolError`` if the page is invalid: the same page can then be requested from another worker. Raises
        ``UsageError`` if the listing is too large.
        """
        if self._selection is None:
            self._check_name(page)
            groups = []
        else:
            groups = self._add_entries(self._selection, page)
        self.catalogue = page.catalogue
        return groups

    @property
    def has_globs(self) -> bool | None:
        """True if a NAME is a glob; None while it is unknown whether it is the name of a file or folder."""
        return self._selection.has_globs if self._selection else None

    def not_found(self, names: Sequence[str]) -> list[NotFoundError]:
        """Returns an error for each NAME that has selected nothing so far. ``names`` are names of shared files and
        folders to suggest, not necessarily all.
        """
        return self._selection.not_found(names) if self._selection else []

    def _check_name(self, page: CataloguePage) -> None:
        """Finds out whether a NAME that looks like a glob is the name of a file or folder."""
        name = self._ranges.popleft().prefix
        if any(entry.name in (name, f"{name}/") for entry in page.entries):
            self._exact.append(name)
        if not self._ranges:
            self._select()

    def new_selection(self) -> Selection:
        """Returns what is selected, once the NAMEs that look like globs are known."""
        return Selection(self._names, self._excludes, self._exact)

    def _select(self) -> None:
        self._selection = self.new_selection()
        self._ranges.extend(self._selection.ranges)

    def _add_entries(self, selection: Selection, page: CataloguePage) -> list[Group]:
        current, entries = self._ranges[0], page.entries
        if current.is_file:
            entries = [entry for entry in entries[:1] if entry.name == current.prefix]
        self._checker.check(entries)
        if page.more and not current.is_file:
            self._after = entries[-1].name
        else:
            self._ranges.popleft()
            self._after = ""
        if current.is_file and entries:
            self._absent_folders.add(f"{current.prefix}/")
        while self._ranges and self._ranges[0].prefix in self._absent_folders:
            self._ranges.popleft()
        groups = self.plan.add(entry for entry in entries if selection.selects(entry.name))
        return groups if self._ranges else groups + self.plan.finish()
